"""``rlaif-annotate``: the page on which people label a run's comparisons, and labels in and out."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_lab.cli.endings import told
from rlaif_lab.cli.help import lab_version
from rlaif_lab.instructions.constitution import Constitution
from rlaif_lab.instructions.criteria import criteria_text
from rlaif_lab.people.exchange import FORMATS, export, load
from rlaif_lab.people.human_set import FOLDER as HUMAN_SET
from rlaif_lab.people.queue import LabelQueue, Limits, check_of, item_of
from rlaif_lab.progress import printable
from rlaif_lab.tracking.naming import sweep_of

if TYPE_CHECKING:
    from rlaif_lab.audit.pairs import LabelledPair

QUEUE = "labels.sqlite"


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    found = argparse.ArgumentParser(
        prog="rlaif-annotate",
        description="Open the page on which people label comparisons: those in the queue of a run or a sweep, or a "
        "file of pairs.",
        epilog="Example: rlaif-annotate outputs/people/... --annotators ada,ben",
    )
    found.add_argument("--version", action="version", version=f"%(prog)s {lab_version()}")
    found.add_argument(
        "where", type=Path, metavar="WHERE", help="the folder of a run or a sweep, a queue, or a file of pairs"
    )
    found.add_argument(
        "--annotators", metavar="NAMES", default="me", help="names, separated by commas; each gets a link (default: me)"
    )
    found.add_argument("--host", default="127.0.0.1", help="the interface to listen on (default: this machine only)")
    found.add_argument("--port", type=int, default=8765, help="the port; 0: any free one (default: 8765)")
    found.add_argument(
        "--check-every",
        type=int,
        metavar="LABELS",
        default=10,
        help="the number of labels between two attention checks; 0: no checks (default: 10)",
    )
    found.add_argument(
        "--checks", type=Path, metavar="FILE", help="pairs with known answers, to be used as attention checks"
    )
    found.add_argument(
        "--usd-per-hour", type=float, metavar="USD", help="what people are paid (default: as in the run)"
    )
    found.add_argument(
        "--max-minutes", type=float, metavar="MINUTES", help="for a file of pairs: people's time (default: no limit)"
    )
    found.add_argument(
        "--criteria", metavar="TEXT", help="for a file of pairs: the question, or a name in conf/criteria"
    )
    found.add_argument(
        "--constitution", metavar="NAME", help="for a file of pairs: principles shown on request, by name or path"
    )
    found.add_argument(
        "--labels-per-item",
        type=int,
        metavar="COUNT",
        default=1,
        help="for a file of pairs: how many people label each item (default: 1)",
    )
    found.add_argument("--export", choices=FORMATS, help="print the queue with its labels, and stop")
    found.add_argument(
        "--import", dest="load", nargs=2, metavar=("FORMAT", "FILE"), help="add the labels of a file, and stop"
    )
    return found


def main() -> None:
    """Run ``rlaif-annotate``. A user's mistake ends in one sentence and exit code 2."""
    options = parser().parse_args()
    with told("rlaif-annotate"):
        try:
            check(options)
            queues = open_queues(options)
            if options.checks is not None:
                add_checks(queues, options.checks)
            if options.export:
                sys.stdout.write(export(queues, options.export))
            elif options.load:
                load_all(queues, *options.load)
            else:
                serve(queues, options)
        except ValueError as error:
            print(printable(f"rlaif-annotate: {error}"), file=sys.stderr)
            sys.exit(2)


def check(options: argparse.Namespace) -> None:
    """Raise ValueError for a number that makes no sense."""
    for key, above in (
        ("max_minutes", True),
        ("usd_per_hour", False),
        ("labels_per_item", True),
        ("check_every", False),
    ):
        value = getattr(options, key)
        # Written so that nan, which is not above anything, is refused too.
        if value is not None and not (value > 0.0 if above else value >= 0.0):
            allowed = "positive" if above else "0 or more"
            raise ValueError(f"--{key.replace('_', '-')} must be {allowed}; got {value}")


def open_queues(options: argparse.Namespace) -> list[LabelQueue]:
    """Return the queues of a run, a sweep or a file.

    Raises:
        ValueError: where there is none, with what to do.
    """
    where: Path = options.where
    if where.is_dir():
        found = sorted(where.rglob(QUEUE))
        if (sweep := sweep_of(where)) is not None:  # what the run shares with the others
            found += sorted((sweep / HUMAN_SET).glob(QUEUE))
        if not found:
            raise ValueError(
                f"{str(where)!r} has no queue yet: a run with judge=people, judge=human_budget "
                "judge@judge.human=people, or human_set=people, makes one when it first asks"
            )
        return [LabelQueue(path) for path in found]
    if not where.is_file():
        raise ValueError(f"there is no file or folder {str(where)!r}")
    if where.suffix == ".sqlite":
        return [LabelQueue(where)]
    return [queue_of_file(options)]


def queue_of_file(options: argparse.Namespace) -> LabelQueue:
    """Return the queue of a file of pairs, beside it; what is in it already stays."""
    criteria = criteria_text(options.criteria) if options.criteria else None
    guidelines = Constitution.load(options.constitution).guidelines() if options.constitution else None
    queue = LabelQueue(options.where.with_suffix(".labels.sqlite"))
    # By content: pairs that are in the queue already stay as they are, with their labels.
    items = [item_of(pair.comparison, criteria) for pair in pairs_of(options.where)]
    queue.add([replace(item, needed=options.labels_per_item) for item in items])
    seconds = None if options.max_minutes is None else 60.0 * options.max_minutes
    queue.limit(Limits(seconds=seconds, usd_per_hour=options.usd_per_hour or 0.0, guidelines=guidelines))
    return queue


def pairs_of(path: Path) -> list[LabelledPair]:
    """Return the pairs of a file, in any layout that banks are read in."""
    from rlaif_lab.audit.bank import FileBank
    from rlaif_lab.tasks.prompts_file import SHIPPED, PromptsFile

    return FileBank(str(path)).load(PromptsFile(str(SHIPPED), 1))


def add_checks(queues: list[LabelQueue], path: Path) -> None:
    """Put pairs whose better response is known in between, under the same criteria as the rest."""
    if not path.is_file():
        raise ValueError(f"--checks: there is no file {str(path)!r}")
    pairs, new = pairs_of(path), 0
    for queue in queues:
        asked = queue.items()
        # Checks look like any other item, so they are asked by the same criteria.
        criteria = asked[0].criteria if asked else None
        new = max(new, queue.add([check_of(pair.comparison, pair.prob_first_is_better, criteria) for pair in pairs]))
    print(f"{new} attention checks added, {len(pairs) - new} known", file=sys.stderr)


def load_all(queues: list[LabelQueue], form: str, file: str) -> None:
    """Add the labels of a file to the queues, and say what became of each."""
    if form not in FORMATS:
        raise ValueError(f"--import: the format must be one of {', '.join(FORMATS)}; got {form!r}")
    found = load(queues, Path(file), form)
    print(f"{found.new} labels added, {found.known} known, {len(found.refused)} refused")
    for line in found.refused:
        print(printable(line), file=sys.stderr)


def secret_of(folder: Path) -> bytes:
    """Return what decides the links, made once and readable by this user only, so that links outlive a restart."""
    path = folder / "annotate_secret"
    if not path.exists():
        # The mode from the start: a file that is made readable first could be read in between.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        # Whole or not at all, and never over that of another page which begins at the same time.
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, path)
        temporary.unlink(missing_ok=True)
    return path.read_bytes()


def serve(queues: list[LabelQueue], options: argparse.Namespace) -> None:
    """Print everybody's link, and serve the page until it is stopped."""
    import socket

    import uvicorn

    from rlaif_lab.people.app import Desk, application

    names = [name.strip() for name in options.annotators.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"--annotators needs one or more different names; got {options.annotators!r}")
    # Beside the queue, so that the links of a sweep's people hold for all of its runs.
    folder = options.where if options.where.is_dir() else options.where.parent
    desk = Desk(queues, secret_of(folder), names, options.check_every, options.usd_per_hour)
    listener = socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET)
    # A page that was just stopped leaves its port waiting; the next one may have it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Bound before links are printed: port 0 has no number until then.
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
    # IPv6 addresses stand in brackets in a URL.
    address = f"http://{'[' + options.host + ']' if ':' in options.host else options.host}:{port}"
    for name in names:
        print(f"{name}: {address}/enter/{desk.token(name)}", flush=True)
    print(f"owner's page: {address}/enter/{desk.token('')}", flush=True)
    for queue in queues:
        queue.note_page(address)  # so that the run that waits can say where to go
    # No access log: addresses hold tokens.
    config = uvicorn.Config(application(desk), access_log=False, log_level="warning")
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        for queue in queues:
            # Whoever waits for labels must not be sent to a page that is gone.
            queue.note_page(None)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name and no address: only this one is sure to be the machine itself.
        return host == "localhost"


if __name__ == "__main__":
    main()
