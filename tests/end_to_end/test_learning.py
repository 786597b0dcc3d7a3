"""Models really train: an oracle's verdicts are learnt from, a coin's are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end.lab import lab, rows

from rlaif_lab.statistics.intervals import t_interval

REAL = (
    "task.digits=2",
    "policy.steps=500",
    "policy.layers=2",
    "policy.width=64",
    "policy.heads=2",
    "prompts_per_round=512",
    "rounds=3",
    "evaluation.prompts=200",
    "trainer.batch_size=32",
    "logger=none",
)
"""An organism that can add (greedy accuracy above one half), in half a minute."""


@pytest.mark.slow
def test_an_oracle_teaches_and_a_coin_does_not(cache: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    overrides = ("judge=oracle,random", "seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = lab(cache, "-m", *REAL, *overrides, f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    gains: dict[str, list[float]] = {}
    for judge, accuracy in (("oracle", 1.0), ("random", 0.5)):
        for run in sorted(sweep.glob(f"*judge-{judge}*")):
            history = rows(run)
            assert history[0]["quality/greedy"] > 0.5
            assert all(row["judge/accuracy"] == pytest.approx(accuracy, abs=0.06) for row in history[:-1])
            assert all(row["judge/same_slot_rate"] in (0.0, None) for row in history[:-1])
            gains.setdefault(judge, []).append(history[-1]["quality/sampled"] - history[0]["quality/sampled"])
    assert len(gains["oracle"]) == len(gains["random"]) == 3
    assert t_interval(gains["oracle"], 0.95)[1] > 0
    assert t_interval(gains["random"], 0.95)[1] <= 0
    assert min(gains["oracle"]) > max(gains["random"])
