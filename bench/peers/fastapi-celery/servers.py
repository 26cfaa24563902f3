"""Where MySQL is."""

import os
from urllib.parse import unquote, urlsplit


def database_settings() -> dict:
    """Arguments that both drivers name alike, from DATABASE_URL."""
    url = urlsplit(os.environ["DATABASE_URL"])
    return {
        "host": url.hostname,
        "port": url.port or 3306,
        "user": unquote(url.username or "root"),
        "password": unquote(url.password or ""),
        "database": url.path.lstrip("/"),
        "charset": "utf8mb4",
    }
