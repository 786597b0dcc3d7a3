"""From a config to the parts of a run: first what loads no weights, then, once that is checked, the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from rlaif_lab import ranks
from rlaif_lab.config import build
from rlaif_lab.feedback.base import Settings
from rlaif_lab.feedback.kinds import kinds_for
from rlaif_lab.feedback.pairing import Pairing
from rlaif_lab.feedback.replay import Replay
from rlaif_lab.judges.base import Judge
from rlaif_lab.learners.base import Learner
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.loop.gate import Gate
from rlaif_lab.metrics.base import Metric
from rlaif_lab.models.sources import ModelSource, Organism
from rlaif_lab.plateau.detector import ChangeMeasure, Detector
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import Engine, sample
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.sweep_cache import SweepCache
from rlaif_lab.tasks.base import ProceduralTask, Task
from rlaif_lab.tracking.alarms import Watch
from rlaif_lab.tracking.base import Tracker
from rlaif_lab.tracking.naming import sweep_of
from rlaif_lab.training.settings import TrainerConfig

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from rlaif_lab.audit.bank import PairBank
    from rlaif_lab.audit.pairs import LabelledPair
    from rlaif_lab.feedback.revision import RevisionConfig
    from rlaif_lab.loop.plan import Parts, Plan, Services
    from rlaif_lab.loop.round import Round
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.people.human_set import HumanSet, SharedSet
    from rlaif_lab.records import Generation
    from rlaif_lab.reward.model import RewardModel


@dataclass(frozen=True)
class Chosen:
    """What a config chooses of each family, without any weights."""

    task: Task
    policy: ModelSource
    judge: Judge
    heldout_judge: Judge | None
    learner: Learner
    sampling: SamplingConfig
    engine: Engine
    pairing: Pairing
    replay: Replay
    reward_model: RewardModel | None
    revision: RevisionConfig | None
    bank: PairBank | None
    trainer: TrainerConfig
    watch: Watch
    detector: Detector | None
    tracker: Tracker
    evaluation: Evaluation
    human_set: HumanSet | None = None
    metrics: Sequence[Metric] = ()
    callbacks: Sequence[Callback] = ()

    @property
    def judges(self) -> dict[str, Judge]:
        """Return, by role, those that there are."""
        found = {"judge": self.judge, "heldout_judge": self.heldout_judge}
        return {role: judge for role, judge in found.items() if judge is not None}

    def sources(self) -> dict[str, ModelSource]:
        """Return every model this run needs, by its role."""
        found = {"policy": self.policy}
        for role, part in (*self.judges.items(), ("reward_model", self.reward_model)):
            for i, source in enumerate(part.sources() if part is not None else []):
                found[f"{role.replace('_', ' ')} {i}"] = source
        return found

    def feedback_settings(self, seed: int) -> Settings:
        return Settings(
            seed=seed,
            task=self.task,
            judge=self.judge,
            sampling=self.sampling,
            pairing=self.pairing,
            reward_model=self.reward_model,
            revision=self.revision,
        )

    def measured_changes(self) -> ChangeMeasure | None:
        """Return what the detector measures the change of a round by; None where there is no detector, or nothing to
        measure it by."""
        if self.detector is None or (self.detector.measure == "gold" and not self.task.has_gold):
            return None
        return self.detector.measure

    def labelled_pairs(self, untrained: LanguageModel) -> list[LabelledPair]:
        """Return the bank's pairs; none where it is made by demonstrators that the task has not.

        untrained: the initial policy, whose answers some banks are made of.
        """
        from rlaif_lab.audit.sampled import pairs_of

        return [] if self.bank is None else pairs_of(self.bank, self.task, untrained, self.engine)


def choose(cfg: DictConfig) -> Chosen:
    """Build what loads no weights. Raises ValueError for what is wrong with one part."""
    learner: Learner = build(cfg.learner, "learner")
    reward_model: RewardModel = build(cfg.reward_model, "reward_model")
    return Chosen(
        task=build(cfg.task, "task"),
        policy=build(cfg.policy, "policy"),
        judge=build(cfg.judge, "judge"),
        heldout_judge=cfg.heldout_judge and build(cfg.heldout_judge, "heldout_judge"),
        learner=learner,
        sampling=build(cfg.sampler, "sampler"),
        engine=build(cfg.engine, "engine"),
        pairing=build(cfg.pairing, "pairing"),
        replay=build(cfg.replay, "replay"),
        # Checked in any case, but left out where the learner does not ask for it: its weights are not loaded then.
        reward_model=reward_model if learner.reward == "reward_model" else None,
        revision=cfg.revision and build(cfg.revision, "revision"),
        bank=cfg.bank and build(cfg.bank, "bank"),
        trainer=build(cfg.trainer, "trainer"),
        watch=build(cfg.watch, "watch"),
        detector=cfg.detector and build(cfg.detector, "detector"),
        tracker=build(cfg.logger, "logger"),
        evaluation=Evaluation(**cfg.evaluation),
        human_set=cfg.human_set and build(cfg.human_set, "human_set"),
        callbacks=[build(node, f"callbacks.{name}") for name, node in (cfg.callbacks or {}).items()],
        metrics=[build(node, f"metrics.{name}") for name, node in (cfg.metrics or {}).items()],
    )


def build_organisms(chosen: Chosen) -> None:
    """Pretrain the organisms among a run's models that have not been pretrained before."""
    from rlaif_lab.models.organism.cache import build_missing

    # All that are missing at once: where another job pretrains one of them, this one takes the next.
    organisms = [
        recipe
        for source in chosen.sources().values()
        if isinstance(source, Organism) and (recipe := source.missing_recipe(chosen.task))
    ]
    if organisms:
        assert isinstance(chosen.task, ProceduralTask)
        build_missing(chosen.task, organisms)
    for role, source in chosen.sources().items():
        if isinstance(source, Organism):
            source.tell_unlearnt(chosen.task, role)


def organism_weights(chosen: Chosen) -> dict[str, str]:
    """Return the hash of each organism's weights, by its role: pretraining is not bit-equal across machines, so that a
    recipe alone does not say which model a run had."""
    return {
        role: source.weights_hash(chosen.task)
        for role, source in chosen.sources().items()
        if isinstance(source, Organism)
    }


def make_round(cfg: DictConfig, chosen: Chosen, store: RoundStore, cache: SweepCache | None) -> Round:
    """Load the policy's weights, and put together what plays the rounds."""
    from rlaif_lab.loop.plan import Parts, Plan
    from rlaif_lab.models.precision import set_precision
    from rlaif_lab.training.batches import Batching

    policy, base = chosen.policy.load_trainable(chosen.task, cfg.seed)
    # Both alike: as long as nothing is trained, their log-probabilities have to be equal.
    for model in (policy, base):
        set_precision(model.network, chosen.trainer.precision)
    parts = Parts(
        policy=policy,
        base=base,
        judge=chosen.judge,
        heldout_judge=chosen.heldout_judge,
        learner=chosen.learner,
        task=chosen.task,
        engine=chosen.engine,
        kinds=kinds_for(chosen.learner.kinds(), chosen.pairing),
        reward_model=chosen.reward_model,
        # The base policy is the initial one, whose answers some banks consist of.
        bank=chosen.labelled_pairs(base),
        metrics=chosen.metrics,
        human_set=shared_set(chosen, store.directory),
    )
    plan = Plan(
        seed=cfg.seed,
        prompts_per_round=cfg.prompts_per_round,
        sampling=chosen.sampling,
        pairing=chosen.pairing,
        batching=Batching(chosen.trainer.batch_size, chosen.trainer.accumulate, chosen.trainer.passes),
        evaluation=chosen.evaluation,
        replay=chosen.replay,
        revision=chosen.revision,
        sync_every=cfg.sync_every,
        lag=cfg.lag,
        changes=chosen.measured_changes(),
    )

    def load(source: ModelSource) -> LanguageModel:
        if source.identity(chosen.task) == chosen.policy.identity(chosen.task):
            return base  # one copy of the weights for what is one model
        model = source.load(chosen.task)
        # Judges are frozen: no optimiser sees them, and no gradient is kept.
        model.network.requires_grad_(False)
        return model

    return assemble(parts, plan, store, load=load, gate=Gate(**cfg.gate), cache=cache)


def shared_set(chosen: Chosen, directory: Path) -> SharedSet | None:
    """Return the set by which people measure all arms of a sweep, as the run in this folder has it."""
    from rlaif_lab.people.human_set import FOLDER, SharedSet

    settings = chosen.human_set
    if settings is None:
        return None
    policy, task = chosen.policy.identity(chosen.task), chosen.task.identity()
    identity = repr((policy, task, chosen.task.max_response_tokens, settings.prompts, settings.pairs, settings.seed))
    return SharedSet(settings, (sweep_of(directory) or directory) / FOLDER, identity)


def assemble(
    parts: Parts,
    plan: Plan,
    store: RoundStore,
    *,
    load: Callable[[Any], LanguageModel],
    gate: Gate | None = None,
    cache: SweepCache | None = None,
) -> Round:
    """Put together what plays the rounds, and give each judge what it may know of the run.

    Args:
        load: a judge's model from its source.
        gate: what refuses a judge at chance; None: the default one.
        cache: what the jobs of a sweep share.
    """
    from rlaif_lab.loop.plan import Services
    from rlaif_lab.loop.round import Round
    from rlaif_lab.loop.stages import Stages
    from rlaif_lab.loop.weights import PolicySnapshots
    from rlaif_lab.models.critic import Critic

    # The critic's body is a copy of the initial policy's.
    if parts.critic is None and parts.learner.needs_values:
        parts = replace(parts, critic=Critic(parts.base, plan.seed))
    reach = plan.reach(list(parts.judges.values()))
    weights = PolicySnapshots(parts.policy, parts.base, store, reach)
    services = Services(store, weights, Stages(store, cache), gate or Gate())
    if ranks.first():  # the only one that asks judges
        attach(parts, plan, services, load)
    return Round(parts, plan, services)


def attach(parts: Parts, plan: Plan, services: Services, load: Callable[[Any], LanguageModel]) -> None:
    """Give each judge what it may know of the run: gold only to one that declares it."""
    from rlaif_lab.models.access import JudgeContext

    spare = functools.partial(spare_samples, parts, plan)
    policy, directory = services.weights.policy_with, services.store.directory
    for role, judge in parts.judges.items():
        gold = parts.task if judge.sees_gold else None
        context = JudgeContext(plan.seed, policy, load, gold=gold, directory=directory / role, spare_samples=spare)
        judge.attach(replace(context, engine=parts.engine))
    if (shared := parts.human_set) is not None:
        by, folder = shared.settings.by, shared.folder
        gold = parts.task if by.sees_gold else None
        by.attach(JudgeContext(shared.settings.seed, policy, load, gold=gold, directory=folder))
    if parts.reward_model is not None:
        # A reward model has no engine and never sees gold.
        parts.reward_model.attach(JudgeContext(plan.seed, policy, load, None, directory))


def spare_samples(parts: Parts, plan: Plan, start: int, count: int, k: int) -> list[Generation]:
    """Sample the initial policy on prompts from the far end of those that the rounds take theirs from."""
    task = parts.task
    end = task.available("rounds") - start
    # Counted from the far end, so that a larger `count` adds to the prompts of a smaller one, and rounds reach them
    # last.
    prompts = task.prompts("rounds", end - count, count, plan.seed)[::-1]
    config = SamplingConfig(k=k, batch_size=plan.sampling.batch_size)
    return sample(
        parts.engine,
        parts.base,
        prompts,
        config=config,
        limit=task.max_response_tokens,
        identity=(plan.seed, "spare samples"),
    )
