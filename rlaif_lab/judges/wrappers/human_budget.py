"""A judge helped by people: a stated share of comparisons goes to them, to train on, to measure with, or both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.by_people import decided, rate_by_people, said_of
from rlaif_lab.judges.wrappers.base import Wrapper
from rlaif_lab.judges.wrappers.order import SingleOrderJudge
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.people.agreement import agreement, noise
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.seeding import seed_for
from rlaif_lab.statistics.ppi import rectified_mean, with_known_ties
from rlaif_lab.store.files import write_atomically

if TYPE_CHECKING:
    from rlaif_lab.models.sources import ModelSource

Routing = Literal["random", "uncertainty", "disagreement", "coverage_of_errors"]
Use = Literal["train", "evaluate", "both"]
Pair = tuple[Prompt, str, str]
"""A comparison whatever its order: the two texts sorted."""


class HumanBudget(Wrapper):
    """Asks ``of`` about every comparison, and ``human`` about a share of them, whose verdict then counts.

    of: the AI judge. human: who stands for people, asked one order of each comparison, so that a label is paid once.
    share: of the comparisons of each call, so of each chunk of a round; exact but for rounding, which is right on
        average. Both orders of a comparison go to the same side.
    routing: which comparisons people get.
        ``random``: drawn by the pair's identity. Half of AI and half of people is ``share: 0.5`` of this.
        ``uncertainty``: those whose probability under ``of``, both orders averaged, is nearest to 0.5.
        ``disagreement``: those on which ``of`` and the judge ``second`` are furthest apart. The second judge is asked
            about everything then, and its tokens count. What an AI judge could not decide goes to people first.
        ``coverage_of_errors``: where the AI judge is known to err. People's labels so far audit it by class: whether it
            prefers the longer or the shorter response, and whether it is sure (0.75 or more). A pair is drawn with
            weight (errors + 1) / (labels + 2) of its class, so that no class is ever left out. Without labels that is
            ``random``.
    use: what the people's labels are for.
        ``train``: they replace the AI's verdicts on the policy's own samples. What is measured is measured by the AI.
        ``evaluate``: training is the AI's alone, and people label a *random* share of the evaluation's comparisons with
            round 0, whatever the routing: only then does prediction-powered inference (statistics/ppi.py) combine both
            into an unbiased win rate. Labels drawn by uncertainty say nothing of the others, and those that are trained
            on are never measured with.
        ``both``: a share of each.

    Confident errors that both AI judges share are what only the routings that draw from everything can find.

    Details of a verdict: ``by`` (``human`` or ``ai``); of a person's also ``ai_confidence`` (the AI's probability for
    the one it prefers, None where it failed), ``overruled`` (whether the person preferred the other one, None where one
    of them had no preference) and what the annotator adds. It must be the outermost judge: within a wrapper the
    evaluation cannot tell the people from the AI. Verdicts depend on what else is asked at the same time, so they
    cannot be cached; put the cache inside (``of: cached``).
    """

    def __init__(
        self,
        of: Judge,
        human: Judge,
        second: Judge | None = None,
        share: float = 0.1,
        routing: Routing = "random",
        use: Use = "train",
        name: str = "human_budget",
    ) -> None:
        super().__init__(of, name)
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"judge.share must lie in [0, 1]; got {share}")
        if routing not in get_args(Routing):
            raise ValueError(f"judge.routing must be one of {', '.join(get_args(Routing))}; got {routing!r}")
        if use not in get_args(Use):
            raise ValueError(f"judge.use must be one of {', '.join(get_args(Use))}; got {use!r}")
        if routing == "disagreement" and second is None:
            raise ValueError("judge.routing=disagreement needs a second judge: judge@judge.second=equal, for example")
        # One order only: a person's label is paid once, and nobody should see the same two answers twice.
        self.human = SingleOrderJudge(human)
        # Built in any case, so that a wrong one is reported; asked only if the routing needs it.
        self.second = second if routing == "disagreement" else None
        self.share, self.routing, self.use = float(share), routing, use
        self.sees_gold = any(judge.sees_gold for judge in self._judges().values())
        self.spare_prompts = max(judge.spare_prompts for judge in self._judges().values())
        self.gives_scores = False  # people compare
        self.asks_people_to_evaluate = self.use != "train"
        # Until `attach` says where the run keeps its own.
        self._audit = ErrorsByClass(None)

    def _judges(self) -> dict[str, Judge]:
        judges: dict[str, Judge] = {"of": self.of, "human": self.human}
        return judges | ({"second": self.second} if self.second is not None else {})

    # --- a judge like others --------------------------------------------------------------------------------------
    def attach(self, context: JudgeContext) -> None:
        self.seed = context.seed
        self._audit = ErrorsByClass(context.directory and context.directory / "errors_by_class.json")
        for role, judge in self._judges().items():
            # `of` keeps its place in the folder, so that verdicts of a run without people are found again.
            where = context.directory and (context.directory if role == "of" else context.directory / role)
            # Only who declares it is given gold, whatever the wrapper as a whole needs.
            gold = context.gold if judge.sees_gold else None
            judge.attach(replace(context, gold=gold, directory=where))

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        for judge in self._judges().values():
            judge.check_tokenizers(tokenizer_of)

    def sources(self) -> list[ModelSource]:
        return [source for judge in self._judges().values() for source in judge.sources()]

    def needs_previous_policy(self) -> bool:
        return any(judge.needs_previous_policy() for judge in self._judges().values())

    def parameters(self) -> int | None:
        return None if self.second is not None else self.of.parameters()

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        # A person compares: there is no score that an AI's could be mixed with.
        return Judge.scores(self, responses)

    def settings(self) -> str:
        return f"{self.share:.3g} of comparisons to people, by {self.routing}, to {self.use}"

    def identity(self) -> str:
        raise ValueError(
            f"judge {self.name!r} has no stable identity: which comparisons people get depends on the others; put the "
            "cache inside (judge@judge.of=cached)"
        )

    def describe(self) -> str:
        second = f"; second judge: {self.second.describe()}" if self.second is not None else ""
        people = self.human.of.describe()
        return f"{self.name} ({self.settings()}; people: {people}; AI: {self.of.describe()}{second})"

    # --- training -------------------------------------------------------------------------------------------------
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        by_ai = self.of.verdicts(comparisons)
        if self.use == "evaluate":
            return [_by_ai(verdict) for verdict in by_ai]
        # By pair, both orders averaged: a position bias must not look like doubt.
        ai = _averaged(comparisons, by_ai)
        if self.second is not None:
            others = self.second.verdicts(comparisons)
            other = _averaged(comparisons, others)
            # The second judge decides who is asked only, but what it cost is counted.
            by_ai = [_added(verdict, extra) for verdict, extra in zip(by_ai, others, strict=True)]
        else:
            other = {}
        if self.routing == "coverage_of_errors":
            # Before the choice: this call goes by what is known now, even when it is repeated after a kill.
            self._audit.begin(_call(ai))
        # By pair, so that both orders of a comparison go to the same side.
        chosen = set(self._chosen(list(ai), lambda pair: self._priority(pair, ai, other)))
        asked = [i for i, c in enumerate(comparisons) if _pair(c) in chosen]
        # For the owner's page, which shows where people and AI differ.
        self.human.of.note_ai({pair: ai[pair] for pair in chosen})
        said = self.human.verdicts([comparisons[i] for i in asked]) if asked else []
        verdicts = [_by_ai(verdict) for verdict in by_ai]
        for i, verdict in zip(asked, said, strict=True):
            c = comparisons[i]
            probability = ai[_pair(c)]
            if probability is not None and _turned(c):
                probability = 1.0 - probability
            verdicts[i] = _by_human(verdict, by_ai[i], probability)
        if self.routing == "coverage_of_errors":
            # Both orders of a comparison have one label: counted once, by pair.
            overruled = {_pair(comparisons[i]): (verdicts[i].details or {}).get("overruled") for i in asked}
            self._audit.end(_call(ai), [(class_of(p, ai[p]), bool(o)) for p, o in overruled.items() if o is not None])
        return verdicts

    def _priority(
        self, pair: Pair, ai: Mapping[Pair, float | None], other: Mapping[Pair, float | None]
    ) -> tuple[float, int]:
        """Return where a pair stands in line for people: the lowest are asked first."""
        rank = self._rank("training", pair)
        if self.routing == "random":
            return 0.0, rank
        mine = ai[pair]
        # Where the AI has no verdict a person is worth most.
        if mine is None:
            return -math.inf, rank
        if self.routing == "uncertainty":
            return abs(mine - 0.5), rank
        if self.routing == "coverage_of_errors":  # exponential clocks: drawn without replacement, by weight
            # The smallest of exponentials with rate w is drawn with a chance in proportion to w (Efraimidis and
            # Spirakis 2006).
            return -math.log((rank + 1) / 2**63) / self._audit.weight(class_of(pair, mine)), rank
        theirs = other[pair]
        return (-math.inf if theirs is None else -abs(mine - theirs)), rank

    def _rank(self, purpose: str, pair: Pair) -> int:
        prompt, low, high = pair
        return seed_for(self.seed, "human budget", purpose, prompt.id, low, high)

    def _chosen(self, pairs: Sequence[Pair], priority: Callable[[Pair], Any]) -> list[Pair]:
        """Return the share of these that people get. The part of one that is left over is one with its probability."""
        if not pairs:
            return []
        # Rounded by a coin of the call's own: on average the share is exact, even for small calls.
        coin = self._rank("rounding", pairs[0]) / 2**63
        # round(..., 9): 0.29 x 100 is 28.999999999999996, and means 29.
        count = math.floor(round(self.share * len(pairs), 9) + coin)
        return sorted(pairs, key=priority)[:count]

    # --- evaluation -----------------------------------------------------------------------------------------------
    def evaluator(self) -> Judge:
        return self.of

    def auditor(self) -> Judge:
        """Return this judge if its people label for training and can audit, else the AI judge. Simulated people can;
        real ones are asked about the bank only if ``judge.human.evaluate`` says so, and only once, since its pairs stay
        the same."""
        at_hand = self.human.of.sees_gold or getattr(self.human.of, "evaluate", False)
        return self if self.use != "evaluate" and at_hand else self.of

    def own_changes(self, comparisons: Sequence[Comparison]) -> list[float]:
        if self.use == "train":
            return []
        pairs = {_pair(c): c for c in comparisons}
        # A random share whatever the routing: only then does it stand for all prompts.
        chosen = [pairs[pair] for pair in self._chosen(list(pairs), lambda pair: self._rank("changes", pair))]
        asked = [c for c in chosen if c.first != c.second]
        labels = decided(both_orders(self.human, asked))
        # From P(first wins) in {0, 0.5, 1} to a preference in {-1, 0, 1}.
        known = [2.0 * float(label) - 1.0 for label in labels if not math.isnan(label)]
        # Equal texts that were drawn are ties, and count as labels that cost nothing.
        return known + [0.0] * (len(chosen) - len(asked))

    def own_metrics(
        self, comparisons: Sequence[Comparison], verdicts: Sequence[tuple[Verdict, Verdict]], identical: int
    ) -> dict[str, float]:
        """Return people's win rate on their random share, the AI's rectified by it, and what that cost.

        ``human/win_rate_vs_round_0`` and ``ppi/win_rate_vs_round_0``, each with ``_stderr`` and a 95 % interval
        (``_low``, ``_high``); ``ppi/weight`` (lambda: how much the AI's verdicts are relied on),
        ``ppi/effective_labels`` (how many labels would be as precise without the AI); where several people label an
        item, ``human/annotator_error`` (the error rate that they share, by how often two disagree) and
        ``ppi/win_rate_without_noise`` with ``_low`` and ``_high``: what the same labels would say without such errors,
        which draw every win rate towards one half; ``judge/bias_vs_human``, the AI's
        win rate minus people's where both judged; ``cost/evaluation_human_labels``, ``_human_minutes``, ``_usd``.
        """
        if self.use == "train":
            return {}
        pairs = {_pair(c): i for i, c in enumerate(comparisons)}
        chosen = [pairs[pair] for pair in self._chosen(list(pairs), lambda pair: self._rank("evaluation", pair))]
        said = both_orders(self.human, [comparisons[i] for i in chosen])
        labels = decided(said)
        # An AI without a verdict is taken to have none: one half, which PPI corrects like any other.
        judged = np.nan_to_num(decided(verdicts), nan=0.5)
        # Without a label (flagged, or beyond the budget) an item counts among the rest.
        known = [i for i, label in zip(chosen, labels, strict=True) if not math.isnan(label)]
        labels = labels[~np.isnan(labels)]
        rest = np.setdiff1d(np.arange(len(comparisons)), known)
        # weight = 0: people alone, by the same formula and with the same ties.
        alone = with_known_ties(rectified_mean(labels, judged[known], judged[rest], weight=0.0), len(judged), identical)
        both = with_known_ties(rectified_mean(labels, judged[known], judged[rest]), len(judged), identical)
        wider = rate_by_people(said, identical, different=len(judged))
        if both.stderr == 0.0:  # labels that all say the same are few, and no certainty
            both = replace(both, low=wider.low, high=wider.high)
        error, kept = shared_noise(said)
        asked = [verdict for orders in said for verdict in orders]
        # The first order's: both have the same label, and its seconds once.
        seconds = [float((first.details or {}).get("human_seconds", 0.0)) for first, _ in said]
        return {
            "human/win_rate_vs_round_0": alone.estimate,
            "human/win_rate_vs_round_0_stderr": alone.stderr,
            "human/win_rate_vs_round_0_low": wider.low,
            "human/win_rate_vs_round_0_high": wider.high,
            "ppi/win_rate_vs_round_0": both.estimate,
            "ppi/win_rate_vs_round_0_stderr": both.stderr,
            "ppi/win_rate_vs_round_0_low": both.low,
            "ppi/win_rate_vs_round_0_high": both.high,
            "human/annotator_error": error,
            "human/evaluation_alpha": agreement(said_of(first.details or {} for first, _ in said)).alpha,
            "ppi/win_rate_without_noise": _without_noise(both.estimate, kept),
            "ppi/win_rate_without_noise_low": _without_noise(both.low, kept),
            "ppi/win_rate_without_noise_high": _without_noise(both.high, kept),
            "ppi/weight": both.weight,
            "ppi/effective_labels": both.effective_labels,
            "judge/bias_vs_human": float(np.mean(judged[known] - labels)) if known else math.nan,
            "cost/evaluation_human_labels": float(len(chosen)),
            "cost/evaluation_human_minutes": sum(seconds) / 60.0,
            "cost/evaluation_usd": sum(verdict.cost_usd for verdict in asked),
        }


# --- where the AI judge errs ------------------------------------------------------------------------------------------
class ErrorsByClass:
    """The audit of the AI judge by people's labels so far, by class of comparison.

    Every call is kept with the audit that it went by, so that one which is made again after a kill asks about the same.

    Args:
        path: Where it is kept; None for memory alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.calls: dict[str, dict[str, Any]] = json.loads(path.read_bytes()) if path and path.exists() else {}
        self.known: Mapping[str, Sequence[int]] = {}

    def begin(self, call: str) -> None:
        """Go by what is known before this call."""
        # Written down before anybody is asked: a call that is repeated after a kill goes by the same, not by more.
        if call not in self.calls:
            total: dict[str, list[int]] = {}
            for other in self.calls.values():
                for name, (errors, labels) in other.get("found", {}).items():
                    before = total.get(name, [0, 0])
                    total[name] = [before[0] + errors, before[1] + labels]
            self.calls[call] = {"known": total}
            self._keep()
        self.known = self.calls[call]["known"]

    def weight(self, name: str) -> float:
        """Return the estimated error rate of a class, one half where nothing is known."""
        errors, labels = self.known.get(name, (0, 0))
        # Laplace's rule of succession: no class is ever sure to be right, so each is still drawn.
        return (errors + 1) / (labels + 2)

    def end(self, call: str, found: Sequence[tuple[str, bool]]) -> None:
        """Add what people said in this call: class, and whether they overruled the AI judge."""
        counted: dict[str, list[int]] = {}
        for name, error in found:
            errors, labels = counted.get(name, [0, 0])
            counted[name] = [errors + error, labels + 1]
        # Called again after a kill it finds the same, and need not write.
        if self.calls[call].get("found") != counted:
            self.calls[call]["found"] = counted
            self._keep()

    def _keep(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.calls).encode())


def class_of(pair: Pair, lower_wins: float | None) -> str:
    """Return the class of a comparison, by what the AI judge (probability that the lower text wins) says of it."""
    if lower_wins is None:
        return "failed"
    _, low, high = pair
    preferred, other = (low, high) if lower_wins >= 0.5 else (high, low)
    length = "equal" if len(preferred) == len(other) else "longer" if len(preferred) > len(other) else "shorter"
    return f"{length}, {'sure' if abs(lower_wins - 0.5) >= 0.25 else 'unsure'}"


def _call(ai: Mapping[Pair, float | None]) -> str:
    """Return what tells a call from others: the pairs that it is about."""
    asked = sorted((prompt.id, low, high) for prompt, low, high in ai)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


# --- several people on one comparison ---------------------------------------------------------------------------------
def shared_noise(said: Sequence[tuple[Verdict, Verdict]]) -> tuple[float, float]:
    """Return the error rate that people share, and what is left of a preference after such errors: P(right) minus
    P(wrong) of a majority of as many people, averaged over the comparisons. (nan, nan) where nobody labelled twice."""
    counted = said_of(first.details or {} for first, _ in said)
    error = noise(counted)
    # Ties show no error: those who took a side are counted.
    sizes = [s.first + s.second for s in counted if s.first + s.second]
    if math.isnan(error) or not sizes:
        return math.nan, math.nan
    return error, float(np.mean([_left_over(error, size) for size in sizes]))


def _without_noise(rate: float, kept: float) -> float:
    # Errors draw a rate towards one half by the factor `kept`; this takes them off again.
    return 0.5 + (rate - 0.5) / kept if kept > 0.0 else math.nan


def _left_over(error: float, people: int) -> float:
    chances = (
        (math.comb(people, k) * (1.0 - error) ** k * error ** (people - k), 2 * k - people) for k in range(people + 1)
    )
    # P(majority right) - P(majority wrong), a draw counting as neither.
    return sum(chance * ((lead > 0) - (lead < 0)) for chance, lead in chances)


# --- pairs and probabilities ----------------------------------------------------------------------------------------
def _turned(comparison: Comparison) -> bool:
    """Return whether its first text is not the first of its pair."""
    return comparison.first > comparison.second


def _pair(comparison: Comparison) -> Pair:
    low, high = sorted((comparison.first, comparison.second))
    return comparison.prompt, low, high


def _averaged(comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]) -> dict[Pair, float | None]:
    """Return the probability that each pair's lower text wins, over the orders that were asked; None if one of them
    failed."""
    found: dict[Pair, list[float | None]] = {}
    for c, verdict in zip(comparisons, verdicts, strict=True):
        p = verdict.prob_first_wins
        found.setdefault(_pair(c), []).append(1.0 - p if p is not None and _turned(c) else p)
    return {
        # One failed order fails the pair, as everywhere.
        pair: None if None in values else sum(v for v in values if v is not None) / len(values)
        for pair, values in found.items()
    }


def _by_ai(verdict: Verdict) -> Verdict:
    return replace(verdict, details={"by": "ai"} | ({"of": verdict.details} if verdict.details else {}))


def _by_human(verdict: Verdict, by_ai: Verdict, ai: float | None) -> Verdict:
    """Return the human's verdict. ai: the AI's probability that the first wins, both orders averaged."""
    said = verdict.prob_first_wins
    # Somebody without a preference can neither overrule nor be overruled.
    both = said not in (None, 0.5) and ai not in (None, 0.5)
    details = {
        "by": "human",
        "ai_confidence": None if ai is None else max(ai, 1.0 - ai),
        "overruled": (said > 0.5) != (ai > 0.5) if both and said is not None and ai is not None else None,
        **(verdict.details or {}),
    }
    return replace(_added(verdict, by_ai), details=details)


def _added(verdict: Verdict, extra: Verdict) -> Verdict:
    """Return the verdict at the cost of both."""
    return replace(
        verdict,
        latency_s=verdict.latency_s + extra.latency_s,
        tokens=verdict.tokens + extra.tokens,
        cost_usd=verdict.cost_usd + extra.cost_usd,
    )
