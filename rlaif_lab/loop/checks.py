"""Checks of a run's parts together: what each part by itself cannot get wrong. Nothing here loads weights."""

from __future__ import annotations

from omegaconf import DictConfig

from rlaif_lab.feedback.kinds import kinds_for
from rlaif_lab.loop.parts import Chosen
from rlaif_lab.models.precision import check_precision
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.tasks.base import Split, Task
from rlaif_lab.training.devices import check_devices, check_ranks
from rlaif_lab.training.settings import check_strategy, check_trainer

# Ten times the usual rate for full fine-tuning; organisms, which are small, take more.
LARGEST_RATE = 1e-4
"""Of AdamW on all weights of a real model."""


def check_together(cfg: DictConfig, chosen: Chosen) -> None:
    """Check combinations of parts. Raises ValueError, one sentence."""
    # The cheapest first, and what needs a tokenizer last: nobody should wait for a message.
    check_devices(chosen.trainer)
    check_ranks(chosen.trainer)
    check_trainer(chosen.trainer)
    adapter = getattr(chosen.policy, "adapter", lambda: None)()
    check_strategy(
        chosen.trainer,
        samples_itself=isinstance(chosen.engine, Exact),
        adapter=adapter is not None,
        values=chosen.learner.needs_values,
    )
    check_precision(chosen.trainer.precision, chosen.trainer.accelerator)
    check_judges(chosen)
    check_learner(cfg, chosen)
    check_prompts(cfg, chosen)
    check_human_set(chosen)
    check_detector(cfg, chosen)
    check_learning_rate(cfg, chosen)
    for source in chosen.sources().values():
        source.check(chosen.task)
    for judge in chosen.judges.values():
        judge.check_tokenizers(lambda w: (chosen.policy if isinstance(w, str) else w).load_tokenizer(chosen.task))


def check_judges(chosen: Chosen) -> None:
    for role, judge in chosen.judges.items():
        if judge.sees_gold and not chosen.task.has_gold:
            raise ValueError(
                f"{role} {judge.name!r} needs gold, and task {chosen.task.name!r} has none; use another judge"
            )


def check_learner(cfg: DictConfig, chosen: Chosen) -> None:
    """Check what the learner needs of the other parts."""
    learner, name = chosen.learner, chosen.learner.name
    if chosen.sampling.k < learner.minimum_k:
        # With fewer, a learner has no pair or no baseline to compare a response with.
        raise ValueError(
            f"sampler.k must be at least {learner.minimum_k} for learner {name!r}: one response has nothing to be "
            f"compared with; got {chosen.sampling.k}"
        )
    sampling = chosen.sampling
    # Greedy decoding, by whichever key: k equal responses make k (k - 1) / 2 ties, and a loop that never learns.
    if sampling.k > 1 and (sampling.top_k == 1 or 0 in (sampling.temperatures or (sampling.temperature,))):
        key = "sampler.top_k=1" if sampling.top_k == 1 else "sampler.temperature=0"
        raise ValueError(
            f"{key} draws the same response sampler.k={sampling.k} times for each prompt, so there is nothing to "
            "choose between; raise it, or set sampler.k=1 for a learner that takes one response"
        )
    for kind in kinds_for(learner.kinds(), chosen.pairing):
        kind.check(chosen.feedback_settings(cfg.seed), name)
    # Restarting within a round would throw away the steps of the segments before.
    if learner.restart == "base" and cfg.sync_every is not None:
        raise ValueError(
            f"learner {name!r} starts each round from the first weights (restart=base), so it cannot sample again "
            f"within a round; got sync_every={cfg.sync_every}"
        )
    if cfg.lag and cfg.sync_every is not None:
        raise ValueError(f"lag={cfg.lag} and sync_every={cfg.sync_every} both say whose policy samples: set one")


def check_prompts(cfg: DictConfig, chosen: Chosen) -> None:
    """Check that every round and every evaluation has fresh prompts, and a judge those that it needs for itself."""
    task = chosen.task
    # One evaluation more than rounds: the policy is measured before the first and after the last.
    needs: tuple[tuple[Split, int, int, int], ...] = (
        ("rounds", cfg.rounds, cfg.prompts_per_round, max(judge.spare_prompts for judge in chosen.judges.values())),
        ("evaluation", cfg.rounds + 1, cfg.evaluation.prompts, 0),
    )
    for split, rounds, each, spare in needs:
        if each < 1:
            raise ValueError(f"{split}.prompts must be at least 1; got {each}")
        # A prompt that comes twice is no longer fresh, which is what evaluation and detector rest on.
        if rounds * each + spare > task.available(split):
            key = "prompts_per_round" if split == "rounds" else "evaluation.prompts"
            fits = max(0, task.available(split) - spare) // rounds
            ways = ["lower rounds"] + ([f"set {key}={fits}"] if fits else [])
            if getattr(task, "repeat", None) is False and task.distinct(split):
                ways.append("set task.repeat=true")
            needed = f"{rounds} x {each}" + (f" and {spare} for the judge" if spare else "")
            raise ValueError(
                f"task {task.name!r} has {task.available(split)} prompts in its {split!r} split, but {needed} fresh "
                f"ones are needed; {', or '.join(ways)}"
            )


def check_human_set(chosen: Chosen) -> None:
    """Check that the set has prompts, and that who labels it can."""
    wanted, task = chosen.human_set, chosen.task
    if wanted is None:
        return
    if wanted.prompts > task.available("evaluation"):
        raise ValueError(
            f"human_set.prompts must be at most {task.available('evaluation')}, the prompts in the 'evaluation' split "
            f"of task {task.name!r}; got {wanted.prompts}"
        )
    if wanted.by.sees_gold and not task.has_gold:
        raise ValueError(
            f"human_set.by {wanted.by.name!r} needs gold, and task {task.name!r} has none; use people "
            "(judge@human_set.by=people)"
        )


def repeated_evaluation(cfg: DictConfig, task: Task) -> str:
    """Say that evaluation prompts come again, and from when; nothing where all are fresh."""
    held, needed = task.distinct("evaluation"), (cfg.rounds + 1) * cfg.evaluation.prompts
    if not task.repeats or needed <= held:
        return ""
    return (
        f"task {task.name!r} has {held} evaluation prompts, and {cfg.rounds} rounds with evaluation.prompts="
        f"{cfg.evaluation.prompts} ask {needed}, so that they come again from round {held // cfg.evaluation.prompts} on"
    )


def check_detector(cfg: DictConfig, chosen: Chosen) -> None:
    """Refuse a detector that could not detect anything where the run depends on it."""
    detector = chosen.detector
    if detector is None:
        return
    again = repeated_evaluation(cfg, chosen.task)
    if again and detector.stop_on_plateau:
        raise ValueError(
            f"detector.stop_on_plateau: {again}, and what is measured on the same prompts again is not independent, so "
            "the detector's alpha would not hold; lower rounds or evaluation.prompts, or set "
            "detector.stop_on_plateau=false"
        )
    if again:
        print(f"note: {again}: the detector's alarms do not keep their alpha", flush=True)
    # alpha is shared out over the horizon (a threshold of horizon / alpha): beyond it, nothing is promised.
    if cfg.rounds > detector.horizon:
        raise ValueError(
            f"detector.horizon={detector.horizon} rounds is what the detector's alpha is good for, but rounds="
            f"{cfg.rounds}; set detector.horizon to at least that"
        )
    if detector.measure == "heldout_judge" and chosen.heldout_judge is None:
        raise ValueError("detector.measure=heldout_judge needs a held-out judge, e.g. judge@heldout_judge=stronger")
    if detector.measure == "people":
        check_people(cfg, chosen, detector.delta)
    if detector.stop_on_plateau and detector.measure == "gold" and not chosen.task.has_gold:
        raise ValueError(
            f"detector.stop_on_plateau needs gold, and task {chosen.task.name!r} has none; use "
            "detector.measure=heldout_judge with a held-out judge"
        )


def check_people(cfg: DictConfig, chosen: Chosen, delta: float) -> None:
    """Refuse to measure by people who are not asked, and say how far their labels carry."""
    from rlaif_lab.judges.wrappers.human_budget import HumanBudget
    from rlaif_lab.statistics.ppi import labels_for

    judge = chosen.judge
    if not isinstance(judge, HumanBudget) or not judge.asks_people_to_evaluate:
        raise ValueError(
            "detector.measure=people needs people who are asked to evaluate: judge=human_budget judge.use=evaluate "
            "(or both), with judge@judge.human=people for real ones"
        )
    # A preference in [-1, 1] has a standard deviation of at most 1: no more labels than these, whatever people say.
    each, need = judge.share * chosen.evaluation.prompts, labels_for(delta)
    print(
        f"note: people say of about {each:.0f} answers a round whether training has changed them for the better; to "
        f"tell a gain of detector.delta={delta:g} a round from none takes up to {need:,} such labels over all rounds "
        f"and seeds ({need / max(each, 1e-9):,.0f} rounds)",
        flush=True,
    )


def check_learning_rate(cfg: DictConfig, chosen: Chosen) -> None:
    """Refuse for a real model what an organism needs: it would ruin it within a few steps."""
    from rlaif_lab.models.hf import HFModel

    policy, rate = chosen.policy, chosen.trainer.learning_rate
    whole = isinstance(policy, HFModel) and policy.adapter() is None and policy.where.is_large()
    if whole and rate > LARGEST_RATE and not cfg.gate.force:
        raise ValueError(
            f"trainer.learning_rate={rate:g} is too high for all weights of a real model (1e-5 is usual, and "
            f"{LARGEST_RATE:g} the most that is taken): lower it, train an adapter (policy.lora.r=16), or insist with "
            "gate.force=true"
        )
