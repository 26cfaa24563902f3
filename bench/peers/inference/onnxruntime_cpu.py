#!/usr/bin/env python3
"""How much CPU ONNX Runtime takes for one call of a text model, on one thread: what an embedded engine is held against.

    .venv/bin/python onnxruntime_cpu.py model.onnx [more.onnx ...]

Prints CPU milliseconds (user and system, of this process) and milliseconds of the clock a call, the least of several
rounds, for 1 × 16, 1 × 128 and 32 × 32 tokens."""

import argparse
import pathlib
import time

import numpy as np
import onnxruntime

SHAPES = ((1, 16), (1, 128), (32, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--highest-id", type=int, default=5000, help="token ids are drawn below it")
    args = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, one thread: CPU ms (clock ms) a call")
    print(f"{'model':<50}" + "".join(f"{f'{batch} x {tokens}':>20}" for batch, tokens in SHAPES))
    for path in args.models:
        session = session_of(path)
        cells = [measure(session, feed(session, shape, args.highest_id), args) for shape in SHAPES]
        print(f"{str(path)[-49:]:<50}" + "".join(f"{f'{cpu:.2f} ({clock:.2f})':>20}" for cpu, clock in cells))


def session_of(path: pathlib.Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(session: onnxruntime.InferenceSession, shape: tuple[int, int], highest_id: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(1).integers(5, highest_id, shape)
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {port.name: values[port.name] for port in session.get_inputs()}


def measure(session: onnxruntime.InferenceSession, feed: dict, args: argparse.Namespace) -> tuple[float, float]:
    for _ in range(3):
        session.run(None, feed)
    found = []
    for _ in range(args.rounds):
        calls, cpu, clock = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - clock < args.seconds:
            session.run(None, feed)
            calls += 1
        found.append(((time.process_time() - cpu) / calls * 1e3, (time.perf_counter() - clock) / calls * 1e3))
    return min(cpu for cpu, _ in found), min(clock for _, clock in found)


if __name__ == "__main__":
    main()
