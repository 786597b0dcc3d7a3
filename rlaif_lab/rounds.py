"""The main path: one round, readable on one screen.

prompts -> generations -> judgements -> preference pairs -> training data        (Lightning trains on it)
"""

from __future__ import annotations

import copy
import functools
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from rlaif_lab.evaluation import Evaluation, evaluate, gold_qualities
from rlaif_lab.judges.base import Judge, JudgeContext, PolicyWeights, judge_generations
from rlaif_lab.learners.base import Batch, Example, Learner
from rlaif_lab.metrics.gap import best_of_k_gap, pairwise_gap
from rlaif_lab.metrics.judge import judge_metrics
from rlaif_lab.metrics.text import text_metrics
from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.pairing import Floats, Pairing, make_pairs, preference_matrices, win_rates, within_budget
from rlaif_lab.records import Generation, Judgement, PreferencePair, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.sampler import sample
from rlaif_lab.seeding import rng_for, seed_for
from rlaif_lab.store import GENERATIONS, JUDGEMENTS, PAIRS, RoundStore, write_atomically
from rlaif_lab.tasks.base import Task

Metrics = dict[str, float]


@dataclass
class Rounds:
    """The stages of a round, for one policy under one judge. Every stage is idempotent: what the store holds is
    loaded, never computed again.

    policy: the weights being trained. base: a frozen copy of what they were at first.
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
    batch_size: int
    passes: int = 1
    chunk: int = 256

    def __post_init__(self) -> None:
        self.index = 0
        self.seconds: dict[str, float] = {}

    # --- the round --------------------------------------------------------------------------------------------
    def run(self, index: int) -> RoundData:
        """Everything of round ``index`` up to its training, with the policy as it stands."""
        self.index = index
        self.keep_policy()
        evaluation = self.evaluate(index)
        prompts = self.task.prompts("rounds", index * self.prompts_per_round, self.prompts_per_round, self.seed)
        generations = self.generate(prompts)
        judgements = self.judge_all(generations)
        prob_beats = preference_matrices(generations, judgements)
        pairs = self.pair(generations, prob_beats)
        examples = self.within_budget(self.learner.examples(generations, prob_beats, pairs), generations)
        data = self.training_data(generations, examples)
        data.metrics = evaluation | self.measure(generations, judgements, prob_beats, pairs, examples) | self.times()
        data.metrics["tokens/training"] = data.tokens()
        data.samples = self.samples(index, generations, prob_beats)
        return data

    def evaluate(self, index: int) -> Metrics:
        """Metrics of the policy as it stands, which is that of round ``index``."""
        self.index = index
        prompts = self.task.prompts("evaluation", index * self.evaluation.prompts, self.evaluation.prompts, self.seed)

        def compute() -> Metrics:
            start = time.perf_counter()
            with self.bar("evaluating", 2) as bar:
                metrics = evaluate(
                    self.policy,
                    self.base,
                    self.judge,
                    self.task,
                    prompts,
                    self.evaluation,
                    self.seed,
                    index,
                    bar.update,
                )
            return metrics | {"time/evaluation_s": time.perf_counter() - start}

        return self.store.once(index, "evaluation", compute)

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        def compute(some: Sequence[Prompt]) -> list[Generation]:
            limit = self.task.max_response_tokens
            return sample(self.policy, some, self.sampling, limit, self.seed, "rounds", self.index)

        with self.bar("generating", len(prompts)) as bar:
            result = self.store.stage(self.index, GENERATIONS, prompts, compute, self.chunk, bar.update)
        self.seconds["sampling"] = result.seconds
        return result.records

    def judge_all(self, generations: Sequence[Generation]) -> list[Judgement]:
        with self.bar("judging", len(generations)) as bar:
            compute = functools.partial(judge_generations, self.judge)
            result = self.store.stage(self.index, JUDGEMENTS, generations, compute, self.chunk, bar.update)
        self.seconds["judging"] = result.seconds
        return result.records

    def pair(self, generations: Sequence[Generation], prob_beats: Floats) -> list[PreferencePair]:
        positions = range(len(generations))

        def compute(some: Sequence[int]) -> list[PreferencePair]:
            return make_pairs(
                [generations[i] for i in some], prob_beats[list(some)], self.pairing, self.seed, self.index
            )

        return self.store.stage(self.index, PAIRS, positions, compute, chunk=len(generations)).records

    def within_budget(self, examples: list[Example], generations: Sequence[Generation]) -> list[Example]:
        """At most ``pairing.budget`` examples, so that learners that read whole groups keep to it as well; which ones
        is decided by the prompt."""
        return within_budget(
            examples,
            self.pairing.budget,
            lambda e: seed_for("budget", self.seed, self.index, generations[e.generation].prompt.id),
        )

    def training_data(self, generations: Sequence[Generation], examples: Sequence[Example]) -> RoundData:
        """Batches in an order decided by (seed, round, pass), the reference policy's log-probabilities included."""
        prompt_ids = self.policy.encode_prompts([generations[e.generation].prompt.text for e in examples])
        responses = [[generations[e.generation].responses[s] for s in e.samples] for e in examples]
        order = [
            int(i)
            for number in range(self.passes)
            for i in rng_for(self.seed, "training order", self.index, number).permutation(len(examples))
        ]
        batches = []
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            packed = pack(
                [prompt_ids[i] for i in rows], [[r.token_ids for r in responses[i]] for i in rows], self.policy.pad_id
            )
            length = packed.response_ids.shape[2]
            sampled = torch.tensor([[r.logps + (0.0,) * (length - len(r.logps)) for r in responses[i]] for i in rows])
            signal = torch.tensor([examples[i].signal for i in rows])
            batches.append(Batch(packed, sampled, sampled, signal))
        if self.learner.reference == "initial":
            batches = self.with_initial_reference(batches)
        return RoundData(self.index, batches)

    def with_initial_reference(self, batches: Sequence[Batch]) -> list[Batch]:
        """The frozen base policy's log-probabilities in place of those recorded while sampling."""
        start = time.perf_counter()
        device = self.base.device
        with inference(self.base.network):
            logps = [response_logps(self.base.network, batch.packed.to(device)).cpu() for batch in batches]
        self.seconds["reference"] = time.perf_counter() - start
        return [
            Batch(b.packed, b.sampled_logps, reference, b.signal) for b, reference in zip(batches, logps, strict=True)
        ]

    # --- what the round was like --------------------------------------------------------------------------------
    def measure(
        self,
        generations: Sequence[Generation],
        judgements: Sequence[Judgement],
        prob_beats: Floats,
        pairs: Sequence[PreferencePair],
        examples: Sequence[Example],
    ) -> Metrics:
        """On-policy metrics of the round's own samples."""
        qualities = gold_qualities(self.task, generations)
        gap = pairwise_gap(qualities, prob_beats)
        absolute, relative = best_of_k_gap(qualities, prob_beats)
        k = self.sampling.k
        return {
            "judge/accuracy": gap.accuracy,
            **judge_metrics(judgements),
            "gap/best_of_2": gap.gap,
            "gap/diversity_D": gap.diversity,
            "gap/informativeness_I": gap.informativeness,
            f"gap/best_of_{k}": absolute,
            "gap/relative": relative,
            "pairs/discordant_rate": gap.discordant_rate,
            "pairs/judged": len(judgements),
            "pairs/duplicate_rate": 1.0 - len(judgements) / (len(generations) * k * (k - 1) / 2) if k > 1 else 0.0,
            "pairs/count": len(pairs),
            "pairs/examples": len(examples),
            **text_metrics(generations),
            "tokens/sampling": sum(len(r.token_ids) for g in generations for r in g.responses),
            "tokens/judging": sum(j.tokens for j in judgements),
        }

    def samples(
        self, index: int, generations: Sequence[Generation], prob_beats: Floats, prompts: int = 64
    ) -> list[list[Any]]:
        """The first prompts' responses with verdict and gold, for a look: rows of tracking.SAMPLE_COLUMNS."""
        return [
            [index, g.prompt.text, i, r.text, float(rate), self.task.quality(g.prompt, r.text)]
            for g, rates in zip(generations[:prompts], win_rates(prob_beats[:prompts]), strict=True)
            for i, (r, rate) in enumerate(zip(g.responses, rates, strict=True))
        ]

    def stored_samples(self, index: int) -> list[list[Any]]:
        """The same of an earlier round, from the store."""
        generations = self.store.stored(index, GENERATIONS)
        judgements = self.store.stored(index, JUDGEMENTS)
        return self.samples(index, generations, preference_matrices(generations, judgements)) if generations else []

    def times(self) -> Metrics:
        return {f"time/{stage}_s": seconds for stage, seconds in self.seconds.items()}

    def bar(self, stage: str, total: int) -> tqdm[Any]:
        return tqdm(total=total, desc=f"round {self.index}: {stage}", disable=None, leave=False)

    # --- whose weights judge --------------------------------------------------------------------------------------
    def attach_judge(self, load: Callable[[Any], LanguageModel]) -> None:
        """Gives the judge what it may know of the run: gold only to one that declares it."""
        gold = self.task if self.judge.sees_gold else None
        self.judge.attach(JudgeContext(self.seed, self.policy_with, load, gold))

    def policy_with(self, weights: PolicyWeights) -> LanguageModel:
        if weights == "live":
            return self.policy
        if weights == "initial" or self.index == 0:
            return self.base
        return _load_snapshot(self.snapshot(self.index - 1), self.base)

    def snapshot(self, index: int) -> Path:
        return self.store.round_directory(index) / "policy.pt"

    def keep_policy(self) -> None:
        """Writes the weights at round start, if a judge will want them a round later."""
        path = self.snapshot(self.index)
        if self.judge.needs_previous_policy() and not path.exists():
            buffer = io.BytesIO()
            torch.save(self.policy.network.state_dict(), buffer)
            write_atomically(path, buffer.getvalue())


@dataclass
class RoundData:
    """What Lightning trains a round on. An empty round still yields one batch, of None, which Lightning skips."""

    index: int
    batches: list[Batch]
    metrics: Metrics = field(default_factory=dict)
    samples: list[list[Any]] = field(default_factory=list)

    def tokens(self) -> int:
        """Tokens gone through in training; a prompt counts once for all its responses."""
        return sum(int(b.packed.prompt_mask.sum() + b.packed.response_mask.sum()) for b in self.batches)

    def __len__(self) -> int:
        return max(1, len(self.batches))

    def __getitem__(self, i: int) -> Batch | None:
        return self.batches[i] if self.batches else None


@functools.lru_cache(maxsize=1)
def _load_snapshot(path: Path, base: LanguageModel) -> LanguageModel:
    network = copy.deepcopy(base.network)
    network.load_state_dict(torch.load(path, map_location=base.device, weights_only=True))
    return LanguageModel(network, base.tokenizer, "previous policy")
