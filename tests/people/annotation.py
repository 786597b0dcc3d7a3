"""The real command, as somebody starts it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """links: by name; ``owner's page`` is the owner's. port: it listens on."""

    process: subprocess.Popen[str]
    links: dict[str, str]
    port: int


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(where: Path, *arguments: str, port: int | None = None) -> Iterator[Served]:
    """Serves the page until the block ends."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "rlaif_lab.cli.annotate", str(where), "--port", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    links: dict[str, str] = {}
    while "owner's page" not in links:
        line = process.stdout.readline()
        assert line, "the command ended"
        if found := re.match(r"(.+): (http://\S+)$", line.strip()):
            links[found[1]] = found[2]
    try:
        yield Served(process, links, port)
    finally:
        process.kill()
        process.wait()
