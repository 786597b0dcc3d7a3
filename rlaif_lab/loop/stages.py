"""The stages of a round, one function each. Each is idempotent: what the store holds is loaded, not computed again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif_lab import progress, ranks
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.records import Generation, Judgement, Position, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import sample
from rlaif_lab.sampling.logps import with_logps
from rlaif_lab.store.run_folder import RoundStore, StageResult
from rlaif_lab.store.sweep_cache import SweepCache
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS, Stage

if TYPE_CHECKING:
    from rlaif_lab.loop.plan import Parts, Plan, Services

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Stages:
    """Runs stages over a store.

    cache: what the jobs of a sweep compute once between them; None outside a sweep.
    chunk: items computed at once, after which a killed stage may go on.
    """

    store: RoundStore
    cache: SweepCache | None = None
    chunk: int = 256

    def run(
        self,
        at: Position,
        stage: Stage[T],
        items: Sequence[S],
        compute: Callable[[Sequence[S]], list[T]],
        name: str,
        sampled: SamplingConfig | None = None,
        untrained: bool = False,
    ) -> StageResult[T]:
        """Run a stage, or load it.

        Args:
            name: what the progress bar calls it.
            sampled: how the current policy was sampled, if that is what the stage does; before any training,
                other jobs of a sweep can have the same.
            untrained: it was the policy as it was before any training, whatever the round.
        """
        # The same in all arms of a seed: samples of the policy that nothing has been trained on yet.
        anybody = untrained or at == Position(0)
        with bar(at.index, name, len(items)) as shown, self._shared(at, stage, items, sampled if anybody else None):
            return self.store.stage(
                at.index,
                stage,
                items,
                compute=compute,
                chunk=self.chunk,
                progress=shown.update,
                segment=at.segment,
            )

    def _shared(
        self, at: Position, stage: Stage[Any], items: Sequence[Any], sampled: SamplingConfig | None
    ) -> AbstractContextManager[None]:
        if self.cache is None or sampled is None or not ranks.first():
            return nullcontext()
        # Chunks count too: how prompts are batched decides the last bits of their log-probabilities.
        what = repr((sampled, self.chunk, [(p.id, p.text, p.turns) for p in items]))
        return self.cache.compute_once(self.store.stage_file(at.index, stage), what)


def bar(index: int, stage: str, total: int) -> Any:
    """Return the progress bar of a stage."""
    return progress.bar(total=total, desc=f"round {index}: {stage}")


def generate(
    at: Position, prompts: Sequence[Prompt], parts: Parts, *, plan: Plan, services: Services
) -> StageResult[Generation]:
    """Sample k responses to each prompt, from the policy of this round or of an earlier one."""
    author = services.weights.author(plan.sampling_round(at.index))
    # A schedule of temperatures goes by rounds, the draws too: the segments of a round differ by their prompts.
    config = plan.sampling.of_round(at.index)
    identity = (plan.seed, "rounds", at.index)

    def compute(some: Sequence[Prompt]) -> list[Generation]:
        written = sample(
            parts.engine, author, some, config=config, limit=parts.task.max_response_tokens, identity=identity
        )
        # Learners need them as of the weights that sampled, so before these are trained.
        return written if parts.engine.recorded else with_logps(author, written, config.batch_size)

    return services.stages.run(at, GENERATIONS, prompts, compute=compute, name="sampling", sampled=config)


def judge(at: Position, generations: Sequence[Generation], parts: Parts, services: Services) -> StageResult[Judgement]:
    """Have all distinct pairs of each prompt's responses judged, in both orders."""
    compare = functools.partial(judge_generations, parts.judge)
    return services.stages.run(at, JUDGEMENTS, generations, compute=compare, name="judging")
