"""Every experiment that ships composes, arm by arm, into a run that is accepted; and its README states a hypothesis."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from rlaif_lab.config import check, config_dir

ROOT = Path(__file__).resolve().parent.parent
CONF = Path(config_dir())
ABLATIONS = (
    "plateau_self_vs_stronger",
    "judge_noise",
    "feedback_vs_distillation",
    "rlaif_vs_rlhf",
    "bias_amplification",
    "over_optimisation",
    "human_budget",
)
NULLS = ("random", "reversed", "no_update", "none")


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def arms(experiment: str) -> list[list[str]]:
    """The overrides of each arm that the experiment's own sweep runs, all for its first seed."""
    file = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    params = OmegaConf.to_container(file.hydra.sweeper.params)
    assert isinstance(params, dict)
    found: list[list[str]] = [[]]
    for key, value in params.items():
        override = OverridesParser.create().parse_override(f"{key}={value}")
        choices = list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(value)]
        found = [[*chosen, f"{key}={choice}"] for chosen in found for choice in choices[: 1 if key == "seed" else None]]
    return found


def seeds(experiment: str) -> list[str]:
    text = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml").hydra.sweeper.params.seed
    return str(text).split(",")


@pytest.mark.parametrize("experiment", ABLATIONS)
def test_every_arm_of_an_ablation_is_a_run_with_a_name_of_its_own(experiment: str) -> None:
    named = {}
    for overrides in arms(experiment):
        cfg = composed(f"experiment={experiment}", *overrides)
        check(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))
        named[cfg.arm] = overrides
        assert cfg.experiment_name == experiment
    assert len(named) == len(arms(experiment)) >= 5
    assert any(arm in NULLS for arm in named), f"{experiment} has no null among {sorted(named)}"
    assert len(seeds(experiment)) >= 5


@pytest.mark.parametrize("experiment", ABLATIONS)
def test_an_ablation_is_written_up_beside_its_numbers(experiment: str) -> None:
    folder = ROOT / "experiments" / experiment
    text = (folder / "README.md").read_text()
    hypothesis, command = "**Hypothesis** (written before the run", f"rlaif-lab experiment={experiment}"
    for part in (hypothesis, command, "**Result**", "**What surprised.**"):
        assert part in text, f"{folder / 'README.md'} lacks {part!r}"
    assert (folder / "results.csv").exists()
    assert list(folder.glob("*.png"))


def variant_name(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("variant", map(variant_name, sorted(CONF.glob("variant/*/*.yaml"))))
def test_every_variant_belongs_to_an_experiment_that_sweeps_it(variant: str) -> None:
    assert any(f"variant={variant}" in overrides for overrides in arms(variant.split("/")[0]))


# --- on real models -------------------------------------------------------------------------------------------------
REAL = {
    "plateau_real_lm": {"self", "self_verdict", "smollm2", "gold", "random"},
    "plateau_real_lm_sft": {"self", "qwen", "qwen_verdict", "gold", "random"},
    "plateau_real_lm_gpu": {"self", "qwen3_4b", "gold", "random"},
}


@pytest.mark.parametrize("experiment", REAL)
def test_every_arm_on_a_real_model_composes_with_paths_or_without(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = set()
    for overrides in arms(experiment):
        cfg = composed(f"experiment={experiment}", *overrides)
        check(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))
        named.add(cfg.arm)
        assert cfg.rounds >= 8
        assert cfg.detector.horizon >= cfg.rounds
    assert named == REAL[experiment]
    assert len(seeds(experiment)) >= 3
    for name in ("QWEN", "SMOLLM2", "QWEN3_0_6B"):
        monkeypatch.setenv(f"RLAIF_LAB_{name}", "/models/mine")
    policy = composed(f"experiment={experiment}", "hydra/launcher=basic").policy
    assert policy.get("of", policy).path == "/models/mine"
