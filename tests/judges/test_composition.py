"""Judges put together on the command line, and whatever they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_model import make_chat_model
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from rlaif_lab.config import build, check_target, config_dir, targets
from rlaif_lab.judges.annotator import SimulatedAnnotator
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.oracle import OracleJudge, RandomJudge
from rlaif_lab.judges.prompted.constitution import ConstitutionJudge
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.judges.wrappers.cached import CachedJudge
from rlaif_lab.judges.wrappers.human_budget import HumanBudget
from rlaif_lab.judges.wrappers.noise import BiasedJudge, NoisyJudge
from rlaif_lab.judges.wrappers.panel import Panel


def built(*overrides: str, family: str = "judge") -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        node = compose("config", overrides=list(overrides))[family]
    for path, target in targets(node, family):
        check_target(path, target)
    judge = build(node, family)
    assert isinstance(judge, Judge)
    return judge


def test_a_wrapper_takes_any_judge() -> None:
    judge = built("judge=cached", "judge@judge.of=constitution", "judge.of.principles=all")
    assert isinstance(judge, CachedJudge) and isinstance(judge.of, ConstitutionJudge)
    assert judge.of.principles == "all"


def test_wrappers_of_wrappers() -> None:
    judge = built(
        "judge=noisy", "judge@judge.of=biased", "judge@judge.of.of=oracle", "judge.flip=0.3", "judge.of.length=1"
    )
    assert isinstance(judge, NoisyJudge) and isinstance(judge.of, BiasedJudge) and isinstance(judge.of.of, OracleJudge)
    assert (judge.flip, judge.of.length, judge.sees_gold) == (0.3, 1.0, True)


def test_a_panel_of_ones_own_choosing() -> None:
    judge = built(
        "judge=panel", "judge@judge.members.self=random", "+judge@judge.members.fourth=prompted", "judge.quorum=2"
    )
    assert isinstance(judge, Panel)
    assert list(judge.members) == ["self", "stronger", "weaker", "fourth"]
    assert isinstance(judge.members["self"], RandomJudge) and isinstance(judge.members["fourth"], PromptedJudge)
    assert judge.quorum == 2


def test_a_judge_that_only_evaluates_may_be_composed_as_well() -> None:
    judge = built("judge@heldout_judge=cached", "judge@heldout_judge.of=pointwise", family="heldout_judge")
    assert isinstance(judge, CachedJudge) and judge.gives_scores


def test_people_help_any_judge_and_the_second_one_is_loaded_only_if_asked() -> None:
    judge = built("judge=human_budget", "judge@judge.of=stronger", "judge.share=0.5", "judge.human.flip=0")
    assert isinstance(judge, HumanBudget) and isinstance(judge.human.of, SimulatedAnnotator)
    assert (judge.share, judge.human.of.flip, judge.sees_gold, len(judge.sources())) == (0.5, 0.0, True, 1)
    judge = built("judge=human_budget", "judge@judge.second=stronger_verdict", "judge.routing=disagreement")
    assert len(judge.sources()) == 1 and "verdict" in judge.describe()


def test_another_model_judges_by_prompt(tmp_path: Path) -> None:
    make_chat_model(tmp_path)
    judge = built("judge=prompted", "+policy@judge.weights=hf", f"judge.weights.path={tmp_path}")
    (source,) = judge.sources()
    judge.check_tokenizers(lambda weights: weights.load_tokenizer(None))
    assert str(tmp_path) in str(source)


@pytest.mark.parametrize("choice", ["prompted_votes", "prompted_cot"])
def test_variants_are_the_prompted_judge_with_other_settings(choice: str) -> None:
    judge = built(f"judge={choice}")
    assert isinstance(judge, PromptedJudge)
    assert (judge.reads, judge.reasoning) == (("votes", False) if choice.endswith("votes") else ("probabilities", True))
    assert judge.clamp == (None if choice.endswith("votes") else (0.4, 0.6))
