"""Which metrics the figures show, in which groups, and what each of them says."""

from __future__ import annotations

from rlaif_lab.plateau.detector import State
from rlaif_lab.report.curves import FigureGroup, Panel

SIGNED = (-1.0, 1.0)
UNBOUNDED = (-1e9, 1e9)
POSITIVE = (0.0, 1e9)

QUALITY = Panel(
    "quality/sampled",
    "True quality",
    "Mean gold quality of samples at temperature 1, on prompts that are fresh every round. Only an oracle judge knows "
    "it.",
)
PERCEIVED = Panel(
    "judge/win_rate_vs_round_0",
    "What the judge believes",
    "How often the training judge prefers the policy's answer to a round-0 answer; ties count one half.",
    0.5,
)

OVERVIEW = FigureGroup(
    "overview",
    "Does the loop improve, and where does it stop?",
    "Left the truth, right the judge's opinion. Where the right climbs while the left stands still, the judge is being "
    "pleased and nothing else.",
    (QUALITY, PERCEIVED),
)

PROGRESS = FigureGroup(
    "progress",
    "Progress in detail",
    "Gold throughout. The change is that of one round, measured on the same fresh prompts before and after it.",
    (
        Panel("quality/greedy", "True quality, greedy", "Mean gold quality of the most likely answer."),
        Panel(
            "quality/win_rate_vs_round_0",
            "True win rate against round 0",
            "How often the policy's answer has the higher gold quality; equal ones count one half.",
            0.5,
        ),
        Panel(
            "quality/change",
            "Change of one round",
            "True quality minus that of the round before, paired by prompt.",
            0.0,
            SIGNED,
        ),
        Panel(
            "quality/gold_nll",
            "Loss on the right answer",
            "Negative log-likelihood of the gold answer, in nats.",
            None,
            POSITIVE,
        ),
    ),
)

PROCESSES: tuple[tuple[State, str, str, str, str], ...] = (
    ("plateaued", "plateau", "plateau", "For a plateau", "Against: the loop still gains at least delta per round."),
    ("improving", "improving", "mirror", "For improving", "Against: the loop gains nothing."),
    ("degrading", "degrading", "mirror", "For degrading", "Against: the loop loses nothing."),
)
EVIDENCE = FigureGroup(
    "evidence",
    "The detector's evidence",
    "Each process bets, round by round, against one claim; above the dotted line the claim is rejected, an alarm is "
    "raised, and the process begins anew. One process over all seeds of an arm; the scale is logarithmic.",
    tuple(
        Panel(
            f"detector/{name}_evidence",
            title,
            caption,
            f"detector/{threshold}_threshold",
            POSITIVE,
            log=True,
            bands=False,
            pooled=state,
        )
        for state, name, threshold, title, caption in PROCESSES
    ),
)

GAP = FigureGroup(
    "gap",
    "Why does it stop?",
    "What choosing the judge's favourite of two samples would gain is D × I. The loop stops when samples agree "
    "(D to 0), when the judge cannot tell them apart (I to 0), or when training does not take up what the judge "
    "offers (eps as large as the gap).",
    (
        Panel("gap/diversity_D", "Diversity D", "Half the mean quality difference of two samples of a prompt.", 0.0),
        Panel(
            "gap/informativeness_I",
            "Judge informativeness I",
            "1 for a perfect judge, 0 at chance, below 0 for one that prefers the worse.",
            0.0,
            SIGNED,
        ),
        Panel(
            "gap/best_of_2",
            "Gap D × I",
            "Quality of the judge's pick of two samples, minus the mean quality.",
            0.0,
            SIGNED,
        ),
        Panel(
            "gap/update_loss_eps",
            "Update loss eps",
            "The gap minus the quality gained by the round's training. Below 0: training gained more than that.",
            0.0,
            (-2.0, 2.0),
        ),
    ),
)

JUDGE = FigureGroup(
    "judge",
    "How good is the judge?",
    "On the policy's own samples both the judge and the difficulty of its pairs change; on the frozen bank the pairs "
    "stay the same, so that a change there is the judge's own.",
    (
        Panel(
            "judge/accuracy",
            "Accuracy, policy's samples",
            "How often the judge picks the better of two samples whose gold quality differs. Chance is 0.5.",
            0.5,
        ),
        Panel("audit/accuracy_frozen", "Accuracy, frozen bank", "The same on pairs that never change.", 0.5),
        Panel(
            "audit/kappa_on_policy",
            "Agreement with gold (kappa)",
            "Cohen's kappa on the policy's samples: agreement beyond chance, 1 is perfect.",
            0.0,
            SIGNED,
        ),
        Panel(
            "audit/kappa_frozen",
            "Kappa, frozen bank",
            "The same on pairs that never change.",
            0.0,
            SIGNED,
        ),
        Panel(
            "audit/stability_frozen",
            "Same verdicts as in round 0",
            "Share of the frozen pairs on which the judge says what it said at first: its own drift, if it is trained.",
        ),
        Panel("judge/tie_rate", "Ties", "Share of comparisons that the judge calls equal."),
        Panel("judge/invalid_rate", "No verdict", "Share of comparisons in which the judge failed or was unreadable."),
        Panel(
            "judge/same_slot_rate",
            "Same slot in both orders",
            "Share of verdicts that follow the position and not the answer. 0 is no position bias.",
        ),
        Panel(
            "audit/ece_on_policy",
            "Calibration error (ECE)",
            "Mean distance between the probability it states and how often it is right.",
        ),
        Panel(
            "audit/brier_on_policy",
            "Brier score",
            "Mean squared error of its probabilities: 0 is perfect, 0.25 is knowing nothing.",
            0.25,
        ),
    ),
)

SELF_SCORE = FigureGroup(
    "self_score",
    "Is the judge being pleased?",
    "The judge's win rate against round 0 minus gold's: above 0 the judge sees progress that is not there. The "
    "held-out judge has no part in training; what it does not share with the training judge was learnt to please that "
    "one.",
    (
        Panel("judge/win_rate_minus_gold", "Training judge minus gold", "Self-score minus gold.", 0.0, SIGNED),
        Panel(
            "heldout_judge/win_rate_minus_gold", "Held-out judge minus gold", "The same for the held-out judge.", 0.0,
            SIGNED,
        ),
        Panel(
            "judge/self_preference",
            "Partiality for the policy",
            "How often the judge wrongly prefers the policy's answer to a better one of round 0, minus how often it is "
            "wrong the other way round.",
            0.0,
            SIGNED,
        ),
        Panel(
            "heldout_judge/win_rate_vs_round_0",
            "What the held-out judge believes",
            "Its win rate of the policy against round 0.",
            0.5,
        ),
    ),
)  # fmt: skip

BIAS = FigureGroup(
    "bias",
    "What sways the judge?",
    "Coefficients of a logistic regression of its verdicts, on the policy's samples: how much the slot, the quality, "
    "the length and its own authorship move them, in log-odds. An unbiased judge has quality only.",
    tuple(
        Panel(f"audit/b_{name}_on_policy", title, caption, 0.0, UNBOUNDED)
        for name, title, caption in (
            ("quality", "Quality", "Per unit of gold quality. Higher is better."),
            ("position", "Position", "Above 0: it leans to slot one."),
            ("length", "Length", "Above 0: it leans to the longer response."),
            ("self", "Own authorship", "Above 0: it leans to what the policy finds likely."),
        )
    ),
)

COVERAGE = FigureGroup(
    "coverage",
    "What is left to choose from?",
    "Reinforcement can raise the first sample's quality (k = 1) while it narrows what many samples reach (large k). "
    "Thin: round 0.",
    (
        Panel(
            "coverage/pass_at",
            "Coverage: pass@k",
            "Chance that the best of k samples is right. Thin: round 0; thick: the last round.",
            axis="k",
        ),
        Panel("text/unique_rate", "Unique answers", "Different answers among the k samples of a prompt, as a share."),
        Panel("entropy/per_sequence", "Entropy", "Of the policy per answer, in nats.", 0.0, POSITIVE),
        Panel("kl/per_sequence", "KL to round 0", "Over the full vocabulary, per answer, in nats.", 0.0, POSITIVE),
        Panel("text/mean_length", "Length", "Mean length of an answer, in tokens.", None, POSITIVE),
        Panel(
            "audit/length_amplification",
            "Length amplification",
            "The policy's drift in length over the judge's bias for length: what it makes of that bias.",
            0.0,
            UNBOUNDED,
        ),
    ),
)

OPTIMISATION = FigureGroup(
    "optimisation",
    "Proxy against gold over the distance travelled",
    "Both against the square root of the KL to round 0. Over-optimisation is the proxy (the judge) going on while gold "
    "turns down. Each point is a round.",
    (
        Panel(
            "judge/win_rate_vs_round_0",
            "Proxy: the judge's win rate",
            "Against round 0.",
            0.5,
            axis="sqrt_kl",
            bands=False,
        ),
        Panel(
            "quality/win_rate_vs_round_0", "Gold: true win rate", "Against round 0.", 0.5, axis="sqrt_kl", bands=False
        ),
        Panel("quality/sampled", "Gold: true quality", "Of samples.", axis="sqrt_kl", bands=False),
    ),
)

GROUPS = (OVERVIEW, GAP, PROGRESS, EVIDENCE, JUDGE, SELF_SCORE, BIAS, COVERAGE, OPTIMISATION)
FIGURES = (*(group.name for group in GROUPS), "cost")
"""Stems of the figures' files."""
