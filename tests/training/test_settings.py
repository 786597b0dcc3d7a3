"""Arguments of Lightning's Trainer pass through, but for those that the lab sets itself."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from pytorch_lightning import Trainer

from rlaif_lab.training.settings import FIXED, SET_BY_THE_LAB, TrainerConfig, check_trainer


def test_an_argument_of_trainers_is_taken() -> None:
    assert TrainerConfig(args={"profiler": "simple", "deterministic": True}).args["profiler"] == "simple"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradient_clip_val", "trainer.args.gradient_clip_val is set by the lab: use trainer.clip_norm"),
        ("max_epochs", "trainer.args.max_epochs is set by the lab: use rounds"),
        ("devices", "trainer.args.devices is set by the lab: use trainer.devices"),
        ("profilr", r"trainer.args.profilr: Lightning's Trainer takes no such argument \(did you mean 'profiler'\?\)"),
    ],
)
def test_others_are_refused_in_a_sentence(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        TrainerConfig(args={name: 1})


def test_what_the_lab_sets_are_arguments_of_trainers() -> None:
    assert {*SET_BY_THE_LAB, *FIXED} <= {*inspect.signature(Trainer.__init__).parameters}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"accelerator": "quantum"}, "trainer.accelerator=quantum"),
        ({"accelerator": ""}, "trainer.accelerator="),
        ({"accelerator": "hpu"}, "trainer.accelerator=hpu"),
        ({"accelerator": "tpu"}, "trainer.accelerator=tpu"),
        ({"precision": "foo"}, "trainer.precision=foo"),
        ({"precision": "8-fast"}, "trainer.precision=8-fast"),
        ({"precision": "transformer-engine"}, "trainer.precision=transformer-engine"),
        ({"args": {"profiler": "nope"}}, "trainer.args.profiler='nope'"),
        ({"args": {"max_time": "soon"}}, "trainer.args.max_time='soon'"),
    ],
)
def test_what_lightning_does_not_take_is_told_before_anything_is_built(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(key)} cannot be used here: ") as caught:
        check_trainer(TrainerConfig(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"accelerator": "auto", "precision": "64"}, {"args": {"profiler": "simple"}}])
def test_what_lightning_takes_passes(settings: dict[str, Any]) -> None:
    check_trainer(TrainerConfig(**settings))
