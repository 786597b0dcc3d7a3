"""Several judges asked the same, and their verdicts made one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.records import FAILURES, Comparison, Verdict

if TYPE_CHECKING:
    from rlaif_lab.models.sources import ModelSource

Combine = Literal["mean", "majority"]


class Panel(Judge):
    """members: judges by name.
    combine: ``mean`` of their probabilities, or ``majority``: each votes for the response it prefers, the one with more
        votes wins with probability 1; equally many are a tie.
    importance: of each member, by name; None: all alike. A mean is weighted by it, and so are votes.
    quorum: members that must have a verdict. A member that fails is left out of the others' verdict, and recorded; with
        fewer than ``quorum`` left the panel fails. None: all of them.

    Details hold every member's probability (or how it failed) and ``disagreement``, the standard deviation of the
    probabilities. Only a member that declares ``sees_gold`` is given gold.
    """

    def __init__(
        self,
        members: Mapping[str, Judge],
        combine: Combine = "mean",
        importance: Mapping[str, float] | None = None,
        quorum: int | None = None,
        name: str = "panel",
    ) -> None:
        self.members, self.combine, self.name = dict(members), combine, name
        if not self.members:
            raise ValueError("judge.members is empty: a panel needs at least one judge")
        if combine not in get_args(Combine):
            raise ValueError(f"judge.combine must be one of {', '.join(get_args(Combine))}; got {combine!r}")
        if importance is not None and set(importance) != set(self.members):
            raise ValueError(
                f"judge.importance must name every member, {', '.join(self.members)}; it names "
                f"{', '.join(importance) or 'none'}"
            )
        self.importance = {member: float((importance or {}).get(member, 1.0)) for member in self.members}
        if any(weight <= 0 for weight in self.importance.values()):
            raise ValueError(f"judge.importance must be positive; got {self.importance}")
        self.quorum = len(self.members) if quorum is None else quorum
        if not 1 <= self.quorum <= len(self.members):
            raise ValueError(f"judge.quorum must lie between 1 and the {len(self.members)} members; got {quorum}")
        self.sees_gold = any(judge.sees_gold for judge in self.members.values())
        # Members are trained on the same prompts if they need any: the most that one of them asks for.
        self.spare_prompts = max(judge.spare_prompts for judge in self.members.values())

    def attach(self, context: JudgeContext) -> None:
        for judge in self.members.values():
            # Gold reaches only members that declare it: the others must not find it in their context.
            judge.attach(context if judge.sees_gold else replace(context, gold=None))

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        for judge in self.members.values():
            judge.check_tokenizers(tokenizer_of)

    def sources(self) -> list[ModelSource]:
        return [source for judge in self.members.values() for source in judge.sources()]

    def needs_previous_policy(self) -> bool:
        return any(judge.needs_previous_policy() for judge in self.members.values())

    def describe(self) -> str:
        members = "; ".join(
            f"{member} x {self.importance[member]:g} = {judge.describe()}" for member, judge in self.members.items()
        )
        return f"{self.name} ({self.combine} of {members})"

    def identity(self) -> str:
        members = [(m, self.importance[m], judge.identity()) for m, judge in self.members.items()]
        return repr([type(self).__name__, self.combine, self.quorum, members])

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        # All of them, whatever the first say: a member that is left out could not be recorded.
        said = [judge.verdicts(comparisons) for judge in self.members.values()]
        return [self._combined(dict(zip(self.members, column, strict=True))) for column in zip(*said, strict=True)]

    def _combined(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        found = {m: v.prob_first_wins for m, v in verdicts.items() if v.prob_first_wins is not None}
        failed = {m: v.status for m, v in verdicts.items() if v.prob_first_wins is None}
        # 0 where nobody has a verdict, rather than a standard deviation of nothing.
        details: dict[str, Any] = {"members": found, "disagreement": float(np.std(list(found.values()) or [0.0]))}
        if failed:
            details["failed"] = failed
        raws = [f"[{member}] {v.raw}" for member, v in verdicts.items() if v.raw is not None]
        probability = self._probability(found) if len(found) >= self.quorum else None
        rest: dict[str, Any] = {
            "latency_s": sum(v.latency_s for v in verdicts.values()),
            "tokens": sum(v.tokens for v in verdicts.values()),
            "raw": "\n---\n".join(raws) if raws else None,
            "cost_usd": sum(v.cost_usd for v in verdicts.values()),
            "details": details,
        }
        if probability is not None:
            return Verdict.of(probability, **rest)
        # The failure that says most about a judge, as for two orders of one.
        return Verdict(None, next(failure for failure in FAILURES if failure in failed.values()), **rest)

    def _probability(self, found: Mapping[str, float]) -> float:
        if self.combine == "majority":
            # A member's tie is not a vote.
            votes = sum(self.importance[m] * float(np.sign(p - 0.5)) for m, p in found.items())
            return 0.5 + 0.5 * float(np.sign(votes))
        total = sum(self.importance[m] for m in found)
        # Over members with a verdict, with weights that add up to 1; rounding may exceed 1 by a bit.
        return min(1.0, sum(self.importance[m] * p for m, p in found.items()) / total)
