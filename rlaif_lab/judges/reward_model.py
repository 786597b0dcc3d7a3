"""A reward model, or an ensemble of them, as judge."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Literal, get_args

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.reward.sources import RewardFolder, member_folders

if TYPE_CHECKING:
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.reward.network import RewardNetwork

Combine = Literal["mean", "min"]


class RewardModelJudge(Judge):
    """Rewards each response by itself, so the order shown cannot matter; equal rewards are a tie.

    path: a folder with a saved reward model, one with an ensemble's (member_0, member_1, ... as a run leaves them), or
        a list of such folders.
    combine: what the members' rewards of a response become: their ``mean``, or their ``min``, which trusts a response
        only as far as the least convinced member does (Coste et al. 2310.02743). The minimum needs members that agree
        on where 0 is: train them with ``centring``.
    batch_size: prompts.
    prob_first_wins = sigmoid(reward of the first - reward of the second). A verdict's details have the standard
    deviation of that difference between members (``disagreement``), a score's the members' rewards.
    A tokenizer with a chat template has the conversation written by it; without one, response follows prompt.
    """

    gives_scores = True

    def __init__(
        self, path: str | list[str], combine: Combine = "mean", batch_size: int = 128, name: str = "reward_model"
    ) -> None:
        if combine not in get_args(Combine):
            raise ValueError(f"judge.combine must be one of {', '.join(get_args(Combine))}; got {combine!r}")
        if batch_size < 1:
            raise ValueError(f"judge.batch_size must be at least 1; got {batch_size}")
        paths = [path] if isinstance(path, str) else list(path)
        if not paths:
            raise ValueError("judge.path must name at least one reward model folder; got an empty list")
        # Folders of an ensemble are found here, so that a wrong path is reported before weights load.
        self.folders = [RewardFolder(folder, f"{name} {i}") for i, folder in enumerate(member_folders(paths))]
        self.combine, self.batch_size, self.name = combine, batch_size, name

    def attach(self, context: JudgeContext) -> None:
        from rlaif_lab.reward.network import RewardNetwork

        self.context = context
        self.members: list[RewardNetwork] = []
        for folder in self.folders:
            model = context.load(folder)
            assert isinstance(model, RewardNetwork), model
            self.members.append(model)

    def sources(self) -> list[ModelSource]:
        return list(self.folders)

    def parameters(self) -> int | None:
        from rlaif_lab.models.access import parameter_count

        # Members of unequal size have no single number by which tokens could be multiplied.
        sizes = {parameter_count(member.network)[0] for member in self.members}
        return sizes.pop() if len(sizes) == 1 else None

    def identity(self) -> str:
        return f"{self.combine} of " + ", ".join(folder.content() for folder in self.folders)

    def describe(self) -> str:
        return f"{self.name}: {self.combine} of " + ", ".join(map(str, self.folders))

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        start = time.perf_counter()
        # Each response once for all comparisons that it occurs in.
        asked = dict.fromkeys((c.prompt, text) for c in comparisons for text in (c.first, c.second))
        rewards, tokens = self._rewards(list(asked))
        latency = (time.perf_counter() - start) / max(1, len(comparisons))
        each, rest = divmod(tokens, max(1, len(comparisons)))  # shared out so that the sum is what was processed
        verdicts = []
        for i, c in enumerate(comparisons):
            first, second = rewards[c.prompt, c.first], rewards[c.prompt, c.second]
            difference = self._combined(first) - self._combined(second)
            details = None
            if len(first) > 1 and math.isfinite(difference):
                # The spread between members of the *difference*: that of single rewards would hold each member's own
                # zero.
                details = {"disagreement": pstdev(a - b for a, b in zip(first, second, strict=True))}
            verdicts.append(
                Verdict.of_log_odds(difference, latency_s=latency, tokens=each + (i < rest), details=details)
            )
        return verdicts

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        start = time.perf_counter()
        rewards, tokens = self._rewards(list(dict.fromkeys(responses)))
        latency = (time.perf_counter() - start) / max(1, len(responses))
        each, rest = divmod(tokens, max(1, len(responses)))
        return [
            Score.of(
                self._combined(members),
                latency_s=latency,
                tokens=each + (i < rest),
                details={"members": members} if len(members) > 1 else None,
            )
            for i, members in enumerate(rewards[response] for response in responses)
        ]

    def own_metrics(
        self, comparisons: Sequence[Comparison], verdicts: Sequence[tuple[Verdict, Verdict]], identical: int
    ) -> dict[str, float]:
        """Return ``judge/mean_score``: the mean reward of the policy's answers less that of round 0's to the same
        prompts."""
        if not comparisons:
            # All answers are as they were in round 0.
            return {"judge/mean_score": 0.0}
        responses = [(c.prompt, text) for c in comparisons for text in (c.first, c.second)]
        rewards, _ = self._rewards(list(dict.fromkeys(responses)))
        gains = [
            self._combined(rewards[c.prompt, c.first]) - self._combined(rewards[c.prompt, c.second])
            for c in comparisons
        ]
        known = all(map(math.isfinite, gains))
        # Identical answers gain 0, and count.
        return {"judge/mean_score": math.fsum(gains) / (len(gains) + identical) if known else math.nan}

    def _combined(self, members: Sequence[float]) -> float:
        if not all(map(math.isfinite, members)):
            return math.nan  # of one member too: min() would pass over it
        return fmean(members) if self.combine == "mean" else min(members)

    def _rewards(self, asked: Sequence[tuple[Prompt, str]]) -> tuple[dict[tuple[Prompt, str], list[float]], int]:
        """Return every member's reward of each of these different responses, and the tokens processed."""
        groups: dict[Prompt, list[tuple[str, bool]]] = {}
        for prompt, text in asked:
            groups.setdefault(prompt, []).append((text, True))
        rewards: dict[tuple[Prompt, str], list[float]] = {response: [] for response in asked}
        tokens = 0
        for member in self.members:
            # Where the policy computes: it may have moved since attach.
            member.network.to(self.context.policy("live").device)
            scored = member.score(list(groups.items()), self.batch_size)
            tokens += scored.tokens
            for (prompt, answers), row in zip(groups.items(), scored.rewards, strict=True):
                for (text, _), reward in zip(answers, row, strict=True):
                    rewards[prompt, text].append(reward)
        return rewards, tokens
