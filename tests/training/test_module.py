"""The training step: accumulation is exact, what is not finite is left out and counted, restarts start over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end.lab import SMALL, rows
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file
from torch import Tensor

from rlaif_lab.config import check, config_dir
from rlaif_lab.learners.base import Batch
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.loop.run import Run
from rlaif_lab.training.module import preference_logps


def fit(directory: Path, *overrides: str) -> dict[str, Tensor]:
    """A whole run in this process; the policy's weights at its end."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=[*SMALL, "rounds=2", "evaluation.prompts=8", *overrides])
    check(cfg)
    Run(cfg, directory).fit()
    return load_file(directory / "policy" / "model.safetensors")


LEARNERS = {
    "rloo": ("learner=rloo",),
    "dpo": ("learner=dpo",),
    "grpo by tokens": ("learner=grpo", "learner.normalise=token"),
    "ppo": ("learner=ppo", "trainer.passes=2"),
    "best of n": ("learner=best_of_n",),
}


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_accumulated_batches_are_one_large_batch(learner: tuple[str, ...], tmp_path: Path) -> None:
    """Also where the last batch and the last step are short: 90 prompts in steps of 32."""
    setting = (*learner, "judge=self", "prompts_per_round=90", "trainer.learning_rate=1e-3", "trainer.warmup_steps=0")
    whole = fit(tmp_path / "whole", *setting, "trainer.batch_size=32")
    parts = fit(tmp_path / "parts", *setting, "trainer.batch_size=8", "trainer.accumulate=4")
    start = fit(tmp_path / "start", *setting, "trainer.batch_size=32", "trainer.learning_rate=1e-12")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-4, rtol=0)
    moved = max(float((whole[name] - start[name]).abs().max()) for name in whole)
    assert moved > 3e-3
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "parts"), strict=True):
        assert one["round"] == other["round"]
        if "train/loss" in one:
            assert other["train/loss"] == pytest.approx(one["train/loss"], abs=2e-3)


class NotFinite(RLOO):
    """Gives a loss that is nan, or one whose gradient is infinite, at some of its calls."""

    def __init__(self, nan_at: list[int], infinite_at: list[int]) -> None:
        super().__init__()
        self.nan_at, self.infinite_at, self.calls = nan_at, infinite_at, 0

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        loss, statistics = super().loss(logps, batch, values)
        call, self.calls = self.calls, self.calls + 1
        if call in self.nan_at:
            return loss * torch.nan, statistics
        if call in self.infinite_at:
            return loss + (logps - logps.detach()).abs().sqrt().sum(), statistics
        return loss, statistics


def not_finite(nan_at: str, infinite_at: str) -> tuple[str, ...]:
    target = f"{NotFinite.__module__}.NotFinite"
    return (f"learner={{_target_: {target}, nan_at: {nan_at}, infinite_at: {infinite_at}}}", "judge=self")


def compose_with_learner(overrides: tuple[str, ...]) -> tuple[str, ...]:
    return ("~learner", f"+{overrides[0]}", *overrides[1:])


def test_a_step_that_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    weights = fit(tmp_path, *compose_with_learner(not_finite("[1]", "[2,8]")))
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    first, second, _ = rows(tmp_path)
    assert (first["train/skipped_steps"], second["train/skipped_steps"]) == (2, 1)
    assert first["train/gradient_norm"] > 0


def test_too_many_end_the_run_with_the_last_good_round_kept(tmp_path: Path) -> None:
    overrides = compose_with_learner(not_finite("[7,8,9]", "[]"))
    with pytest.raises(ValueError, match=r"round 1, step \d: loss or gradient is not finite.*last good round is kept"):
        fit(tmp_path, *overrides, "trainer.max_skipped_steps=1")
    kept = torch.load(tmp_path / "checkpoints" / "round_000.ckpt", weights_only=False)
    assert all(bool(torch.isfinite(value).all()) for value in kept["state_dict"].values())
    assert [row["round"] for row in rows(tmp_path)] == [0]


def test_restarting_from_the_base_forgets_the_rounds_before(tmp_path: Path) -> None:
    """With the same data in both rounds, a restarted second round ends where the first one did, and one that goes on
    does not: shown by the weights after one round of many passes against those after a second, empty one."""
    setting = ("judge=self", "learner=best_of_n", "trainer.warmup_steps=0", "trainer.batch_size=96")
    restarted = fit(tmp_path / "restarted", *setting, "learner.restart=base", "rounds=2")
    base = fit(tmp_path / "base", *setting, "trainer.learning_rate=1e-12", "rounds=1")
    gone_on = fit(tmp_path / "gone_on", *setting, "learner.restart=never", "rounds=2")

    def distance(weights: dict[str, Tensor]) -> float:
        return max(float((weights[name] - base[name]).abs().max()) for name in base)

    # One step of Adam moves each weight by the learning rate at most; two of them by up to twice that.
    rate = 5e-4
    assert distance(restarted) <= rate * 1.001
    assert distance(gone_on) > rate * 1.1


def test_best_and_worst_are_told_apart_now_and_before() -> None:
    logps = torch.tensor([[[-1.0, -2.0], [-4.0, 0.0]]])
    before = torch.tensor([[[-1.5, -2.5], [-3.0, 0.0]]])
    batch: Any = Batch(None, before, before, torch.tensor([[0.2, 0.8]]), torch.ones(1, 2).bool())  # type: ignore[arg-type]
    assert {k: float(v) for k, v in preference_logps(logps, batch).items()} == {
        "chosen_logp": -4.0,
        "chosen_logp_at_start": -3.0,
        "rejected_logp": -3.0,
        "rejected_logp_at_start": -4.0,
    }
