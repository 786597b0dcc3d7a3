"""The summary of one run: its verdict, and the few numbers and tables that one looks at once it is over.

The tracker shows them (W&B: in the run's summary). They are nothing new: all of it follows from metrics.jsonl and the
round folders by the report's own functions. The report says more, since it has several seeds and hence intervals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif_lab.store.files import read_json_file
from rlaif_lab.store.rows import MetricRow
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS
from rlaif_lab.tasks.base import Task

QUALITY = "quality/sampled"
PASS_AT_K = re.compile(r"coverage/pass_at_(\d+)")
RESULTS = ("verdict", "plateau_round", "ceiling", "final_quality", "gain", "why", "outlook")
"""Every name that a result's ``values`` can have."""


@dataclass(frozen=True)
class ResultTable:
    """A table with a plot. x, y: columns to draw as a line; by: one line for each value of this column, or None."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[float]]
    x: str
    y: str
    by: str | None = None


@dataclass(frozen=True)
class RunResult:
    """values: of RESULTS, those that are defined. tables: name -> table, none of them empty."""

    values: Mapping[str, float | str] = field(default_factory=dict)
    tables: Mapping[str, ResultTable] = field(default_factory=dict)


def run_result(directory: Path, task: Task) -> RunResult:
    """Summarise the run in ``directory``, which has logged its last round."""
    store = RoundStore(directory)
    rows = store.rows()
    config = read_json_file(directory / "config.json")
    # From the same rows and stages as the report: nothing is measured again here.
    tables = {"pass_at_k": pass_at_k(rows), "reliability": reliability(store, task, [row["round"] for row in rows])}
    return RunResult(
        result_values(config, rows, directory), {name: table for name, table in tables.items() if table.rows}
    )


def result_values(
    config: Mapping[str, Any], rows: Sequence[MetricRow], directory: Path | None = None
) -> dict[str, float | str]:
    """Return what the run came to.

    verdict: the trend's (plateau/trend.py): improving, plateaued at round r, degrading or undecided; with
    ", hacked" where the judge's win rate has risen while quality fell. plateau_round:
    that r. ceiling: Q_inf, where identified. final_quality: true quality in the last round; gain: minus round 0's.
    why: a sentence, from the stored rounds in ``directory`` if it is given. outlook: what would decide an undecided
    run, and what more rounds would bring.
    """
    from rlaif_lab.report.verdicts import run_verdict

    said = run_verdict(config, rows, directory)
    # A run that logged no quality has nan, which is left out below.
    quality = [math.nan if row.get(QUALITY) is None else float(row[QUALITY]) for row in rows] or [math.nan]
    plateau = said.round if said.state == "plateaued" else None
    found: dict[str, float | str | None] = {
        "verdict": (said.state if plateau is None else f"plateaued at round {plateau}")
        + (", hacked" if said.hacked else ""),
        "plateau_round": plateau,
        "ceiling": said.saturation.ceiling.mean if said.saturation.identified else None,
        "final_quality": quality[-1],
        "gain": quality[-1] - quality[0],
        "why": said.why,
        "outlook": said.outlook,
    }
    # JSON and W&B's summary have no nan.
    return {k: v for k, v in found.items() if v is not None and not (isinstance(v, float) and math.isnan(v))}


def pass_at_k(rows: Sequence[MetricRow]) -> ResultTable:
    """Tabulate coverage before the first and after the last round. Where the curves meet at some k, training has made
    likelier what the policy could do already, and no more."""
    found: list[list[float]] = []
    # A single row is both the first and the last.
    for row in rows if len(rows) < 2 else (rows[0], rows[-1]):
        names = {int(name[1]): name[0] for name in map(PASS_AT_K.fullmatch, row) if name}
        found += [[row["round"], k, row[names[k]]] for k in sorted(names) if row[names[k]] is not None]
    return ResultTable(
        "pass@k, first and last round", ("round", "k", "pass_at_k"), found, x="k", y="pass_at_k", by="round"
    )


def reliability(store: RoundStore, task: Task, rounds: Sequence[int]) -> ResultTable:
    """Return the judge's reliability on the samples of the last round that was judged: what it said, and how often that
    was so. Empty without gold, or where nothing was judged."""
    from rlaif_lab.audit.judged import on_policy
    from rlaif_lab.audit.measures import reliability
    from rlaif_lab.metrics.quality import gold_qualities

    columns = ("stated_probability", "share_right", "comparisons")
    found: list[list[float]] = []
    # Backwards: the last round was evaluated, not judged.
    for index in reversed(rounds if task.has_gold else []):
        if judgements := store.read_stage(index, JUDGEMENTS):
            generations = store.read_stage(index, GENERATIONS)
            judged = on_policy(judgements, generations, gold_qualities(task, generations))
            found = [[b.probability, b.frequency, b.count] for b in reliability(judged)]
            break
    return ResultTable("Does the judge's probability mean what it says?", columns, found, columns[0], columns[1])
