"""One row per arm with final values and intervals; table.csv and curves.csv, and the table in the terminal."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif_lab.progress import printable
from rlaif_lab.report.arms import Arm, Study, baseline_for
from rlaif_lab.report.load import Run
from rlaif_lab.report.verdicts import ArmVerdict
from rlaif_lab.statistics.intervals import Interval, paired_difference, t_interval
from rlaif_lab.store.spreadsheets import FORMULA

NOT_AVAILABLE = "n/a"
UNDEFINED = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds with its t interval."""

    interval: Interval
    n: int


@dataclass(frozen=True)
class ArmSummary:
    """What one arm came to, over its complete runs; seeds whose value is undefined are left out of that value.

    difference: final sampled quality minus the baseline's, over the seeds both have; None for the baseline itself
    and where there is none. judge_accuracy: in the last round that was judged. seconds: wall time of all rounds.
    """

    label: str
    seeds: int
    rounds: int
    initial_sampled: Estimate
    initial_greedy: Estimate
    final_sampled: Estimate
    final_greedy: Estimate
    gain_sampled: Estimate
    gain_greedy: Estimate
    difference: Estimate | None
    judge_accuracy: Estimate
    kl: Estimate
    seconds: Estimate


def summaries(study: Study, baseline: str) -> list[ArmSummary]:
    """Return one per arm, the best final sampled quality first, arms without a complete run last."""
    rows = [summary(arm, baseline_for(arm, study.arms, baseline)) for arm in study.arms]
    return sorted(rows, key=lambda row: (-_or(row.final_sampled.interval.mean, -math.inf), row.label))


def summary(arm: Arm, baseline: Arm | None) -> ArmSummary:
    def at(metric: str, which: Callable[[Run], int]) -> Estimate:
        return estimate(_values(arm, metric, which).values())

    def gain(metric: str) -> Estimate:
        return estimate(paired_difference(_values(arm, metric, last), _values(arm, metric, first)))

    sampled, greedy = "quality/sampled", "quality/greedy"
    difference = None
    if baseline is not None:
        difference = estimate(paired_difference(_values(arm, sampled, last), _values(baseline, sampled, last)))
    # The judge was asked last one round before the end: the last round is evaluated only.
    return ArmSummary(
        label=arm.label,
        seeds=len(arm.complete),
        rounds=arm.runs[0].rounds,
        initial_sampled=at(sampled, first),
        initial_greedy=at(greedy, first),
        final_sampled=at(sampled, last),
        final_greedy=at(greedy, last),
        gain_sampled=gain(sampled),
        gain_greedy=gain(greedy),
        difference=difference,
        judge_accuracy=at("judge/accuracy", lambda run: max(0, run.last_round - 1)),
        kl=at("kl/per_sequence", last),
        seconds=estimate(_seconds(run) for run in arm.complete),
    )


def first(run: Run) -> int:
    """Return the round before any training."""
    return 0


def last(run: Run) -> int:
    """Return the round after all training: evaluated, not judged."""
    return run.last_round


def estimate(values: Iterable[float]) -> Estimate:
    """Estimate over the values that are defined."""
    defined = [value for value in values if math.isfinite(value)]
    return Estimate(t_interval(defined), len(defined))


def _values(arm: Arm, metric: str, which: Callable[[Run], int]) -> dict[int, float]:
    """Return seed -> value, of complete runs."""
    return {run.seed: run.value(metric, which(run)) for run in arm.complete}


def _seconds(run: Run) -> float:
    times = [row["time/round_s"] for row in run.rows.values() if "time/round_s" in row]
    return math.fsum(times) if times else math.nan


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


# --- as text ----------------------------------------------------------------------------------------------------------
def limits_text(given: Estimate, form: str) -> str:
    """Return ``[low, high]``, or why there is no interval."""
    if given.n < 2:
        return f"{NOT_AVAILABLE} (1 seed)" if given.n else NOT_AVAILABLE
    return f"[{given.interval.low:{form}}, {given.interval.high:{form}}]"


def _cell(given: Estimate | None, form: str) -> str:
    if given is None or given.n == 0:
        return "-"
    # t intervals are symmetric.
    low, mean, half = given.interval.low, given.interval.mean, given.interval.mean - given.interval.low
    return f"{mean:{form}}" if math.isnan(low) else f"{mean:{form}} ± {half:{form.lstrip('+')}}"


def terminal_table(rows: Sequence[ArmSummary], verdicts: Sequence[ArmVerdict], baseline: str) -> str:
    """Return a few columns of the table; ± is half the width of the 95% t interval over seeds."""
    said = {verdict.label: verdict for verdict in verdicts}
    titles = [
        "arm",
        "seeds",
        "rounds",
        "sampled 0",
        "final sampled",
        "gain",
        "final greedy",
        f"vs {baseline}",
        "judge acc",
        "verdict",
    ]
    lines = [titles]
    for row in rows:
        cells = [
            row.label,
            str(row.seeds),
            str(row.rounds),
            _point(row.initial_sampled),
            _cell(row.final_sampled, ".3f"),
        ]
        cells += [_cell(row.gain_sampled, "+.3f"), _cell(row.final_greedy, ".3f"), _cell(row.difference, "+.3f")]
        lines.append([*cells, _point(row.judge_accuracy), said[row.label].short])
    if all(row.difference is None for row in rows):
        lines = [[*line[:7], *line[8:]] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def padded(line: Sequence[str]) -> str:
        middle = (cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True))
        return "  ".join([line[0].ljust(widths[0]), *middle, line[-1]])

    return "\n".join(padded(line) for line in lines)


def terminal_reasons(rows: Sequence[ArmSummary], verdicts: Sequence[ArmVerdict]) -> str:
    """Return for each arm, in the order of the table, what is said of it, why, and what is still to come: three
    lines."""
    said = {verdict.label: verdict for verdict in verdicts}
    lines = []
    for verdict in (said[row.label] for row in rows):
        lines.append(f"{verdict.label}: {verdict.headline}")
        lines += [f"  why: {verdict.why}", f"  {verdict.outlook}"]
    return "\n".join(lines)


def _point(given: Estimate) -> str:
    return f"{given.interval.mean:.3f}" if given.n else "-"


# --- CSV ----------------------------------------------------------------------------------------------------------
def write_table(path: Path, rows: Sequence[ArmSummary], verdicts: Sequence[ArmVerdict], baseline: str) -> None:
    """Write table.csv: per arm, each quantity's mean, ``_low``, ``_high`` and ``_n`` (seeds in it); empty where
    undefined."""
    said = {verdict.label: verdict for verdict in verdicts}
    records = []
    for row in rows:
        verdict = said[row.label]
        record: dict[str, object] = {"arm": row.label, "seeds": row.seeds, "rounds": row.rounds}
        record |= {"verdict": verdict.state, "verdict_round": "" if verdict.round is None else verdict.round}
        record["cause"] = verdict.cause
        for name, given in quantities(row, verdict, baseline).items():
            interval, n = (given.interval, given.n) if given else (UNDEFINED, 0)
            record |= interval_columns(name, interval)
            record[f"{name}_n"] = n
        records.append(record)
    write_records(path, records)


def quantities(row: ArmSummary, verdict: ArmVerdict, baseline: str) -> Mapping[str, Estimate | None]:
    """Return column of table.csv -> estimate."""
    fitted, pgr = verdict.saturation, verdict.pgr
    n = fitted.seeds if fitted.identified else 0
    return {
        "quality_sampled_round_0": row.initial_sampled,
        "quality_greedy_round_0": row.initial_greedy,
        "quality_sampled_final": row.final_sampled,
        "quality_greedy_final": row.final_greedy,
        "quality_sampled_gain": row.gain_sampled,
        "quality_greedy_gain": row.gain_greedy,
        f"quality_sampled_minus_{baseline}": row.difference,
        "judge_accuracy_final": row.judge_accuracy,
        "kl_per_sequence_final": row.kl,
        "wall_seconds": row.seconds,
        "ceiling": Estimate(fitted.ceiling, n),
        "remaining_gain": Estimate(fitted.remaining, n),
        "pgr": None if pgr is None or pgr.reason else Estimate(pgr.interval, pgr.seeds),
    }


def write_curves(path: Path, study: Study) -> None:
    """Write curves.csv: every logged metric of every run in every round, the incomplete runs' too; empty where
    undefined."""
    metrics = sorted({metric for run in study.runs for row in run.rows.values() for metric in row})
    records = []
    for arm in study.arms:
        for run in arm.runs:
            for index in sorted(run.rows):
                record: dict[str, object] = {"arm": arm.label, "seed": run.seed, "round": index}
                record |= {"run": run.name, "complete": int(run.complete)}
                records.append(record | {metric: blank(run.value(metric, index)) for metric in metrics})
    write_records(path, records)


def write_records(path: Path, records: Sequence[dict[str, object]]) -> None:
    """Write one line per record, all with the keys of the first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows({key: inert(value) for key, value in record.items()} for record in records)


def inert(value: object) -> object:
    """Return what stands in a CSV cell: a text that a spreadsheet would run as a formula gets an apostrophe before it,
    and what would steer a terminal is replaced."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def interval_columns(name: str, interval: Interval) -> dict[str, object]:
    """Return ``name``, ``name_low``, ``name_high``."""
    return {name + suffix: blank(value) for suffix, value in zip(("", "_low", "_high"), interval, strict=True)}


def blank(value: float) -> float | str:
    """Return a value as it stands in a CSV file: nothing where undefined."""
    return value if math.isfinite(value) else ""
