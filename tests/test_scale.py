"""The choice of a real policy brings settings that fit it; what the command line or an experiment says wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from rlaif_lab.config import config_dir

REAL = sorted(file.stem for file in (Path(config_dir()) / "policy").glob("*.yaml") if not file.stem.startswith("tiny"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize("name", REAL)
def test_every_real_policy_brings_its_scale(name: str) -> None:
    cfg = composed(f"policy={name}", "task=open_prompts", "learner=dpo")
    assert cfg.trainer.learning_rate <= 1e-4
    assert cfg.trainer.batch_size <= 8
    assert cfg.prompts_per_round <= 32
    assert cfg.evaluation.prompts <= 32
    assert cfg.evaluation.measured <= cfg.evaluation.prompts / 2
    assert cfg.sampler.k >= 2
    trained = cfg.policy.get("of", cfg.policy)
    assert trained.dtype in ("float32", "bfloat16")
    assert cfg.task.max_response_tokens <= 256
    assert (cfg.trainer.learning_rate >= 5e-5) == (trained.lora.r > 0)
    assert trained.lora.r > 0 or trained.dtype == "float32"


def test_the_learning_rate_follows_what_is_trained() -> None:
    """An adapter takes ten times what all weights take, whatever brings it."""
    assert composed("policy=hf").trainer.learning_rate == 1e-5
    assert composed("policy=hf", "policy.lora.r=8").trainer.learning_rate == 1e-4
    assert composed("policy=smollm2_360m", "policy.lora={r: 8}").trainer.learning_rate == 1e-4
    assert composed("policy=qwen2_5_1_5b", "policy.lora.r=0").trainer.learning_rate == 1e-5
    assert composed("policy=smollm2_sft").trainer.learning_rate == 1e-5, "the warm start's own adapter is merged"
    assert composed("policy=smollm2_sft", "policy.of.lora.r=8").trainer.learning_rate == 1e-4
    assert composed("policy=hf", "policy.lora.r=8", "trainer.learning_rate=3e-5").trainer.learning_rate == 3e-5


def test_what_is_said_wins_and_organisms_stay_as_they_are() -> None:
    cfg = composed("policy=smollm2_360m", "trainer.learning_rate=3e-5", "rounds=7", "evaluation.prompts=9")
    assert (cfg.trainer.learning_rate, cfg.rounds, cfg.evaluation.prompts) == (3e-5, 7, 9)
    assert composed("experiment=real_lm").rounds == 2
    organism = composed()
    assert (organism.trainer.learning_rate, organism.rounds, organism.prompts_per_round) == (5e-4, 10, 1024)
