"""What people say of a policy on the fixed set that all arms of a sweep share (people/human_set.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rlaif_lab import ranks
from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.by_people import decided, dollars, labelled, minutes, rate_by_people, said_of
from rlaif_lab.people.agreement import agreement, noise
from rlaif_lab.people.human_set import Entry, SharedSet
from rlaif_lab.records import Comparison, Floats, Generation, Metrics, Position, Prompt, Verdict
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.seeding import seed_for
from rlaif_lab.statistics.intervals import wilson
from rlaif_lab.store.tables import HUMAN_SET

if TYPE_CHECKING:
    from rlaif_lab.loop.plan import Parts, Plan, Services
    from rlaif_lab.models.language_model import LanguageModel

NAME = "human_set"
"""Of the file that keeps a round's result."""
Orders = Sequence[tuple[Verdict, Verdict]]


def by_people(index: int, parts: Parts, plan: Plan, *, services: Services, last: bool) -> Metrics:
    """Return what people say of the policy of round ``index``; nothing where they are not asked in this round.

    Raises:
        LabelsMissingError: if labels are missing and the run is not to wait for them.
    """
    shared = parts.human_set
    if shared is None:
        return {}
    held = ranks.on_first(lambda: services.store.read_json(index, NAME))
    if held is not None:
        return held
    if not last and not shared.settings.is_due(index):
        return {}
    entries = the_set(shared, parts, plan)
    prompts = [entry.prompt for entry in entries]

    def compute(some: Sequence[Prompt]) -> list[Generation]:
        return answers(parts.policy, some, parts, plan, what="answers")

    sampled = services.stages.run(Position(index), HUMAN_SET, prompts, compute=compute, name="human set").records
    texts = [generation.responses[0].text for generation in sampled]
    return services.store.compute_once(index, NAME, lambda: measure(shared, entries, texts, parts))


def the_set(shared: SharedSet, parts: Parts, plan: Plan) -> list[Entry]:
    """Return the frozen set, drawn now if this run is the first to need it."""
    held = ranks.on_first(shared.frozen)
    if held is not None:
        return held
    settings = shared.settings
    prompts = parts.task.prompts("evaluation", 0, settings.prompts, seed_for(settings.seed, "human set") % 2**32)
    reference, other = (
        ranks.shared_out(asked, lambda some, what=what: answers(parts.base, some, parts, plan, what=what))  # type: ignore[misc]
        for asked, what in ((prompts, "answers"), (prompts[: settings.pairs], "others"))
    )
    texts = [generation.responses[0].text for generation in reference]
    others = [generation.responses[0].text for generation in other]
    drawn = [
        Entry(prompt, text, others[i] if i < len(others) else None)
        for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]

    def freeze() -> list[Entry]:
        shared.freeze(drawn)
        found = shared.frozen()
        assert found is not None
        return found

    return ranks.on_first(freeze)


def answers(
    model: LanguageModel, prompts: Sequence[Prompt], parts: Parts, plan: Plan, *, what: str
) -> list[Generation]:
    """Sample one answer to each prompt. The same draws serve every policy, so that where two agree their answers do,
    and one label says it of both."""
    one = SamplingConfig(k=1, batch_size=plan.sampling.batch_size)
    assert parts.human_set is not None
    identity = (parts.human_set.settings.seed, "human set", what)
    return parts.engine.generate(model, prompts, one, parts.task.max_response_tokens, identity)


def measure(shared: SharedSet, entries: Sequence[Entry], texts: Sequence[str], parts: Parts) -> Metrics:
    """Ask people, then the training's judge, about the policy's answers and the fixed pairs.

    Returns:
        ``human_set/*`` and its cost. What this run shares with others counts in each of them.
    """
    by = shared.settings.by
    compared = [Comparison(e.prompt, text, e.reference) for e, text in zip(entries, texts, strict=True)]
    different = [c for c in compared if c.first != c.second]
    pairs = [entry.pair for entry in entries if entry.pair is not None]
    said = both_orders(by, [*different, *pairs])
    judged = both_orders(parts.judge.evaluator(), [*different, *pairs])
    of_policy, of_pairs = slice(None, len(different)), slice(len(different), None)
    identical = len(compared) - len(different)
    rate = rate_by_people(said[of_policy], identical)
    counted = said_of(first.details or {} for first, _ in said)
    return {
        "human_set/win_rate": rate.estimate,
        "human_set/win_rate_stderr": rate.stderr,
        "human_set/win_rate_low": rate.low,
        "human_set/win_rate_high": rate.high,
        "human_set/identical": identical / len(compared),
        "human_set/judge_minus_people": judge_minus_people(said[of_policy], judged[of_policy], identical),
        **judge_agreement(said[of_pairs], judged[of_pairs]),
        "human_set/alpha": agreement(counted).alpha,
        "human_set/error": noise(counted),
        "cost/human_set_labels": float(labelled(said)),
        "cost/human_set_minutes": minutes(said),
        "cost/human_set_usd": dollars(said),
    }


def judge_minus_people(said: Orders, judged: Orders, identical: int) -> float:
    """Return the judge's win rate minus people's, over the comparisons that both decided and those of equal texts."""
    difference = decided(judged) - decided(said)
    known = difference[~np.isnan(difference)]
    count = len(known) + identical
    return float(known.sum() / count) if len(known) or (identical and not len(said)) else math.nan


def judge_agreement(said: Orders, judged: Orders) -> Metrics:
    """Return how often the judge prefers what people prefer, on the fixed pairs on which both prefer one, with
    Wilson's 95 % interval."""
    people, judge = decided(said), decided(judged)
    clear = ~np.isnan(people) & ~np.isnan(judge) & (people != 0.5) & (judge != 0.5)
    same: Floats = (people == judge)[clear].astype(float)
    found = wilson(float(same.sum()), len(same))
    return {
        "human_set/judge_agreement": found.mean,
        "human_set/judge_agreement_low": found.low,
        "human_set/judge_agreement_high": found.high,
        "human_set/judge_agreement_pairs": float(len(same)),
    }
