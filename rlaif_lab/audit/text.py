"""What the terminal and the page of an audit say alike."""

from __future__ import annotations

import math

from rlaif_lab.audit.audit import Audit
from rlaif_lab.audit.measures import AuditMeasure
from rlaif_lab.report.tables import NOT_AVAILABLE

COUNTS = ("verdicts", "tokens_total")
COSTS = ("tokens", "seconds", "usd")


def bank_line(audit: Audit) -> str:
    prompts = len(set(audit.judged.prompts))
    return f"{audit.bank}, {len(audit.pairs)} pairs of {prompts} prompts, each asked in both orders"


def number(m: AuditMeasure) -> str:
    """Return the value in few digits, or "n/a"."""
    if math.isnan(m.value):
        return NOT_AVAILABLE
    if m.key in COUNTS:
        return f"{m.value:.0f}"
    # `+ 0.0` turns -0.0 into 0.0; what rounds to it is replaced as text.
    return f"{m.value:.3g}" if m.key.startswith(COSTS) else f"{m.value + 0.0:.3f}".replace("-0.000", "0.000")
