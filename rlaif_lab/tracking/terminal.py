"""What a run shows in the terminal: what it is, and a line per round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlaif_lab.progress import Terminal

if TYPE_CHECKING:
    pass


COLUMNS = (
    ("round", "round", "{:.0f}", 5),
    ("sampled", "quality/sampled", "{:.3f}", 7),
    ("greedy", "quality/greedy", "{:.3f}", 7),
    ("win/r0", "judge/win_rate_vs_round_0", "{:.3f}", 7),
    ("judge acc", "judge/accuracy", "{:.3f}", 9),
    ("D", "gap/diversity_D", "{:.3f}", 6),
    ("I", "gap/informativeness_I", "{:.3f}", 6),
    ("eps", "gap/update_loss_eps", "{:.3f}", 7),
    ("KL", "kl/per_sequence", "{:.2f}", 6),
    ("examples", "pairs/examples", "{:.0f}", 8),
    ("seconds", "time/round_s", "{:.1f}", 7),
)


RUN_WIDTH = 24


def introduce(run: str, parts: dict[str, str], folder: object) -> None:
    """What is about to be trained, by whom it is judged and where it is kept."""
    if Terminal.sweep:
        print(f"{run}: " + "; ".join(f"{name} {what}" for name, what in parts.items()), flush=True)
    else:
        print("\n".join([*(f"{name + ':':8}{what}" for name, what in parts.items()), str(folder)]), flush=True)


def print_row(row: dict[str, Any], run: str, header: bool) -> None:
    """One line for a round of ``run`` (several print at once in a sweep), after the column names if ``header``.
    ``-`` where a metric is missing."""
    lines = []
    if header and not Terminal.named:
        lines.append("  ".join(["run".ljust(RUN_WIDTH), *(title.rjust(width) for title, _, _, width in COLUMNS)]))
    cells = ((row.get(key), form, width) for _, key, form, width in COLUMNS)
    values = (("-" if v is None else form.format(v)).rjust(width) for v, form, width in cells)
    lines.append("  ".join([run.ljust(RUN_WIDTH), *values]))
    print("\n".join(lines), flush=True)  # at once, lest another run's line come between
