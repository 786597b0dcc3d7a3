"""How the annotation page holds: a queue of 10,000 items under four people at once, and kills while labels come in.

    python experiments/people/figures.py [KILLS]

Prints the median and the 95th percentile of the page's answers on the loopback interface, the processor time of an
answer and the load of the machine (wall times mean little on a busy one), and how many labels that the page had
acknowledged were lost over 100 kills of the server.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import replace
from http.cookiejar import CookieJar
from pathlib import Path

from rlaif_lab.people.queue import LabelQueue, item_of
from rlaif_lab.records import Comparison, Prompt

PORT = 8811


def start(folder: Path) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start the real command; return it and everybody's link."""
    names = [f"annotator{i}" for i in range(4)]
    command = [sys.executable, "-m", "rlaif_lab.cli.annotate", str(folder), "--port", str(PORT)]
    process = subprocess.Popen(
        [*command, "--annotators", ",".join(names)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    links: dict[str, str] = {}
    while len(links) < 5:
        if found := re.match(r"(.+): (http://\S+)$", process.stdout.readline().strip()):
            links[found[1]] = found[2]
    return process, links


class Person:
    """Labels over HTTP as a browser does, and remembers what was acknowledged."""

    def __init__(self, link: str) -> None:
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.link, self.seconds, self.acknowledged = link, [], []  # type: ignore[var-annotated]
        self.page = ""

    def ask(self, path: str, data: dict[str, str] | None = None) -> str:
        body = None if data is None else urllib.parse.urlencode(data).encode()
        begun = time.perf_counter()
        with self.opener.open(f"http://127.0.0.1:{PORT}{path}", body, timeout=20) as answer:
            text: str = answer.read().decode()
        self.seconds.append(time.perf_counter() - begun)
        return text

    def enter(self) -> None:
        self.page = self.ask(urllib.parse.urlsplit(self.link).path)

    def label(self) -> bool:
        item = re.search(r'name="item" value="(\w+)"', self.page)
        csrf = re.search(r'name="csrf" value="(\w+)"', self.page)
        if item is None or csrf is None:
            return False
        self.page = self.ask("/label", {"csrf": csrf[1], "item": item[1], "choice": "left", "seconds": "1"})
        self.acknowledged.append(item[1])
        return True


def filled(folder: Path, count: int) -> LabelQueue:
    queue = LabelQueue(folder / "labels.sqlite")
    made = (item_of(Comparison(Prompt(f"p{i}", f"question {i}"), "one " * 40, f"two {i} " * 40)) for i in range(count))
    queue.add([replace(item, needed=1) for item in made])
    return queue


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """Return the processor time that a process has taken so far, its own and the system's for it."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(folder: Path, items: int, each: int) -> None:
    """Four people at once, ``each`` labels a person."""
    filled(folder, items)
    process, links = start(folder)
    people = [Person(link) for name, link in links.items() if name.startswith("annotator")]

    def work(person: Person) -> None:
        person.enter()
        for _ in range(each):
            person.label()

    owner = Person(links["owner's page"])
    owner.enter()
    begun = processor_seconds(process)
    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        owner.ask("/owner")
        time.sleep(0.5)
    for thread in threads:
        thread.join()
    spent = processor_seconds(process) - begun
    begun = processor_seconds(process)
    for _ in range(20):
        owner.ask("/owner")
    each_owner = (processor_seconds(process) - begun) / 20
    process.kill()
    times = sorted(1000 * s for person in people for s in person.seconds)
    own = [1000 * s for s in owner.seconds[1:-20]]
    each = (spent - each_owner * len(own)) / len(times)
    print(f"the owner's page meanwhile, {len(own)} answers: median {statistics.median(own):.1f} ms")
    print(
        f"{items} items, 4 people, {len(times)} answers: median {statistics.median(times):.1f} ms, "
        f"95th percentile {times[int(0.95 * len(times))]:.1f} ms"
    )
    print(
        f"processor time: {1000 * each:.1f} ms an answer, {1000 * each_owner:.1f} ms of the owner's page; load of the "
        f"machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def kills(folder: Path, count: int) -> None:
    """Kill the server again and again while somebody labels; nothing acknowledged may be lost or asked twice."""
    queue, rng = filled(folder, 5000), random.Random(0)
    acknowledged: list[str] = []
    for _ in range(count):
        process, links = start(folder)
        person = Person(links["annotator0"])
        last, delay = rng.randint(1, 60), rng.random() * 0.02
        try:
            person.enter()
            while person.label():
                if len(person.acknowledged) == last:  # in the middle of one of the next answers
                    threading.Timer(delay, process.kill).start()
        except (http.client.HTTPException, OSError):  # it was killed in the middle of an answer, or before it
            pass
        process.wait()
        acknowledged += person.acknowledged
    held = [label.item for label in queue.labels()]
    lost = set(acknowledged) - set(held)
    twice = len(acknowledged) - len(set(acknowledged))
    print(f"{count} kills, {len(acknowledged)} labels acknowledged: {len(lost)} lost, {twice} asked twice")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        load(Path(folder), 10_000, 100)
    with tempfile.TemporaryDirectory() as folder:
        kills(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 100)


if __name__ == "__main__":
    main()
