"""A judge that is a reward model, learnt once from a fixed number of another judge's labels: what is optimised is then
a proxy of what is wanted (Gao et al. 2210.10760)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.judges.asking import comparisons_of, judge_generations
from rlaif_lab.judges.reward_model import RewardModelJudge
from rlaif_lab.judges.wrappers.base import Wrapper
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Generation, Prompt, Score, Verdict
from rlaif_lab.reward.examples import RewardExample, examples_from
from rlaif_lab.store.checksums import check_sealed, seal
from rlaif_lab.store.files import cache_root, new_folder_beside, read_json_file, rename_folder, writing

if TYPE_CHECKING:
    from rlaif_lab.judges.base import Judge
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.reward.model import RewardModel

BLOCK = 256
"""Prompts sampled at a time until there are enough comparisons."""


class ProxyJudge(Wrapper):
    """Asks ``of`` about ``labels`` comparisons, trains ``reward_model`` on its verdicts before round 0, and from then
    on is that reward model, frozen. Every learner so optimises one and the same proxy: those that train on preferences
    through its verdicts, those with ``learner.reward=score`` through its rewards.

    of: who labels; the oracle makes the proxy one of gold. labels: comparisons that it is asked about, ties included
    (which teach nothing). They are pairs of samples from the initial policy, ``k`` per prompt, on prompts that
    no round and no evaluation uses; more labels are those of fewer and further ones. reward_model: its body and its
    training (conf/reward_model); ``data`` and ``restart`` are ignored, since it is trained once.

    The reward model is in the run's folder, judge/proxy; a run that is resumed finds it there. Runs that differ only in
    what they do with it share it through the lab's cache, and learn it once. Metrics of every evaluation:
    ``proxy/labels`` (informative: of pairs trained on and held out), ``proxy/accuracy`` (on held-out pairs, against
    ``of``) and ``judge/mean_score`` (see RewardModelJudge).
    """

    def __init__(
        self, of: Judge, reward_model: RewardModel, labels: int = 4000, k: int = 4, name: str = "proxy"
    ) -> None:
        super().__init__(of, name)
        if labels < 1:
            raise ValueError(f"judge.labels must be at least 1 comparison; got {labels}")
        if k < 2:
            raise ValueError(f"judge.k must be at least 2 samples per prompt, to be compared; got {k}")
        self.reward_model, self.labels, self.k = reward_model, labels, k
        self.gives_scores, self.writes = True, False
        # `labels` prompts are enough even if each gives one pair only; the cache key is made of 8.
        self.spare_prompts = max(of.spare_prompts, labels, 8)

    # --- before round 0 -------------------------------------------------------------------------------------------
    def attach(self, context: JudgeContext) -> None:
        if context.directory is None or context.spare_samples is None:
            raise ValueError(
                f"judge {self.name!r} learns from samples of a run's policy, and there is no run here; for the one "
                "that a run has left use judge=reward_model judge.path=FOLDER/judge/proxy"
            )
        super().attach(context)
        self.folder = context.directory / "proxy"
        # `metrics.json` is written last: a folder without it is a killed run's, and the proxy is trained again.
        if not self.metrics_file.exists():
            # Without gold: only who labels may know it.
            self.reward_model.attach(replace(context, gold=None))
            self.learn(context.spare_samples)
        self.judge = RewardModelJudge(str(self.folder), name=self.name)
        self.judge.attach(replace(context, gold=None))
        self.metrics: dict[str, Any] = read_json_file(self.metrics_file)

    @property
    def metrics_file(self) -> Path:
        """Return the file that is written last, so that the reward model is whole where it is."""
        return self.folder / "metrics.json"

    def learn(self, spare_samples: Callable[[int, int, int], Sequence[Generation]]) -> None:
        """Put the reward model into the run's folder: from the cache, where a run that was to learn the same has left
        it, else trained now and left there. A judge without stable identity has its own in every run."""
        try:
            who = self.of.identity()
        except ValueError:
            self.reward_model.fit(self.examples(spare_samples), 0, self.folder, None)
            return
        # The first samples stand for the policy and the sampler: equal ones mean equal weights, whatever they are
        # called.
        begins = [(g.prompt, [r.token_ids for r in g.responses]) for g in spare_samples(0, 8, self.k)]
        content = repr([who, begins, self.labels, self.k, self.seed, self.reward_model.identity()])
        kept = cache_root() / "proxies" / hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if not kept.exists():
            self.reward_model.fit(self.examples(spare_samples), 0, self.folder, None)
            # From the run's folder into the cache, not the other way: the run must not depend on the cache afterwards.
            _copy(self.folder, kept)
        else:
            # A damaged copy must not become a judge.
            check_sealed(kept)
            shutil.rmtree(self.folder, ignore_errors=True)  # what a crash may have left
            _copy(kept, self.folder)

    def examples(self, spare_samples: Callable[[int, int, int], Sequence[Generation]]) -> list[RewardExample]:
        """Return the labelled comparisons, ties left out."""
        examples: list[RewardExample] = []
        asked = 0
        for start in range(0, self.labels, BLOCK):
            taken = []
            for generation in spare_samples(start, min(BLOCK, self.labels - start), self.k):
                pairs = len(comparisons_of(generation))
                if asked < self.labels and pairs:
                    taken.append(generation)
                    asked += pairs
            judgements = judge_generations(self.of, taken)
            # The last prompt may bring more pairs than labels were asked for.
            over = max(0, asked - self.labels)
            examples += examples_from(0, taken, judgements[: len(judgements) - over])
            if asked >= self.labels:
                break
        if not examples:
            raise ValueError(
                f"judge {self.name!r}: none of {min(asked, self.labels)} labels prefers one response to another, so "
                "there is nothing to learn a proxy from; raise judge.labels"
            )
        return examples

    # --- afterwards: the reward model -----------------------------------------------------------------------------
    def sources(self) -> list[ModelSource]:
        return [*self.of.sources(), *self.reward_model.sources()]

    def parameters(self) -> int | None:
        return self.judge.parameters()

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return self.judge.verdicts(comparisons)

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return self.judge.scores(responses)

    def language_model(self) -> LanguageModel:
        raise ValueError(f"judge {self.name!r} is a reward model, so it has no answers of its own")

    def own_metrics(
        self, comparisons: Sequence[Comparison], verdicts: Sequence[tuple[Verdict, Verdict]], identical: int
    ) -> dict[str, float]:
        pairs = self.metrics["reward_model/pairs"] + self.metrics["reward_model/pairs_held_out"]
        return {
            "proxy/labels": float(pairs),
            "proxy/accuracy": self.metrics["reward_model/accuracy"],
            **self.judge.own_metrics(comparisons, verdicts, identical),
        }

    def settings(self) -> str:
        return f"a reward model on {self.labels} labels"

    def identity(self) -> str:
        return self.judge.identity()


def _copy(source: Path, target: Path) -> None:
    """Copy all or nothing; whoever was first with the same keeps it."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = new_folder_beside(target)
        try:
            shutil.copytree(source, partial, dirs_exist_ok=True)
            seal(partial)
            rename_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
