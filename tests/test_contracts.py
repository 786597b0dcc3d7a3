"""The contracts between folders are kept, and who breaks one is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's modules, which may be broken."""
    shutil.copytree(ROOT / "rlaif_lab", tmp_path / "rlaif_lab", ignore=shutil.ignore_patterns("data", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_they_are_kept(package: Path) -> None:
    done = lint(package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("judges/base.py", "from rlaif_lab.loop.gate import Gate", "A folder imports only what stands below it"),
        (
            "metrics/gap.py",
            "def f():\n    from rlaif_lab.report import arms",
            "Nothing below the loop imports the report",
        ),
        ("store/files.py", "from rlaif_lab.store.run_folder import STOPPED", "No circles"),
    ],
    ids=["upwards", "to the report, even within a function", "a circle of files"],
)
def test_who_breaks_one_is_told(package: Path, module: str, line: str, contract: str) -> None:
    with (package / "rlaif_lab" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(package)
    assert done.returncode == 1
    assert [said for said in done.stdout.splitlines() if said.startswith(contract) and "BROKEN" in said], done.stdout


def test_few_modules_lie_loose_at_the_root() -> None:
    """Besides the two that Python asks for."""
    loose = {path.name for path in (ROOT / "rlaif_lab").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(loose) <= 7, loose
