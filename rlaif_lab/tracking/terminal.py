"""What a run shows in the terminal: what it is, what the columns mean, a line per round, and what it came to."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif_lab.metrics.catalogue import row_of
from rlaif_lab.progress import Terminal, emit
from rlaif_lab.store.outcome import shown_path


@dataclass(frozen=True)
class Column:
    """One number of a round's line."""

    title: str
    metric: str
    form: str
    width: int


WITH_GOLD = (
    Column("round", "round", "{:.0f}", 5),
    Column("sampled", "quality/sampled", "{:.3f}", 7),
    Column("greedy", "quality/greedy", "{:.3f}", 7),
    Column("win/r0", "judge/win_rate_vs_round_0", "{:.3f}", 7),
    Column("judge acc", "judge/accuracy", "{:.3f}", 9),
    Column("D", "gap/diversity_D", "{:.3f}", 6),
    Column("I", "gap/informativeness_I", "{:.3f}", 6),
    Column("eps", "gap/update_loss_eps", "{:.3f}", 7),
    Column("KL", "kl/per_sequence", "{:.2f}", 6),
    Column("examples", "pairs/examples", "{:.0f}", 8),
    Column("seconds", "time/round_s", "{:.1f}", 7),
)
WITHOUT_GOLD = (
    Column("round", "round", "{:.0f}", 5),
    Column("win/r0", "judge/win_rate_vs_round_0", "{:.3f}", 7),
    Column("held out", "heldout_judge/win_rate_vs_round_0", "{:.3f}", 8),
    Column("ties", "judge/tie_rate", "{:.3f}", 6),
    Column("invalid", "judge/invalid_rate", "{:.3f}", 7),
    Column("KL", "kl/per_sequence", "{:.2f}", 6),
    Column("entropy", "entropy/per_sequence", "{:.2f}", 7),
    Column("tokens", "text/mean_length", "{:.1f}", 6),
    Column("cut off", "text/unfinished_rate", "{:.3f}", 7),
    Column("examples", "pairs/examples", "{:.0f}", 8),
    Column("seconds", "time/round_s", "{:.1f}", 7),
)
"""Without gold nobody knows true quality: what can be known instead."""
RUN_WIDTH = 24
NO_VERDICT_WITHOUT_GOLD = (
    "This task has no gold. To ask whether the loop still improves, give it a judge that has no part in training: "
    "judge@heldout_judge=... detector.measure=heldout_judge"
)


def columns(row: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the columns that a run with such rows can fill."""
    return WITH_GOLD if row.get("quality/sampled") is not None else WITHOUT_GOLD


def introduce(run: str, parts: Mapping[str, str], folder: object) -> None:
    """Say what is about to be trained, by whom it is judged and where it is kept."""
    if Terminal.sweep:
        emit(f"{run}: " + "; ".join(f"{name} {what}" for name, what in parts.items()))
    else:
        emit("\n".join([*(f"{name + ':':9}{what}" for name, what in parts.items()), f"{'folder:':9}{folder}"]))


def legend(shown: tuple[Column, ...]) -> str:
    """Return what the columns mean, in the words of the catalogue of metrics."""
    said = [
        f"{column.title}: {row_of(column.metric).caption(column.metric)}"
        for column in shown
        if column.metric != "round"
    ]
    return "\n".join(textwrap.fill(text, 116, initial_indent="  ", subsequent_indent="    ") for text in said)


def print_row(row: Mapping[str, Any], run: str, header: bool) -> None:
    """Print one line for a round of ``run`` (several print at once in a sweep), after the columns' names and meanings
    if ``header``. ``-`` where a metric is missing."""
    shown, lines = columns(row), []
    # Once per process, even where it runs several jobs of a sweep.
    if header and not Terminal.named:
        Terminal.named = True
        lines.append(legend(shown))
        lines.append("  ".join(["run".ljust(RUN_WIDTH), *(column.title.rjust(column.width) for column in shown)]))
    cells = ((row.get(column.metric), column) for column in shown)
    values = (("-" if v is None else column.form.format(v)).rjust(column.width) for v, column in cells)
    lines.append("  ".join([run.ljust(RUN_WIDTH), *values]))
    emit("\n".join(lines))  # at once, lest another run's line come between


def close(run: str, values: Mapping[str, Any], folder: Path) -> None:
    """Say what a run came to: verdict, where the policy is, and what to type next. values: as in finished.json."""
    verdict = str(values.get("verdict", "undecided"))
    quality = (
        f", true quality {values['final_quality']:.3f} ({values['gain']:+.3f} since round 0)"
        if "final_quality" in values and "gain" in values
        else ""
    )
    if Terminal.sweep:
        emit(f"{run}: {verdict}{quality}")
        return
    place = shown_path(folder)
    because = f"\n{'why:':9}{values['why']}" if values.get("why") else ""
    outlook = f"\n{'outlook:':9}{values['outlook']}" if values.get("outlook") else ""
    emit(
        f"{'verdict:':9}{verdict}{quality}{because}{outlook}\n"
        f"{'policy:':9}{place}/policy (to train it further: policy=hf policy.path={place}/policy)\n"
        f"{'report:':9}rlaif-report {shlex.quote(place)}"
    )
