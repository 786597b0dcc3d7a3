"""Class paths of earlier versions still mean the classes that they named."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlaif_lab.config import MOVED, as_of_today, build, check_target, current_path
from rlaif_lab.feedback.pairing import Pairing
from rlaif_lab.store.run_folder import RoundStore


@pytest.mark.parametrize("old", MOVED)
def test_every_old_path_leads_to_a_class_of_that_name(old: str) -> None:
    module, _, name = current_path(old).rpartition(".")
    assert name == old.rpartition(".")[2]
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_a_config_with_old_paths_is_checked_and_built_at_any_depth() -> None:
    check_target("pairing", {"_target_": "rlaif_lab.pairing.Pairing"})
    assert isinstance(build(OmegaConf.create({"_target_": "rlaif_lab.pairing.Pairing"}), "pairing"), Pairing)
    of = {"_target_": "rlaif_lab.judges.oracle.OracleJudge"}
    noisy = build(OmegaConf.create({"_target_": "rlaif_lab.judges.wrappers.NoisyJudge", "of": of}), "judge")
    assert type(noisy).__name__ == "NoisyJudge"


def test_a_run_folder_of_an_earlier_version_is_the_same_run(tmp_path: Path) -> None:
    store = RoundStore(tmp_path)
    store.claim({"pairing._target_": "rlaif_lab.pairing.Pairing", "seed": "0"}, resume=False)
    now = {"pairing._target_": "rlaif_lab.feedback.pairing.Pairing", "seed": "0"}
    store.claim(now, resume=True)
    assert as_of_today(as_of_today(now)) == as_of_today(now)
    with pytest.raises(ValueError, match="seed was '0', is '1'"):
        store.claim(now | {"seed": "1"}, resume=True)
