"""What people's labels tell, shown on answers of a real language model whose truth is known.

    python experiments/people/worked_example.py            # label through the page in Chromium, then report
    python experiments/people/worked_example.py --report   # report from the committed labels

The annotators are scripts: they read the page, work the sum out, and press the wrong key at a stated rate. They stand
for people so that what comes out can be held against what was put in. Writes ``labels.jsonl`` and ``example.md``.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from rlaif_lab.people.agreement import agreement, noise
from rlaif_lab.people.exchange import export, load
from rlaif_lab.people.queue import Item, LabelQueue, item_of
from rlaif_lab.records import Comparison, Floats, Prompt
from rlaif_lab.seeding import rng_for, seed_for
from rlaif_lab.statistics.ppi import rectified_mean

HERE = Path(__file__).parent
ANSWERS, LABELS, REPORT = HERE / "answers.jsonl", HERE / "labels.jsonl", HERE / "example.md"
ERRORS = {"ada": 0.1, "ben": 0.2}
"""What the scripts are told: how often to press the wrong key."""
ROUTED, DRAWS = 0.1, 2000
READ = "[...document.querySelectorAll('main pre')].map(e => e.textContent)"
SHOWN = "document.readyState === 'complete' ? (document.querySelector('[name=item]') || {}).value : null"


def items() -> list[Item]:
    """Return the comparisons, each wanted from both annotators."""
    rows = [json.loads(line) for line in ANSWERS.read_text().splitlines()]
    found = []
    for number, row in enumerate(rows):
        item = item_of(Comparison(Prompt(f"sum {number}", row["prompt"]), row["first"], row["second"]))
        ai = row["ai"] if item.first == row["first"] else 1.0 - row["ai"]
        found.append(replace(item, needed=len(ERRORS), ai=ai))
    return found


def right_of(prompt: str, first: str, second: str) -> int:
    """Return 0 if the first is the sum, 1 if the second is."""
    a, b = map(int, re.findall(r"\d+", prompt))
    return [int(first), int(second)].index(a + b)


# --- labelling --------------------------------------------------------------------------------------------------------
def annotate(page: Any, name: str, link: str) -> None:
    """Label until nothing is left: read the page, find the sum, press a key."""
    page.visit(link)
    before = None
    while True:
        end = time.monotonic() + 60.0
        while (shown := read(page, SHOWN)) in (None, before):
            if read(page, "document.title") == "Nothing left to label":
                return
            assert time.monotonic() < end, "the page did not go on"
            time.sleep(0.02)
        key = right_of(*page.evaluate(READ))
        if seed_for("an error of", name, shown) / 2**63 < ERRORS[name]:
            key = 1 - key
        page.evaluate(f"document.querySelector('#choices button[data-key=\"{key + 1}\"]').click()")
        before = shown


def read(page: Any, expression: str) -> Any:
    """Return what an expression is on the page; None while it goes to the next one."""
    try:
        return page.evaluate(expression)
    except AssertionError as error:
        if "navigated" not in str(error):
            raise
        return None


def label(folder: Path) -> LabelQueue:
    """Have both annotators label everything at once, in a browser each."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    browser = importlib.import_module("browser").browser
    served = importlib.import_module("people.annotation").served

    queue = LabelQueue(folder / "labels.sqlite")
    queue.add(items())
    with served(folder, "--annotators", ",".join(ERRORS)) as desk, browser() as one, browser() as two:
        pages = zip((one, two), ERRORS, strict=True)
        threads = [threading.Thread(target=annotate, args=(page, name, desk.links[name])) for page, name in pages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.progress().missing == 0, "an annotator has given up"
        external = [a for page in (one, two) for a in page.requests if not a.startswith("http://127.0.0.1:")]
        assert not external, external
    return queue


# --- what they tell ---------------------------------------------------------------------------------------------------
def lower_is_right(asked: Sequence[Item]) -> npt.NDArray[np.bool_]:
    return np.array([right_of(item.prompt.text, item.first, item.second) == 0 for item in asked])


def share(of: npt.NDArray[np.bool_]) -> str:
    found = stats.binomtest(int(of.sum()), len(of)).proportion_ci(method="wilson")
    return f"{of.mean():.3f} ({found.low:.3f} to {found.high:.3f})"


def report(queue: LabelQueue) -> str:
    """Return a table of what was put in and what came out."""
    asked, labels = items(), queue.labels()
    truth = lower_is_right(asked).astype(float)
    ai = np.array([item.ai for item in asked], dtype=float)
    place = {item.id: i for i, item in enumerate(asked)}
    said = {name: np.full(len(asked), np.nan) for name in ERRORS}
    for one in labels:
        said[one.annotator][place[one.item]] = float(one.choice == "first")
    lines = ["| what | put in | found |", "| --- | --- | --- |"]
    lines.append(f"| comparisons, labels | {len(asked)}, {len(asked) * len(ERRORS)} | {len(asked)}, {len(labels)} |")
    for name, rate in ERRORS.items():
        lines.append(f"| {name}'s error rate, against the truth | {rate:g} | {share(said[name] != truth)} |")
    found, (e, f) = agreement(queue.said()), ERRORS.values()
    lines.append(f"| how often both agree | {1 - e - f + 2 * e * f:.2f} | {share(said['ada'] == said['ben'])} |")
    lines.append(f"| error rate they share, without the truth | {(e + f) / 2:.2f} | {noise(queue.said()):.3f} |")
    lines.append(f"| Krippendorff's alpha, of the two | - | {found.alpha:.3f} |")
    lines.append(f"| the same with the AI judge as a third | - | {found.alpha_with_ai:.3f} |")
    lines.append(f"| the AI judge's labels that are right | - | {share((ai > 0.5) == truth)} |")
    count = round(ROUTED * len(asked))
    for how, order in (
        ("at random", rng_for(0, "routed at random").permutation(len(asked))),
        ("by uncertainty", np.argsort(np.abs(ai - 0.5), kind="stable")),
    ):
        mixed = (ai > 0.5).astype(float)
        mixed[order[:count]] = said["ada"][order[:count]]
        lines.append(f"| right with {count} of ada's in their place, {how} | - | {share(mixed == truth)} |")
    return "\n".join([*lines, *win_rates(asked, ai, said["ada"], count)]) + "\n"


def win_rates(asked: Sequence[Item], ai: Floats, ada: Floats, count: int) -> list[str]:
    """Return how well ``count`` random labels of ada's tell how often the longer answer (the larger number, where both
    are as long) is the right one: alone, by the AI judge alone, and both together. Over many draws of which."""
    larger = np.array([(len(i.first), int(i.first)) > (len(i.second), int(i.second)) for i in asked])
    truth, judged, people = (np.where(larger, v, 1.0 - v) for v in (lower_is_right(asked), ai > 0.5, ada))
    aim, rng = float(people.mean()), rng_for(0, "which are labelled")
    rows: dict[str, list[tuple[float, float, float]]] = {"people alone": [], "both, by PPI": []}
    for _ in range(DRAWS):
        order = rng.permutation(len(asked))
        known, rest = order[:count], order[count:]
        for name, weight in (("people alone", 0.0), ("both, by PPI", None)):
            found = rectified_mean(people[known], judged[known], judged[rest], weight=weight)
            rows[name].append((found.estimate, found.low, found.high))
    lines = [
        f"| the larger answer is right, by the truth | - | {truth.mean():.3f} |",
        f"| the same by all of ada's labels, which PPI aims at | - | {aim:.3f} |",
        f"| the same by the AI judge alone | - | {judged.mean():.3f} |",
    ]
    for name, drawn in rows.items():
        estimate, low, high = np.array(drawn).T
        error, held = float(np.sqrt(np.mean((estimate - aim) ** 2))), float(np.mean((low <= aim) & (aim <= high)))
        lines.append(
            f"| by {name}: {count} labels, {DRAWS} draws | - | {estimate.mean():.3f}, off by {error:.3f} (root mean "
            f"square), 95 % interval {np.mean(high - low):.3f} wide, holds it in {held:.3f} |"
        )
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if "--report" in sys.argv[1:]:
            queue = LabelQueue(Path(folder) / "labels.sqlite")
            queue.add(items())
            load([queue], LABELS, "jsonl")
        else:
            begun = time.perf_counter()
            queue = label(Path(folder))
            print(f"labelled in {time.perf_counter() - begun:.0f} s")
            LABELS.write_text(export([queue], "jsonl"))
        REPORT.write_text(report(queue))
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
