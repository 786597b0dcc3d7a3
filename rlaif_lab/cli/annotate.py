"""``rlaif-annotate``: the page on which people label a run's comparisons, and labels in and out."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import sys
from pathlib import Path

from rlaif_lab.cli.help import lab_version
from rlaif_lab.people.exchange import FORMATS, export, load
from rlaif_lab.people.queue import LabelQueue, item_of

QUEUE = "labels.sqlite"


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    found = argparse.ArgumentParser(
        prog="rlaif-annotate",
        description="Open the page on which people label the comparisons that a run, or the runs of a sweep, put into "
        "their queue; or a file of pairs.",
        epilog="Example: rlaif-annotate outputs/people/... --annotators ada,ben",
    )
    found.add_argument("--version", action="version", version=f"%(prog)s {lab_version()}")
    found.add_argument("where", type=Path, help="folder of a run or a sweep, a queue, or a file of pairs")
    found.add_argument("--annotators", default="me", help="names, separated by commas; each gets a link (default: me)")
    found.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: this machine only)")
    found.add_argument("--port", type=int, default=8765, help="0: any that is free (default: 8765)")
    found.add_argument("--check-every", type=int, default=10, help="labels between two attention checks; 0: none")
    found.add_argument("--usd-per-hour", type=float, default=0.0, help="what people are paid, for the owner's page")
    found.add_argument("--labels-per-item", type=int, default=1, help="people per item, for a file of pairs")
    found.add_argument("--export", choices=FORMATS, help="print the queue with its labels, and end")
    found.add_argument(
        "--import", dest="load", nargs=2, metavar=("FORMAT", "FILE"), help="add a file's labels, and end"
    )
    return found


def main() -> None:
    """Run ``rlaif-annotate``. A user's mistake ends in one sentence and exit code 2."""
    options = parser().parse_args()
    try:
        queues = open_queues(options.where, options.labels_per_item)
        if options.export:
            for queue in queues:
                sys.stdout.write(export(queue, options.export))
        elif options.load:
            load_all(queues, *options.load)
        else:
            serve(queues, options)
    except ValueError as error:
        print(f"rlaif-annotate: {error}", file=sys.stderr)
        sys.exit(2)


def open_queues(where: Path, labels_per_item: int) -> list[LabelQueue]:
    """Return the queues of a run, a sweep or a file.

    Raises:
        ValueError: where there is none, with what to do.
    """
    if where.is_dir():
        found = sorted(where.rglob(QUEUE))
        if not found:
            raise ValueError(
                f"{str(where)!r} has no queue yet: a run with judge=people, or judge=human_budget "
                "judge@judge.human=people, makes one when it first asks"
            )
        return [LabelQueue(path) for path in found]
    if not where.is_file():
        raise ValueError(f"there is no file or folder {str(where)!r}")
    if where.suffix == ".sqlite":
        return [LabelQueue(where)]
    from dataclasses import replace

    from rlaif_lab.audit.bank import FileBank
    from rlaif_lab.tasks.prompts_file import SHIPPED, PromptsFile

    pairs = FileBank(str(where)).load(PromptsFile(str(SHIPPED), 1))
    queue = LabelQueue(where.with_suffix(".labels.sqlite"))
    queue.add([replace(item_of(pair.comparison), needed=labels_per_item) for pair in pairs])
    return [queue]


def load_all(queues: list[LabelQueue], form: str, file: str) -> None:
    """Add the labels of a file to the queue, and say what became of each."""
    if form not in FORMATS:
        raise ValueError(f"--import: the format must be one of {', '.join(FORMATS)}; got {form!r}")
    if len(queues) > 1:
        raise ValueError("--import: name one queue; there are " + ", ".join(str(queue.path) for queue in queues))
    found = load(queues[0], Path(file), form)
    print(f"{found.new} labels added, {found.known} known, {len(found.refused)} refused")
    for line in found.refused:
        print(line, file=sys.stderr)


def secret_of(folder: Path) -> bytes:
    """Return what decides the links, made once and readable by this user only, so that links outlive a restart."""
    path = folder / "annotate_secret"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


def serve(queues: list[LabelQueue], options: argparse.Namespace) -> None:
    """Print everybody's link, and serve the page until it is stopped."""
    import socket

    import uvicorn

    from rlaif_lab.people.app import Desk, application

    names = [name.strip() for name in options.annotators.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"--annotators needs one or more different names; got {options.annotators!r}")
    folder = options.where if options.where.is_dir() else options.where.parent
    desk = Desk(queues, secret_of(folder), names, options.check_every, options.usd_per_hour)
    listener = socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen()  # a link that is printed can be opened at once
    except OSError as error:
        raise ValueError(f"cannot listen on {options.host}, port {options.port}: {error.strerror}") from error
    port = listener.getsockname()[1]
    if not _loopback(options.host):
        print(
            f"Listening on {options.host}: whoever reaches this machine can open the page, and a link gives access to "
            "all prompts and responses. Links travel unencrypted; put a proxy with TLS in front for other networks.",
            flush=True,
        )
    address = f"http://{'[' + options.host + ']' if ':' in options.host else options.host}:{port}"
    for name in names:
        print(f"{name}: {address}/enter/{desk.token(name)}", flush=True)
    print(f"owner's page: {address}/enter/{desk.token('')}", flush=True)
    # No access log: addresses hold tokens.
    config = uvicorn.Config(application(desk), access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
