"""Jobs of a sweep on one machine do not share a GPU."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rlaif_lab.cli import gpus
from rlaif_lab.cli.gpus import leased, visible


def test_each_job_has_a_gpu_of_its_own_and_the_next_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PAUSE", 0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    came: list[str] = []

    def third() -> None:
        with leased(1, ["4", "7"], tmp_path) as mine:
            came.extend(mine)

    with leased(1, ["4", "7"], tmp_path) as first:
        assert first == ["4"] and os.environ["CUDA_VISIBLE_DEVICES"] == "4"
        with leased(1, ["4", "7"], tmp_path) as second:
            assert second == ["7"] and os.environ["CUDA_VISIBLE_DEVICES"] == "7"
            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(0.1)
            assert waiting.is_alive() and not came
        waiting.join(10)
        assert came == ["7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"


def test_a_job_on_two_gpus_takes_both_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PAUSE", 0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # two threads of one process share it: it is put back after
    came: list[str] = []

    def both() -> None:
        with leased(2, ["0", "1"], tmp_path) as mine:
            came.extend(mine)

    with leased(1, ["1"], tmp_path):
        waiting = threading.Thread(target=both)
        waiting.start()
        waiting.join(0.1)
        assert not came
        with leased(1, ["0"], tmp_path) as other:  # what it could not use, it has given back
            assert other == ["0"]
    waiting.join(10)
    assert came == ["0", "1"]


def test_a_machine_without_gpus_has_none_to_lend() -> None:
    import torch

    assert torch.cuda.is_available() or visible() == []
