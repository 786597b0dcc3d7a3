"""One round, readable on one screen:

prompts -> generations -> judgements -> preference pairs -> training -> metrics

``Round.play`` is the first half, up to the steps that Lightning trains on; ``after`` and ``row`` are what is measured
of it. Nothing here changes: which round it is, and which segment of it, is an argument.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rlaif_lab import ranks
from rlaif_lab.audit.in_loop import on_policy_metrics
from rlaif_lab.feedback.base import Collected, Feedback, FeedbackKind, Samples
from rlaif_lab.feedback.matrices import preference_matrices
from rlaif_lab.loop import evaluation, human_set, stages
from rlaif_lab.loop.plan import Parts, Plan, Services, mixing
from rlaif_lab.metrics.cost import round_flops
from rlaif_lab.metrics.round import Segment, round_metrics, view_of
from rlaif_lab.metrics.samples import SampleRow, sample_rows
from rlaif_lab.records import Floats, Metrics, Position, Prompt
from rlaif_lab.store.tables import AHEAD, GENERATIONS, JUDGEMENTS
from rlaif_lab.training.batches import prepare


class Round:
    """The stages of a round, for one policy under one judge."""

    def __init__(self, parts: Parts, plan: Plan, services: Services) -> None:
        self.parts, self.plan, self.services = parts, plan, services
        self.mixing = mixing(parts, plan, services)

    def before(self, index: int) -> Metrics:
        """Open round ``index``: keep its weights, evaluate them, and sample what its training will be compared with."""
        parts, plan, services = self.parts, self.plan, self.services
        # First of all, since a later round, or a judge, may ask for these weights.
        services.weights.keep(index)
        parts.engine.update(parts.policy, version(Position(index)))
        metrics = evaluation.evaluate(index, parts, plan, services)
        if index == 0 and plan.evaluation.final_samples:
            covered, seconds = evaluation.coverage(0, parts, plan, services)
            metrics = metrics | covered | {"time/coverage_s": seconds}
        # Before any step of the optimiser: it is one half of what the detector compares.
        if plan.changes is not None:
            ahead = evaluation.sample_evaluation(index, AHEAD, parts, plan=plan, services=services)
            metrics = metrics | {"time/evaluation_ahead_s": ahead.seconds}
        return metrics | self.by_people(index)

    def play(self, at: Position, prompts: Sequence[Prompt]) -> Segment:
        """Turn prompts into what is trained on, with the current policy."""
        parts, plan, services = self.parts, self.plan, self.services

        # prompts -> generations: k responses to each
        parts.engine.update(parts.policy, version(at))
        sampled = stages.generate(at, prompts, parts, plan=plan, services=services)

        # generations -> judgements: every pair of different responses, in both orders
        judged = stages.judge(at, sampled.records, parts, services)
        # A judge that mostly fails would pass for one at chance: say what is wrong with it first.
        if self.trains_on_judgements:
            services.gate.check_failures(parts.judge, judged.records, at.index)
        # Once, on the first round's samples: later ones are of a policy that this judge has trained.
        if at == Position(0) and self.trains_on_judgements:
            services.gate.check(parts.judge, parts.task, judged.records)

        # judgements -> feedback: who beats whom, pairs, and what else the learner asks for
        beats = preference_matrices(sampled.records, judged.records)
        samples = Samples(prompts, sampled.records, judged.records, beats)
        found = {kind.name: self.collect(kind, at, samples) for kind in parts.kinds}
        collected = {name: kind.value for name, kind in found.items()}
        feedback = Feedback(at.index, sampled.records, beats, collected, self.mixing.pairs_are_revisions)

        # feedback -> examples: the learner's choice, within the budget, with those of earlier rounds
        examples = ranks.on_first(lambda: self.mixing.examples(at, feedback, parts.learner.examples))

        # examples -> the steps of the optimiser
        begun = time.perf_counter()
        steps = prepare(
            at,
            examples,
            parts.models,
            learner=parts.learner,
            batching=plan.batching,
            seed=plan.seed,
            # The weights being trained are those that sampled: their log-probabilities are known.
            fresh=plan.sampling_round(at.index) == at.index,
        )
        # An engine with memory of its own gives it back before the optimiser needs it.
        parts.engine.close()
        batching = time.perf_counter() - begun

        seconds = {"sampling": sampled.seconds, "judging": judged.seconds, "batching": batching}
        seconds |= {name: spent for kind in found.values() for name, spent in kind.seconds.items()}
        extra = {name: value for kind in found.values() for name, value in kind.extra.items()}
        return Segment(feedback, judged.records, examples, steps=steps, seconds=seconds, extra=extra)

    def collect(self, kind: FeedbackKind, at: Position, samples: Samples) -> Collected:
        """Collect one kind of feedback: on rank 0, unless all of it is drawn from the policy."""
        source = self.mixing.source
        if kind.stage is not None and kind.stage.sampled:
            return kind.collect(at, samples, source)
        return ranks.on_first(lambda: kind.collect(at, samples, source))

    def after(self, index: int) -> tuple[Metrics, Floats | None]:
        """Close round ``index``, whose training is over. Return the evaluation of the policy that it made, and for each
        prompt what the training changed; None where that is not measured."""
        # Judges that look at the previous policy, and whoever samples from here on, must see that the round is over.
        self.services.weights.index = index + 1
        self.parts.engine.update(self.parts.policy, version(Position(index + 1)))
        metrics = evaluation.evaluate(index + 1, self.parts, self.plan, self.services)
        return metrics, evaluation.changes_into(index + 1, self.services.store)

    def coverage(self, index: int) -> Metrics:
        """Return pass@k of many samples of the current policy, after the last round."""
        return evaluation.coverage(index, self.parts, self.plan, self.services)[0]

    def by_people(self, index: int, *, last: bool = False) -> Metrics:
        """Return what people say of the current policy on the set that all arms share, in the rounds that they look."""
        return human_set.by_people(index, self.parts, self.plan, services=self.services, last=last)

    def row(self, before: Metrics, segments: Sequence[Segment]) -> Metrics:
        """Return the metrics of a whole round, once it is over. ``tokens/training`` counts a prompt once for all its
        responses."""
        parts = self.parts
        view = view_of(parts.task, segments)
        row = before | round_metrics(view, segments, parts.metrics)
        soft = parts.learner.labels == "soft"  # biases are fitted to the labels that training reads
        row |= on_policy_metrics(view.judgements, view.generations, view.qualities, soft=soft)
        for segment in segments:
            row |= segment.extra
        stages_run = dict.fromkeys(stage for segment in segments for stage in segment.seconds)
        row |= {f"time/{stage}_s": sum(s.seconds.get(stage, 0.0) for s in segments) for stage in stages_run}
        row |= {"tokens/training": sum(segment.trained_tokens() for segment in segments)}
        return row | round_flops(row, segments, self.parts)

    def stored_samples(self, index: int) -> list[SampleRow]:
        """Return the first responses of a stored round, with what the judge and gold say of each."""
        store = self.services.store
        generations, judgements = store.read_stage(index, GENERATIONS), store.read_stage(index, JUDGEMENTS)
        if not generations:
            return []
        return sample_rows(index, generations, preference_matrices(generations, judgements), self.parts.task)

    @property
    def trains_on_judgements(self) -> bool:
        return "judgements" in self.parts.learner.needs and not self.mixing.pairs_are_revisions


def version(at: Position) -> str:
    """Return what an engine calls the policy's weights as they are when this segment is sampled."""
    return f"round {at.index}" + (f", segment {at.segment}" if at.segment else "")
