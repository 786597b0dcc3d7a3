"""An audit as text for the terminal, as JSON, and its verdicts as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_lab.audit.audit import Audit
from rlaif_lab.audit.measures import AuditMeasure
from rlaif_lab.audit.text import bank_line, number
from rlaif_lab.metrics.agreement import picks_right


def terminal(audit: Audit) -> str:
    """Return a table: value, 95% interval and n of every measure; what it says is on the page."""
    lines = [f"judge: {audit.judge}", f"bank:  {bank_line(audit)}"]
    groups = [(section.title, section.measures) for section in audit.sections]
    if audit.subsets:
        # After accuracy, which they are parts of.
        groups.insert(1, ("Accuracy by subset", tuple(audit.subsets)))
    width = max(len(m.title) for _, rows in groups for m in rows)
    for title, rows in groups:
        lines += ["", title]
        lines += [_row(m, width) for m in rows]
    for status, raws in audit.examples.items():
        lines += ["", f"Some {status} verdicts, verbatim:"]
        lines += [f"  {_one_line(raw, 160)}" for raw in raws]
    return "\n".join(lines)


def _row(m: AuditMeasure, width: int) -> str:
    cells = [f"  {m.title:<{width}}  {number(m):>9}"]
    if not math.isnan(m.low):
        cells.append(f"[{m.low:.3f}, {m.high:.3f}]")
    if math.isnan(m.value) and m.missing:
        cells.append(f"({_one_line(m.missing, 90)})")
    elif m.n is not None:
        cells.append(f"n={m.n}")
    return "  ".join(cells)


def _one_line(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# --- JSON -----------------------------------------------------------------------------------------------------------
def as_json(audit: Audit, config: Mapping[str, Any]) -> str:
    """Return audit.json. Undefined numbers are null. config: what was run, with versions and commit."""
    content = {
        "name": audit.name,
        "judge": audit.judge,
        "bank": {"name": audit.bank, "pairs": len(audit.pairs), "prompts": len(set(audit.judged.prompts))},
        "sections": {s.key: {m.key: _entry(m) for m in s.measures} for s in audit.sections},
        "subsets": {m.key: _entry(m) for m in audit.subsets},
        "reliability": [dataclasses.asdict(b) for b in audit.reliability],
        "slots": dataclasses.asdict(audit.slots),
        "failure_examples": audit.examples,
        "config": config,
    }
    # Undefined numbers are null: readers in other languages would refuse nan.
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def _entry(m: AuditMeasure) -> dict[str, Any]:
    interval = None if math.isnan(m.low) else [m.low, m.high]
    note = m.missing if math.isnan(m.value) and m.missing else m.note
    return {"value": _null(m.value), "interval": interval, "n": m.n, "title": m.title, "note": note}


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- CSV ------------------------------------------------------------------------------------------------------------
def as_csv(audit: Audit) -> str:
    """Return verdicts.csv: a line per pair. right: 1, 0, 0.5 for the judge's tie; empty without verdict or without
    gold."""
    right = picks_right(audit.judged.prob_first_wins, audit.judged.gold_difference).tolist()
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for pair, judgement, is_right in zip(audit.pairs, audit.judgements, right, strict=True):
        row: dict[str, Any] = {
            "source": pair.source,
            "subset": pair.subset,
            "prompt": pair.comparison.prompt.text,
            "first": pair.comparison.first,
            "second": pair.comparison.second,
            "author_first": pair.author_first,
            "author_second": pair.author_second,
            "prob_first_is_better": pair.prob_first_is_better,
            "prob_first_wins": judgement.prob_first_wins,
            "prob_first_wins_shown_first": judgement.prob_first_wins_shown_first,
            "prob_first_wins_shown_second": judgement.prob_first_wins_shown_second,
            "status": judgement.status,
            "right": _null(is_right),
            "latency_s": judgement.latency_s,
            "tokens": judgement.tokens,
            "cost_usd": judgement.cost_usd,
            "raw": judgement.raw,
        }
        if writer is None:
            writer = csv.DictWriter(buffer, list(row))
            writer.writeheader()
        writer.writerow(row)
    return buffer.getvalue()


def write_all(audit: Audit, config: Mapping[str, Any], directory: Path) -> None:
    """Write audit.json, verdicts.csv and audit.html; DiskError where they cannot be written."""
    from rlaif_lab.audit.page import page
    from rlaif_lab.store.files import write_atomically

    for name, content in (
        ("audit.json", as_json(audit, config)),
        ("verdicts.csv", as_csv(audit)),
        ("audit.html", page(audit, config)),
    ):
        # "replace": a judge's words may hold lone surrogates.
        write_atomically(directory / name, content.encode("utf-8", errors="replace"))
