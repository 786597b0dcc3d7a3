"""Run folders written by hand: known numbers, no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes a run folder below ``tmp_path / "sweep"`` and returns it.

    sampled: quality/sampled of rounds 0, 1, ...; greedy is .2 higher. extra: further metrics, each a list by round.
    changes: dotted config keys -> value.
    """

    def write(
        arm: str,
        seed: int,
        sampled: list[float],
        rounds: int | None = None,
        name: str | None = None,
        changes: dict[str, Any] | None = None,
        extra: dict[str, list[float | None]] | None = None,
    ) -> Path:
        folder = tmp_path / "sweep" / (name or f"judge={arm},seed={seed}")
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(f"- judge={arm}\n- seed={seed}\n")
        config: dict[str, Any] = {
            "arm": arm,
            "seed": seed,
            "experiment_name": "known_numbers",
            "rounds": len(sampled) - 1 if rounds is None else rounds,
            "judge": {"name": arm},
            "learner": {"name": "dpo", "beta": 0.1},
            "versions": {"python": "3.11.0", "numpy": "2.0"},
            "git_commit": "0123abc",
        }
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            node = config
            for parent in parents:
                node = node[parent]
            node[last] = value
        (folder / "config.json").write_text(json.dumps(config))
        lines = []
        for index, quality in enumerate(sampled):
            row: dict[str, Any] = {"round": index, "quality/sampled": quality, "quality/greedy": quality + 0.2}
            row |= {"kl/per_sequence": 0.5 * index, "judge/win_rate_vs_round_0": 0.5 + 0.05 * index}
            if index < len(sampled) - 1:
                row |= {"judge/accuracy": 0.8, "gap/diversity_D": 0.2, "gap/informativeness_I": None}
                row |= {"time/round_s": 2.0, "time/training_s": 1.5}
            row |= {metric: values[index] for metric, values in (extra or {}).items()}
            lines.append(json.dumps(row) + "\n")
        (folder / "metrics.jsonl").write_text("".join(lines))
        return folder

    return write
