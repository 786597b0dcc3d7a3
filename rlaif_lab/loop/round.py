"""The main path: one round, readable on one screen.

prompts -> generations -> judgements -> preference pairs -> training data        (Lightning trains on it)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from rlaif_lab import progress
from rlaif_lab.audit.in_loop import frozen_bank_metrics
from rlaif_lab.audit.judged import judge_pairs
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.feedback.pairing import Floats, Pairing, make_pairs, preference_matrices, win_rates, within_budget
from rlaif_lab.feedback.replay import Replay
from rlaif_lab.feedback.revision import RevisionConfig, critique_and_revise
from rlaif_lab.judges.asking import judge_generations, score_generations
from rlaif_lab.judges.base import Judge
from rlaif_lab.learners.base import Example, Feedback, Learner
from rlaif_lab.loop.evaluation import (
    Evaluation,
    coverage_metrics,
    evaluate,
    gold_qualities,
    judged_changes,
    quality_changes,
)
from rlaif_lab.loop.gate import Gate
from rlaif_lab.loop.weights import PolicyHistory
from rlaif_lab.metrics.cost import forward_flops, parameter_count, training_flops
from rlaif_lab.metrics.round import Metrics, Segment, round_metrics
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.plateau.detector import Measure
from rlaif_lab.records import Generation, Judgement, PreferencePair, Prompt, Revision, Score
from rlaif_lab.reward.examples import RewardExample, examples_from
from rlaif_lab.reward.model import RewardModel
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.run_folder import CHANGES, RoundStore
from rlaif_lab.store.sweep_cache import SharedFiles
from rlaif_lab.store.tables import (
    AHEAD,
    COVERAGE,
    DEMONSTRATIONS,
    EVALUATED,
    GENERATIONS,
    JUDGEMENTS,
    PAIRS,
    REVISIONS,
    SCORES,
    Stage,
)
from rlaif_lab.tasks.base import Task
from rlaif_lab.training.batches import Batching, Step, make_batches, with_reference, with_sampled, with_values


@dataclass
class Rounds:
    """The stages of a round, for one policy under one judge. Every stage is idempotent: what the store holds is
    loaded, never computed again.

    policy: the weights being trained. base: a frozen model of what they were at first.
    sync_every: optimiser steps after which the round goes on with prompts sampled from the policy as it is by then.
        None: once per round; more steps than a round has: once in that many rounds, so that a large number is fully
        offline. bank: labelled pairs that stay the same, on which the judge is audited in every round.
    lag: rounds by which the policy that samples is older than the one that is trained.
    changes: by what the change of the policy in a round is measured on fresh prompts, for the plateau detector; None:
        it is not.
    shared: what the jobs of a sweep compute once between them; None outside a sweep.
    """

    policy: LanguageModel
    base: LanguageModel
    judge: Judge
    learner: Learner
    task: Task
    sampling: SamplingConfig
    pairing: Pairing
    evaluation: Evaluation
    store: RoundStore
    seed: int
    prompts_per_round: int
    batching: Batching
    replay: Replay = field(default_factory=Replay)
    reward_model: RewardModel | None = None
    revision: RevisionConfig | None = None
    bank: Sequence[LabelledPair] = ()
    gate: Gate = field(default_factory=Gate)
    heldout_judge: Judge | None = None
    sync_every: int | None = None
    lag: int = 0
    changes: Measure | None = None
    shared: SharedFiles | None = None
    chunk: int = 256

    def __post_init__(self) -> None:
        self.index = self.segment = 0
        self.seconds: dict[str, float] = {}
        self.extra: Metrics = {}
        steps = -(-self.prompts_per_round // self.batching.per_step()) * self.batching.passes
        every = self.sync_every or steps
        self.sync_rounds = max(1, every // steps)
        self.prompts_per_segment = min(
            self.prompts_per_round, max(1, every * self.batching.per_step() // self.batching.passes)
        )
        judges = [self.judge, *([self.heldout_judge] if self.heldout_judge else [])]
        previous = any(judge.needs_previous_policy() for judge in judges)
        reach = max(int(previous), self.lag + self.sync_rounds - 1)
        self.history = PolicyHistory(self.policy, self.base, self.store, reach)
        self.critic = Critic(self.base, self.seed) if self.learner.needs_values else None

    # --- the round --------------------------------------------------------------------------------------------
    def run(self, index: int) -> RoundData:
        """Opens round ``index``. Its data are computed segment by segment, the first one now."""
        self.index, self.segment, self.seconds, self.extra = index, 0, {}, {}
        self.history.keep(index)
        evaluation = self.evaluate(index)
        if index == 0:
            evaluation |= self.coverage(0)
        if self.changes is not None:
            self.sample_evaluation(AHEAD, index + 1)  # before the training whose effect it will tell
        return RoundData(self, index, evaluation)

    def next_segment(self, prompts: Sequence[Prompt]) -> tuple[Segment, list[Step]]:
        """prompts -> what Lightning trains on, with the policy as it stands."""
        generations = self.generate(prompts)
        judgements = self.judge_all(generations)
        if self.index == self.segment == 0 and self.learner.needs_judgements and not self.pairs_are_revisions():
            self.gate.check(self.judge, self.task, judgements)
        prob_beats = preference_matrices(generations, judgements)
        pairs = self.pair(generations, prob_beats)
        scores = self.score(generations, judgements)
        revisions, demonstrations = self.revise(generations), self.demonstrate(prompts)
        revised = self.pairs_are_revisions()
        feedback = Feedback(self.index, generations, prob_beats, pairs, scores, revisions, demonstrations, revised)
        examples = self.replay_with(self.within_budget(self.learner.examples(feedback)))
        return Segment(feedback, judgements, examples), self.steps(examples)

    # --- the stages ---------------------------------------------------------------------------------------------
    def evaluate(self, index: int) -> Metrics:
        """Metrics of the policy as it stands, which is that of round ``index``."""
        self.index, self.segment = index, 0

        def compute() -> Metrics:
            start = time.perf_counter()
            sampled = self.sample_evaluation(EVALUATED, index)
            with self.bar("evaluating", 2) as bar:
                metrics = evaluate(
                    self.policy,
                    self.base,
                    self.judge,
                    self.heldout_judge,
                    self.task,
                    sampled,
                    self.seed,
                    index,
                    bar.update,
                )
            metrics |= self.change(index, sampled)
            return metrics | self.audit(index) | {"time/evaluation_s": time.perf_counter() - start}

        return self.store.compute_once(index, "evaluation", compute)

    def audit(self, index: int) -> Metrics:
        """The judge on the frozen bank, and how many of its verdicts are still those of round 0."""
        if not self.bank:
            return {}
        judgements = judge_pairs(self.judge.evaluator(), self.bank)
        said = [j.prob_first_wins for j in judgements]
        self.store.compute_once(index, "bank", lambda: {"prob_first_wins": said})
        first = self.store.read_json(0, "bank")
        at_first = None if first is None else np.array(first["prob_first_wins"], dtype=float)  # None becomes nan
        return frozen_bank_metrics(judgements, self.bank, at_first)

    def evaluation_prompts(self, index: int) -> list[Prompt]:
        """Fresh in every round, and never trained on."""
        count = self.evaluation.prompts
        return self.task.prompts("evaluation", index * count, count, self.seed)

    def sample_evaluation(self, stage: Stage[Generation], of_round: int) -> list[Generation]:
        """The policy as it stands, on the evaluation prompts of this round (EVALUATED) or of the next (AHEAD): what the
        policy that this round's training makes will be compared with. The same draws serve both policies on a prompt,
        so that where they agree their samples do, and the difference has little noise."""
        config = SamplingConfig(k=self.evaluation.samples)

        def compute(some: Sequence[Prompt]) -> list[Generation]:
            limit = self.task.max_response_tokens
            return sample(self.policy, some, config, limit, self.seed, "evaluation", of_round)

        name = "evaluation_ahead" if stage is AHEAD else None  # the other's time is part of the evaluation's
        return self.stage(name, stage, self.evaluation_prompts(of_round), compute, config)

    def coverage(self, index: int) -> Metrics:
        """pass@k of many samples of the policy as it stands: asked for at the start and at the end of a run."""
        config = self.evaluation
        if not config.final_samples:
            return {}

        many = SamplingConfig(k=config.final_samples)

        def compute(some: Sequence[Prompt]) -> list[Generation]:
            return sample(self.policy, some, many, self.task.max_response_tokens, self.seed, "coverage", index)

        prompts = self.evaluation_prompts(index)[: config.final_prompts]
        self.index, self.segment = index, 0
        return coverage_metrics(self.task, self.stage("coverage", COVERAGE, prompts, compute, many))

    def change(self, index: int, sampled: Sequence[Generation]) -> Metrics:
        """What the training of the round before changed, on prompts that nobody had seen. Every prompt's change is kept
        in a file, for the detector and to pool the seeds of an arm."""
        before = self.store.read_stage(index - 1, AHEAD) if index and self.changes is not None else []
        if not before:
            return {}
        if self.changes == "gold":
            changes = quality_changes(self.task, sampled, before)
        else:
            assert self.heldout_judge is not None
            changes = judged_changes(self.heldout_judge.evaluator(), sampled, before)
        self.store.compute_once(index, CHANGES, lambda: {"measure": self.changes, "changes": changes.tolist()})
        stderr = float(changes.std(ddof=1) / np.sqrt(len(changes))) if len(changes) > 1 else float("nan")
        return {"quality/change": float(changes.mean()), "quality/change_stderr": stderr}

    def changes_into(self, index: int) -> Floats | None:
        """Per prompt, what the training of round ``index - 1`` changed; None where it was not measured."""
        held = self.store.read_json(index, CHANGES)
        return None if held is None else np.array(held["changes"])

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        policy = self.sampling_policy()
        config = self.sampling.of_round(self.index)

        def compute(some: Sequence[Prompt]) -> list[Generation]:
            return sample(policy, some, config, self.task.max_response_tokens, self.seed, "rounds", self.index)

        return self.stage("sampling", GENERATIONS, prompts, compute, config)

    def judge_all(self, generations: Sequence[Generation]) -> list[Judgement]:
        return self.stage("judging", JUDGEMENTS, generations, functools.partial(judge_generations, self.judge))

    def pair(self, generations: Sequence[Generation], prob_beats: Floats) -> list[PreferencePair]:
        def compute(some: Sequence[int]) -> list[PreferencePair]:
            return make_pairs(
                [generations[i] for i in some], prob_beats[list(some)], self.pairing, self.seed, self.index
            )

        positions = range(len(generations))
        return self.store.stage(
            self.index, PAIRS, positions, compute, chunk=len(generations), segment=self.segment
        ).records

    def score(self, generations: Sequence[Generation], judgements: Sequence[Judgement]) -> Floats | None:
        """The number that the learner takes as reward, if it is not the win rate: (N, k), nan where there is none."""
        model = self.reward_model
        if self.learner.reward == "reward_model":
            assert model is not None
            examples = [e for i in range(self.index) for e in self.judged(i)] if model.data == "all" else []
            examples += self.judged(self.index, self.segment)
            examples += examples_from(self.index, generations, judgements)
            folder = self.store.round_directory(self.index, self.segment) / "reward_model"
            self.extra |= model.fit(examples, self.index, folder, self.last_reward_model())
            return model.rewards(generations)[0]
        if self.learner.reward != "score":
            return None
        found = self.stage("scoring", SCORES, generations, functools.partial(score_generations, self.judge))
        return _score_array(found, len(generations))

    def revise(self, generations: Sequence[Generation]) -> list[Revision]:
        if not (self.learner.needs_revisions or self.pairs_are_revisions()):
            return []
        assert self.revision is not None
        compute = functools.partial(
            critique_and_revise, self.sampling_policy(), config=self.revision, seed=self.seed, round_index=self.index
        )
        return self.stage("revising", REVISIONS, generations, compute)

    def pairs_are_revisions(self) -> bool:
        return self.learner.needs_pairs and self.pairing.source == "revisions"

    def demonstrate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """The judge's own answers, one per prompt, for a learner that is distilled from them."""
        if not self.learner.needs_demonstrations:
            return []
        model, config = self.judge.language_model(), SamplingConfig(k=1, batch_size=self.sampling.batch_size)

        def compute(some: Sequence[Prompt]) -> list[Generation]:
            return sample(model, some, config, self.task.max_response_tokens, self.seed, "demonstrations", self.index)

        return self.stage("demonstrating", DEMONSTRATIONS, prompts, compute)

    def within_budget(self, examples: list[Example]) -> list[Example]:
        """At most ``pairing.budget`` examples, so that learners that read whole groups keep to it as well; which ones
        is decided by the prompt. Learners on pairs keep to it already."""
        budget = None if self.learner.needs_pairs else self.pairing.budget
        return within_budget(examples, budget, lambda e: seed_for("budget", self.seed, self.index, e.prompt.id))

    def replay_with(self, latest: list[Example]) -> list[Example]:
        """The latest examples, mixed with those of the rounds before that are in the replay window."""
        before = self.replay.rounds_before(self.index)
        older = [e for i in before for feedback in self.stored_feedback(i) for e in self.learner.examples(feedback)]
        return self.replay.mix(latest, older, self.seed, self.index, self.segment)

    def steps(self, examples: Sequence[Example]) -> list[Step]:
        """Batches in an order decided by identity, with what the loss needs beside the policy's log-probabilities."""
        start = time.perf_counter()
        size = self.batching.batch_size
        order = self.batching.order(len(examples), self.seed, "training order", self.index, self.segment)
        batches = make_batches(examples, order, size, self.policy)
        rows = [[examples[i] for i in order[at : at + size]] for at in range(0, len(order), size)]
        fresh = self.sampling_round() == self.index
        # Decoding and the packed forward round apart: in bfloat16 by more than a first step changes.
        coarse = fresh and self.policy.network.dtype != torch.float32
        known = [torch.tensor([e.sampled and not (coarse and e.round_index == self.index) for e in r]) for r in rows]
        batches = with_sampled(batches, known, self.policy)
        if self.learner.needs_reference and self.learner.reference == "initial":
            batches = with_reference(batches, [True] * len(batches), self.base)
        elif self.learner.needs_reference:
            stale = [not fresh or any(e.round_index != self.index for e in row) for row in rows]
            batches = with_reference(batches, stale, self.policy)
        if self.critic is not None:
            batches = with_values(batches, self.critic)
        self.spent("batching", time.perf_counter() - start)
        return self.batching.steps(batches)

    def stage(
        self,
        name: str | None,
        stage: Stage[Any],
        items: Sequence[Any],
        compute: Callable[[Any], list[Any]],
        sampled: SamplingConfig | None = None,
    ) -> list[Any]:
        """name: under which its time is logged; None: it is not. sampled: how the policy as it stands was sampled, if
        that is what the stage does; before any training, other jobs of a sweep can have the same."""
        common: AbstractContextManager[None] = nullcontext()
        if self.shared is not None and sampled is not None and self.index == self.segment == 0:
            file = self.store.stage_file(0, stage)
            common = self.shared.once(file, repr((sampled, self.chunk, [(p.id, p.text, p.turns) for p in items])))
        with self.bar(name or stage.name, len(items)) as bar, common:
            result = self.store.stage(self.index, stage, items, compute, self.chunk, bar.update, self.segment)
        if name:
            self.spent(name, result.seconds)
        return result.records

    # --- which rounds and whose weights ---------------------------------------------------------------------------
    def prompts(self, index: int) -> Iterator[list[Prompt]]:
        """The fresh prompts of a round, segment by segment."""
        first, end = index * self.prompts_per_round, (index + 1) * self.prompts_per_round
        for start in range(first, end, self.prompts_per_segment):
            yield self.task.prompts("rounds", start, min(self.prompts_per_segment, end - start), self.seed)

    def sampling_round(self) -> int:
        """Whose policy samples this round: that of its own start, or an earlier round's."""
        return max(0, self.index - self.index % self.sync_rounds - self.lag)

    def sampling_policy(self) -> LanguageModel:
        of = self.sampling_round()
        return self.policy if of == self.index else self.history.as_of(of)

    def policy_with(self, weights: PolicyWeights) -> LanguageModel:
        if weights == "live":
            return self.policy
        return self.base if weights == "initial" else self.history.as_of(self.index - 1)

    def attach_judges(self, load: Callable[[Any], LanguageModel]) -> None:
        """Gives each judge what it may know of the run: gold only to one that declares it."""
        for role, judge in (("judge", self.judge), ("heldout_judge", self.heldout_judge)):
            if judge is not None:
                gold = self.task if judge.sees_gold else None
                folder = self.store.directory / role
                judge.attach(JudgeContext(self.seed, self.policy_with, load, gold, folder, self.spare_samples))
        if self.reward_model is not None:
            self.reward_model.attach(JudgeContext(self.seed, self.policy_with, load, None, self.store.directory))

    def spare_samples(self, start: int, count: int, k: int) -> list[Generation]:
        """Of the policy as it was at first, on prompts from the far end of those that the rounds take theirs from."""
        end = self.task.available("rounds") - start
        prompts = self.task.prompts("rounds", end - count, count, self.seed)[::-1]
        config = SamplingConfig(k=k, batch_size=self.sampling.batch_size)
        return sample(self.base, prompts, config, self.task.max_response_tokens, self.seed, "spare samples")

    def last_reward_model(self) -> Path | None:
        """The folder of the reward model before the one to be trained now; None for the first."""
        if self.segment:
            return self.store.round_directory(self.index, self.segment - 1) / "reward_model"
        if not self.index:
            return None
        return self.store.round_directory(self.index - 1, self.segments() - 1) / "reward_model"

    # --- earlier rounds, from the store ---------------------------------------------------------------------------
    def segments(self) -> int:
        """How many segments each round has."""
        return -(-self.prompts_per_round // self.prompts_per_segment)

    def stored_feedback(self, index: int) -> list[Feedback]:
        """What an earlier round was trained on, one per segment."""
        return [self._stored_feedback(index, segment) for segment in range(self.segments())]

    def _stored_feedback(self, index: int, segment: int) -> Feedback:
        generations = self.store.read_stage(index, GENERATIONS, segment)
        prob_beats = preference_matrices(generations, self.store.read_stage(index, JUDGEMENTS, segment))
        scores = None
        if self.learner.reward == "reward_model":  # rewarded anew: the model has learnt since
            assert self.reward_model is not None
            scores = self.reward_model.rewards(generations)[0]
        elif self.learner.reward == "score":
            scores = _score_array(self.store.read_stage(index, SCORES, segment), len(generations))
        return Feedback(
            index,
            generations,
            prob_beats,
            self.store.read_stage(index, PAIRS, segment),
            scores,
            self.store.read_stage(index, REVISIONS, segment),
            self.store.read_stage(index, DEMONSTRATIONS, segment),
            self.pairs_are_revisions(),
        )

    def judged(self, index: int, segments: int | None = None) -> list[RewardExample]:
        """The labelled pairs of an earlier round, or of the first segments of this one."""
        examples = []
        for segment in range(self.segments() if segments is None else segments):
            generations = self.store.read_stage(index, GENERATIONS, segment)
            examples += examples_from(index, generations, self.store.read_stage(index, JUDGEMENTS, segment))
        return examples

    # --- what the round was like --------------------------------------------------------------------------------
    def measure(self, segments: Sequence[Segment]) -> Metrics:
        times = {f"time/{stage}_s": seconds for stage, seconds in self.seconds.items()}
        return round_metrics(self.task, segments) | self.extra | times

    def flops(self, row: Metrics, segments: Sequence[Segment]) -> Metrics:
        """``flops/*`` of what the learner needs: sampling, judging, training, the judge's demonstrations and the reward
        model's training. What is only measured does not count, so a learner that reads no verdicts pays for none; nor
        do the passes of a reference policy and of a critic. nan where a judge's model is not known."""
        size, trained = parameter_count(self.policy.network)
        learner, judge_size = self.learner, self.judge.parameters()

        def read(generations: Sequence[Generation]) -> int:
            prompts = self.policy.encode_prompts([g.prompt for g in generations])
            return sum(map(len, prompts)) + sum(len(r.token_ids) for g in generations for r in g.responses)

        def by_judge(tokens: float) -> float:
            return forward_flops(judge_size, tokens) if judge_size is not None else float("nan") if tokens else 0.0

        sampled = [g for s in segments for g in s.feedback.generations]
        shown = [g for s in segments for g in s.feedback.demonstrations]
        reads_samples = learner.needs_judgements or learner.needs_revisions
        found = {
            "flops/sampling": forward_flops(size, read(sampled)) if reads_samples else 0.0,
            "flops/judging": by_judge(row["tokens/judging"]) if learner.needs_judgements else 0.0,
            "flops/demonstrating": by_judge(read(shown)) if shown else 0.0,
            "flops/training": training_flops(size, trained, row["tokens/training"]),
        }
        if self.reward_model is not None:
            body = parameter_count(self.reward_model.members[0].network)[0]
            found["flops/reward_model"] = training_flops(body, body, row.get("tokens/reward_model", float("nan")))
        return found | {"flops/total": sum(found.values())}

    def samples(
        self, index: int, generations: Sequence[Generation], prob_beats: Floats, prompts: int = 64
    ) -> list[list[Any]]:
        """The first prompts' responses with verdict and gold, for a look: rows of tracking.SAMPLE_COLUMNS."""
        qualities = gold_qualities(self.task, generations[:prompts])
        return [
            [index, g.prompt.text, i, r.text, float(rate), float(quality)]
            for g, rates, row in zip(generations[:prompts], win_rates(prob_beats[:prompts]), qualities, strict=True)
            for i, (r, rate, quality) in enumerate(zip(g.responses, rates, row, strict=True))
        ]

    def stored_samples(self, index: int) -> list[list[Any]]:
        """The same of an earlier round, from the store."""
        generations = self.store.read_stage(index, GENERATIONS)
        judgements = self.store.read_stage(index, JUDGEMENTS)
        return self.samples(index, generations, preference_matrices(generations, judgements)) if generations else []

    def spent(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def bar(self, stage: str, total: int) -> tqdm[Any]:
        return progress.bar(total=total, desc=f"round {self.index}: {stage}")


def _score_array(scores: Sequence[Score], prompts: int) -> Floats:
    """(N, k), nan where the judge gave none."""
    return np.array([np.nan if s.value is None else s.value for s in scores]).reshape(prompts, -1)


class RoundData:
    """What Lightning trains a round on: optimiser steps, computed a segment at a time as training gets there.

    Beyond the last step comes an empty one, which ends the epoch: only after its last segment is it known how many
    steps a round has.
    """

    def __init__(self, rounds: Rounds, index: int, evaluation: Metrics) -> None:
        self.rounds, self.index, self.evaluation = rounds, index, evaluation
        self.segments: list[Segment] = []
        self.prompts = list(rounds.prompts(index))
        self.ready: list[Step] = []
        self.tokens = 0
        self.advance()

    def advance(self) -> None:
        """Computes the next segment."""
        self.rounds.segment = len(self.segments)
        segment, steps = self.rounds.next_segment(self.prompts[len(self.segments)])
        self.segments.append(segment)
        self.ready += steps
        self.tokens += sum(
            int(b.packed.prompt_mask.sum() + b.packed.response_mask.sum()) for step in steps for b in step
        )

    def __len__(self) -> int:
        return max(1, len(self.ready)) if len(self.prompts) == 1 else 1 << 20

    def __getitem__(self, i: int) -> Step:
        while i >= len(self.ready) and len(self.segments) < len(self.prompts):
            self.advance()
        return self.ready[i] if i < len(self.ready) else []

    def metrics(self) -> Metrics:
        """Of the whole round, once it is over. ``tokens/training`` counts a prompt once for all its responses."""
        row = self.evaluation | self.rounds.measure(self.segments) | {"tokens/training": self.tokens}
        return row | self.rounds.flops(row, self.segments)

    def samples(self) -> list[list[Any]]:
        first = self.segments[0].feedback
        return self.rounds.samples(self.index, first.generations, first.prob_beats)
