"""A judge that is a reward model learnt from another judge's labels: what it learns, from which, and only once."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ScriptedJudge, generation
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlaif_lab.config import build, config_dir
from rlaif_lab.judges.asking import both_orders, judge_generations
from rlaif_lab.judges.oracle import ReversedJudge
from rlaif_lab.judges.proxy import ProxyJudge
from rlaif_lab.judges.wrappers.human_budget import HumanBudget
from rlaif_lab.judges.wrappers.panel import Panel
from rlaif_lab.loop.run import Run
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Generation, Verdict
from rlaif_lab.reward.model import RewardModel
from rlaif_lab.reward.sources import RewardFolder
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.arithmetic import Addition

Samples = Callable[[int, int, int], list[Generation]]


@pytest.fixture
def spare(untrained: LanguageModel, task: Addition) -> Samples:
    def samples(start: int, count: int, k: int) -> list[Generation]:
        prompts = task.prompts("rounds", start, count, 0)
        return sample(untrained, prompts, SamplingConfig(k=k), task.max_response_tokens, 0, "spare")

    return samples


def config(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def longer() -> ScriptedJudge:
    """Prefers the longer one."""

    def say(c: Comparison) -> Verdict:
        a, b = len(c.first), len(c.second)
        return Verdict(0.5, "tie") if a == b else Verdict(float(a > b))

    judge = ScriptedJudge(say)
    judge.identity = lambda: "longer"  # type: ignore[method-assign]
    return judge


def proxy(
    of: Any, model: LanguageModel, folder: Path, spare: Samples | None, gold: Any = None, **fields: Any
) -> ProxyJudge:
    judge = ProxyJudge(of, RewardModel(batch_size=16, passes=6, learning_rate=3e-3), **fields)

    def load(source: Any) -> LanguageModel:
        assert isinstance(source, RewardFolder)
        return source.load(gold)

    judge.attach(JudgeContext(0, lambda name: model, load, gold, folder, spare))
    return judge


def test_it_learns_to_judge_as_the_one_who_labelled(
    untrained: LanguageModel, task: Addition, spare: Samples, tmp_path: Path
) -> None:
    teacher = longer()
    judge = proxy(teacher, untrained, tmp_path, spare, gold=task, labels=400)
    assert teacher.context is not None and teacher.context.gold is task, "who labels may see gold; the proxy does not"
    asked = len(teacher.asked)
    fresh = sample(untrained, task.prompts("evaluation", 0, 60, 0), SamplingConfig(k=3), 5, 1, "fresh")
    agreed = [
        (j.prob_first_wins > 0.5) == (len(j.comparison.first) > len(j.comparison.second))
        for j in judge_generations(judge, fresh)
        if len(j.comparison.first) != len(j.comparison.second)
    ]
    assert len(agreed) > 60 and sum(agreed) / len(agreed) > 0.75
    assert len(teacher.asked) == asked, "it is asked before the first round and never again"
    first, second = judge.scores([(fresh[0].prompt, "1234"), (fresh[0].prompt, "1")])
    assert first.value > second.value  # type: ignore[operator]


def test_it_is_learnt_once_and_found_again(
    untrained: LanguageModel, spare: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_LAB_CACHE", str(tmp_path / "cache"))
    pairs = [Comparison(generation("1+2=", "3").prompt, a, b) for a, b in (("1", "22"), ("333", "4"))]

    def learnt(folder: str, **fields: Any) -> tuple[list[float | None], int]:
        """What it says, and how many questions its teacher was asked."""
        judge = proxy(teacher := longer(), untrained, tmp_path / folder, spare, **({"labels": 40} | fields))
        return [v.prob_first_wins for v in judge.verdicts(pairs)], len(teacher.asked)

    said, asked = learnt("run")
    assert asked > 0
    assert learnt("run") == (said, 0), "a resumed run has it"
    shutil.rmtree(tmp_path / "run" / "proxy" / "member_0")
    (tmp_path / "run" / "proxy" / "metrics.json").unlink()
    assert learnt("run") == (said, 0) and learnt("another run") == (said, 0), "and so has the lab's cache"
    assert learnt("more labels", labels=41)[1] > 0 and learnt("more samples", k=3)[1] > 0
    shutil.rmtree(tmp_path / "cache")
    assert learnt("a third run") == (said, asked), "what is learnt is decided by what it is learnt from"
    assert not list((tmp_path / "cache" / "proxies").glob(".*"))


def test_more_labels_are_those_of_fewer_and_further_ones(untrained: LanguageModel, spare: Samples) -> None:
    few, many = (ProxyJudge(longer(), RewardModel(), labels=n).examples(spare) for n in (50, 300))
    assert many[: len(few)] == few
    teacher = ScriptedJudge(lambda c: Verdict(1.0 if c.first < c.second else 0.0))
    for labels in (1, 37, 300):
        assert len(ProxyJudge(teacher, RewardModel(), labels=labels).examples(spare)) == labels


def test_its_reward_is_logged_against_round_0(untrained: LanguageModel, spare: Samples, tmp_path: Path) -> None:
    judge = proxy(longer(), untrained, tmp_path, spare, labels=40)
    prompt = generation("1+2=", "3").prompt
    pairs = [Comparison(prompt, "1", "22"), Comparison(prompt, "333", "4")]
    metrics = judge.own_metrics(pairs, both_orders(judge, pairs), identical=2)
    score = {text: judge.scores([(prompt, text)])[0].value for text in ("1", "22", "333", "4")}
    expected = (score["1"] - score["22"] + score["333"] - score["4"]) / 4  # type: ignore[operator]
    assert metrics["judge/mean_score"] == pytest.approx(expected, abs=1e-6)
    assert 0 < metrics["proxy/labels"] <= 40 and metrics["proxy/accuracy"] >= 0
    assert judge.own_metrics([], [], 5)["judge/mean_score"] == 0.0


def test_a_teacher_without_preferences_teaches_nothing(
    untrained: LanguageModel, spare: Samples, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="none of 20 labels prefers"):
        proxy(ScriptedJudge(lambda c: Verdict(0.5, "tie")), untrained, tmp_path, spare, labels=20)
    with pytest.raises(ValueError, match="judge=reward_model"):
        proxy(longer(), untrained, tmp_path, None)
    for settings in ({"labels": 0}, {"k": 1}):
        with pytest.raises(ValueError, match="at least"):
            ProxyJudge(longer(), RewardModel(), **settings)  # type: ignore[arg-type]


def test_the_prompts_it_needs_are_asked_for_through_every_wrapper() -> None:
    judge = ProxyJudge(longer(), RewardModel(), labels=70)
    wrapped = [ReversedJudge(judge), HumanBudget(judge, longer()), Panel({"a": judge, "b": longer()})]
    assert [w.spare_prompts for w in (judge, *wrapped)] == [70] * 4
    assert longer().spare_prompts == 0


@pytest.mark.parametrize(("learner", "reward"), [("dpo", None), ("rloo", "score"), ("best_of_n", "score")])
def test_every_learner_takes_it_and_a_task_too_small_for_it_is_refused(
    learner: str, reward: str | None, tmp_path: Path
) -> None:
    overrides = ["judge=proxy", f"learner={learner}", *([f"learner.reward={reward}"] if reward else [])]
    overrides += ["logger=none", "task.digits=2", "rounds=2", "prompts_per_round=100", "evaluation.prompts=10"]
    available = Addition(2).available("rounds")
    Run(config(*overrides, f"judge.labels={available - 200}"), tmp_path / "fits")
    with pytest.raises(ValueError, match=f"2 x 100 and {available - 199} for the judge"):
        Run(config(*overrides, f"judge.labels={available - 199}"), tmp_path / "does not")


def test_its_reward_model_is_chosen_from_the_group() -> None:
    judge = build(config("judge=proxy", "reward_model@judge.reward_model=small").judge, "judge")
    (body,) = judge.sources()
    assert body.width == 48 and judge.reward_model.training.passes == 8
    assert not math.isnan(judge.labels) and judge.sees_gold
