"""The audit as per-round metrics: on a frozen bank, and on the round's own samples.

The frozen bank stays the same, so there a change is the judge's own drift; on-policy the pairs change as well. Whoever
reads only the second cannot tell a worse judge from harder pairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif_lab.audit.judged import Judged, on_bank, on_policy
from rlaif_lab.audit.measures import accuracy, bias, by_group, calibration, failures, length, position
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.metrics.position import stability
from rlaif_lab.records import Floats, Generation, Judgement

# For one order alone: per round they say no more than `accuracy`, and would be two more charts.
LEFT_OUT = ("accuracy_better_first", "accuracy_better_second")


def frozen_bank_metrics(
    judgements: Sequence[Judgement],
    bank: Sequence[LabelledPair],
    at_first: Floats | None = None,
    *,
    soft: bool = False,
) -> dict[str, float]:
    """Return ``audit/*_frozen``: every measure on the bank, and the accuracy in each of its subsets.

    judgements: of the bank's pairs, in their order. at_first: (N,) prob_first_wins of the same judge in round 0, nan
    for a failure; ``audit/stability_frozen`` is then the share of pairs on which it has not changed its verdict, which
    is the judge's own drift even where its accuracy stays the same.
    """
    judged = on_bank(bank, judgements)
    groups = by_group(judged, [pair.subset for pair in bank])
    # Subset names come from files; in a metric's name only letters, digits and underscores are allowed.
    by_subset = {f"audit/accuracy_frozen_{re.sub(r'[^0-9A-Za-z]+', '_', m.key)}": m.value for m in groups}
    drift = {} if at_first is None else {"audit/stability_frozen": stability([at_first, judged.prob_first_wins])}
    return metrics(judged, "frozen", soft) | by_subset | drift


def on_policy_metrics(
    judgements: Sequence[Judgement], generations: Sequence[Generation], qualities: Floats, *, soft: bool = False
) -> dict[str, float]:
    """Return ``audit/*_on_policy``, from what the round judged anyway. qualities: (N, k); nan throughout for a task
    without gold, and so is then what needs it."""
    return metrics(on_policy(judgements, generations, qualities), "on_policy", soft)


def metrics(judged: Judged, where: str, soft: bool = False) -> dict[str, float]:
    """Return ``audit/*`` of these verdicts. soft: the learner reads probabilities, so that the biases are fitted to
    them; by its ordering alone a lean of any size is a full vote."""
    sections = (
        accuracy(judged),
        # What chance alone would give takes longer than the rest together.
        calibration(judged, with_null=False),
        position(judged),
        length(judged),
        bias(judged, soft),
        failures(judged),
    )
    return {f"audit/{m.key}_{where}": m.value for s in sections for m in s.measures if m.key not in LEFT_OUT}
