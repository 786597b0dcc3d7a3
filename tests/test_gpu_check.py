"""The check of a GPU runs as it is on a CPU, with tiny shapes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "experiments" / "gpu" / "check.py"


def test_every_part_passes_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("gpu_check", FILE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["gpu_check"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = module.main(["--device", "cpu", "--small"])
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "9 passed, 0 failed", said
    assert code == 0 and said.count("| passed |") == 9
