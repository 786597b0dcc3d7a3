"""Arguments of Lightning's Trainer pass through, but for those that the lab sets itself."""

from __future__ import annotations

import inspect

import pytest
from pytorch_lightning import Trainer

from rlaif_lab.training.settings import FIXED, SET_BY_THE_LAB, TrainerConfig


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
