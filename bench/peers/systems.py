"""How each system is prepared, started and shown by `run`."""

import getpass
import os
import pathlib
import statistics
import subprocess
import sys
from dataclasses import dataclass

NAMES = ("insightforge", "fastify-bullmq", "fastapi-celery")
# About ten seconds each at full speed on two cores.
TASKS = {"insightforge": 60_000, "fastify-bullmq": 8_000, "fastapi-celery": 2_000}


def default_binary() -> pathlib.Path:
    root = pathlib.Path(__file__).resolve().parents[2]
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release" / "insightforge"


def user() -> str:
    return getpass.getuser()


def median(values) -> float | None:
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


@dataclass
class Place:
    """Where one system runs. Ports: Redis, database, API, webhooks, then the system's own."""

    here: pathlib.Path
    binary: pathlib.Path
    ports: list[int]
    secret: str

    @property
    def target(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}"

    @property
    def webhook_port(self) -> int:
        return self.ports[3]

    def environment(self, **more: str) -> dict[str, str]:
        place = {
            "REDIS_URL": f"redis://127.0.0.1:{self.ports[0]}",
            "DATABASE_URL": f"mysql://root@127.0.0.1:{self.ports[1]}/peers",
            "PORT": str(self.ports[2]),
            "WEBHOOK_URL": f"http://127.0.0.1:{self.webhook_port}/hook",
            "WEBHOOK_SECRET": self.secret,
        }
        return {**os.environ, **place, **more}

    def bench_environment(self) -> dict[str, str]:
        return self.environment(INSIGHTFORGE_WEBHOOK_SECRET=self.secret)


@dataclass
class System:
    health: str = "/api/health"


def prepare(here: pathlib.Path, names: list[str]) -> None:
    """Installs what the peers need, beside their sources."""
    if "fastify-bullmq" in names and not (here / "fastify-bullmq/node_modules").exists():
        subprocess.run(["npm", "ci"], cwd=here / "fastify-bullmq", check=True, stdout=sys.stderr)
    if "fastapi-celery" in names and not (here / "fastapi-celery/.venv/bin/celery").exists():
        venv = here / "fastapi-celery/.venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, stdout=sys.stderr)
        install = [venv / "bin/pip", "install", "-q", "-r", here / "fastapi-celery/requirements.txt"]
        subprocess.run(install, check=True, stdout=sys.stderr)


def start(name: str, place: Place, spawn) -> System:
    starters = {"insightforge": insightforge, "fastify-bullmq": fastify_bullmq, "fastapi-celery": fastapi_celery}
    return starters[name](place, spawn)


def insightforge(place: Place, spawn) -> System:
    def environment(metrics_port: int) -> dict[str, str]:
        return place.environment(
            INSIGHTFORGE_HTTP_ADDR=f"127.0.0.1:{place.ports[2]}",
            INSIGHTFORGE_METRICS_ADDR=f"127.0.0.1:{metrics_port}",
            INSIGHTFORGE_WEBHOOK_URL=f"http://127.0.0.1:{place.webhook_port}/hook",
            INSIGHTFORGE_WEBHOOK_SECRET=place.secret,
            INSIGHTFORGE_ENCRYPTION_KEY="00" * 32,
            INSIGHTFORGE_LOG="warn",
        )

    subprocess.run([place.binary, "migrate"], env=environment(place.ports[4]), check=True, stdout=subprocess.DEVNULL)
    for role, port in zip(("api", "analyzer", "projector"), place.ports[4:]):
        spawn(role, [place.binary, role], env=environment(port))
    return System()


def fastify_bullmq(place: Place, spawn) -> System:
    home = place.here / "fastify-bullmq"
    environment = place.environment(NODE_ENV="production")
    for role in ("api", "worker"):
        spawn(role, ["node", f"{role}.js"], cwd=home, env=environment)
    return System()


def fastapi_celery(place: Place, spawn) -> System:
    home = place.here / "fastapi-celery"
    environment = place.environment()
    api = ["uvicorn", "api:app", "--host", "127.0.0.1", "--port", str(place.ports[2])]
    api += ["--no-access-log", "--loop", "uvloop", "--http", "httptools", "--workers", os.environ.get("API_WORKERS", "1")]
    worker = ["celery", "-A", "worker", "worker", "--pool", "prefork", "--concurrency", os.environ.get("CELERY_WORKERS", "4")]
    worker += ["--loglevel", "warning", "--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair"]
    for role, command in (("api", api), ("worker", worker)):
        program = home / ".venv/bin" / command[0]
        spawn(role, [program, *command[1:]], cwd=home, env=environment)
    return System()


def line(name: str, reports: list[dict], ours: float | None) -> str:
    """One row of the table: medians over the rounds."""
    completed = median(report["completed_per_s"] for report in reports)
    ratio = f"{ours / completed:.1f}" if ours else "-"

    def latency(until: str) -> str:
        found = [entry for report in reports for entry in report["latencies"] if entry["until"] == until]
        if not found:
            return "-"
        return "/".join(f"{median(entry[key] for entry in found):.1f}" for key in ("p50_ms", "p99_ms"))

    parts, own, servers = [], 0.0, 0.0
    for process in (process["name"] for process in reports[0]["processes"]):
        same = [p for report in reports for p in report["processes"] if p["name"] == process]
        cpu, rss = median(p["cpu_s_per_1000"] for p in same), median(p["peak_rss"] for p in same)
        parts.append(f"{process} {cpu:.3f} ({rss / 2**20:.0f})")
        if process in ("redis", "mariadb"):
            servers += cpu
        elif process != "bench":
            own += cpu
    faults = sum(fault["count"] for report in reports for fault in report["audit"]["faults"])
    audit = "" if faults == 0 else f"  AUDIT FAILED: {faults} faults"
    row, webhook = latency("row completed"), latency("webhook received")
    accepted = median(report["accepted_per_s"] for report in reports)
    numbers = f"{accepted:>11.0f}{completed:>12.0f}{ratio:>7}{row:>16}{webhook:>16}{own:>8.3f}{servers:>9.3f}"
    return f"{name:<16}{numbers}   {', '.join(parts)}{audit}"
