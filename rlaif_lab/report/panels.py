"""Which metrics the figures show, and in which groups. What a metric is called and means stands in the catalogue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlaif_lab.metrics.catalogue import row_of
from rlaif_lab.plateau.detector import State
from rlaif_lab.report.curves import ChartPanel, FigureGroup

FAR = 1e9
"""Stands for infinity in a panel's bounds."""


def charted(metric: str, **settings: Any) -> ChartPanel:
    """Return a metric's panel with the title, caption, baseline and range of its row; ``settings`` override them."""
    row = row_of(metric)
    panel = ChartPanel(
        metric=metric,
        title=row.title,
        caption=row.caption(metric),
        reference=row.baseline,
        bounds=(max(row.low, -FAR), min(row.high, FAR)),
    )
    return replace(panel, **settings)


OVERVIEW = FigureGroup(
    "overview",
    "Does the loop improve, and where does it stop?",
    "Left the truth, right the judge's opinion. Where the right climbs while the left stands still, the judge is being "
    "pleased and nothing else.",
    (charted("quality/sampled"), charted("judge/win_rate_vs_round_0")),
)

PROGRESS = FigureGroup(
    "progress",
    "Progress in detail",
    "Gold throughout. The change is that of one round, measured on the same fresh prompts before and after it.",
    (
        charted("quality/greedy"),
        charted("quality/win_rate_vs_round_0"),
        charted("quality/change"),
        charted("quality/gold_nll"),
    ),
)

PROCESSES: tuple[tuple[State, str], ...] = (
    ("plateaued", "plateau"),
    ("improving", "improving"),
    ("degrading", "degrading"),
)
EVIDENCE = FigureGroup(
    "evidence",
    "The detector's evidence on single rounds",
    "Each process bets, round by round, against one claim; above the dotted line the claim is rejected, an alarm is "
    "raised, and the process begins anew. One process over all seeds of an arm; the scale is logarithmic.",
    tuple(charted(f"detector/{name}_evidence", log=True, bands=False, pooled=state) for state, name in PROCESSES),
)

GAP = FigureGroup(
    "gap",
    "What could a round gain, and what does it take up?",
    "What choosing the judge's favourite of two samples would gain is D × I; eps is the part that training does not "
    "take up. Averages over all pairs do not say why a loop stops: that is told prompt by prompt, under what is left.",
    (
        charted("gap/diversity_D"),
        charted("gap/informativeness_I"),
        charted("gap/best_of_2"),
        charted("gap/update_loss_eps"),
    ),
)

JUDGE = FigureGroup(
    "judge",
    "How good is the judge?",
    "On the policy's own samples both the judge and the difficulty of its pairs change; on the frozen bank the pairs "
    "stay the same, so that a change there is the judge's own.",
    (
        charted("judge/accuracy"),
        charted("audit/accuracy_frozen"),
        charted("audit/kappa_on_policy"),
        charted("audit/kappa_frozen", title="Kappa, frozen bank"),
        charted("audit/stability_frozen"),
        charted("judge/tie_rate"),
        charted("judge/invalid_rate"),
        charted("judge/same_slot_rate"),
        charted("audit/ece_on_policy"),
        charted("audit/brier_on_policy"),
    ),
)

SELF_SCORE = FigureGroup(
    "self_score",
    "Is the judge being pleased?",
    "The judge's win rate against round 0 minus gold's: above 0 the judge sees progress that is not there. The "
    "held-out judge has no part in training; what it does not share with the training judge was learnt to please that "
    "one.",
    (
        charted("judge/win_rate_minus_gold", title="Training judge minus gold"),
        charted("heldout_judge/win_rate_minus_gold", title="Held-out judge minus gold"),
        charted("judge/self_preference"),
        charted("heldout_judge/win_rate_vs_round_0", title="What the held-out judge believes"),
    ),
)

BIAS = FigureGroup(
    "bias",
    "What sways the judge?",
    "Coefficients of a logistic regression of its verdicts, on the policy's samples: how much the slot, the quality, "
    "the length and its own authorship move them, in log-odds. An unbiased judge has quality only.",
    tuple(charted(f"audit/b_{name}_on_policy") for name in ("quality", "position", "length", "self")),
)

COVERAGE = FigureGroup(
    "coverage",
    "What is left to choose from?",
    "Reinforcement can raise the first sample's quality (k = 1) while it narrows what many samples reach (large k). "
    "Thin: round 0.",
    (
        ChartPanel(
            "coverage/pass_at",
            "Coverage: pass@k",
            "Chance that the best of k samples is right. Thin: round 0; thick: the last round. Judged by: gold.",
            axis="k",
        ),
        charted("text/unique_rate"),
        charted("entropy/per_sequence"),
        charted("kl/per_sequence"),
        charted("text/mean_length"),
        charted("audit/length_amplification"),
    ),
)

OPTIMISATION = FigureGroup(
    "optimisation",
    "Proxy against gold over the distance travelled",
    "Both against the square root of the KL to round 0. Over-optimisation is the proxy (the judge) going on while gold "
    "turns down. Each point is a round.",
    (
        charted("judge/win_rate_vs_round_0", title="Proxy: the judge's win rate", axis="sqrt_kl", bands=False),
        charted("quality/win_rate_vs_round_0", title="Gold: true win rate", axis="sqrt_kl", bands=False),
        charted("quality/sampled", title="Gold: true quality", axis="sqrt_kl", bands=False),
    ),
)

GROUPS = (OVERVIEW, GAP, PROGRESS, EVIDENCE, JUDGE, SELF_SCORE, BIAS, COVERAGE, OPTIMISATION)
FIGURES = (*(group.name for group in GROUPS), "cost")
"""Stems of the figures' files."""
