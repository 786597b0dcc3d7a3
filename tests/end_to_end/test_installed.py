"""The lab as it is installed: from a wheel, in an environment and a folder that know nothing of a clone."""

from __future__ import annotations

import signal
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.lab import SMALL, environment, rows, weights

import rlaif_lab as rl

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (
    "import sys; from importlib.metadata import entry_points\n"
    "sys.argv = sys.argv[1:]; entry_points(group='console_scripts')[sys.argv[0]].load()()"
)
JUDGE = """
import os, signal
from rlaif_lab.judges.base import Judge
from rlaif_lab.records import Verdict

class Mine(Judge):
    calls = 0

    def __init__(self, name: str = "mine") -> None:
        self.name = name

    def identity(self) -> str:
        return "the response that comes first in the alphabet wins"

    def verdicts(self, comparisons):
        Mine.calls += 1
        if Mine.calls >= int(os.environ.get("DIES_AT", "1000000")):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Verdict(0.5, "tie") if c.first == c.second else Verdict(float(c.first < c.second)) for c in comparisons]
"""
EXTRAS = {
    "lab_extras/__init__.py": "",
    "lab_extras/judges.py": JUDGE.replace("Mine", "Extra").replace('"mine"', '"extra"'),
    "lab_extras/conf/__init__.py": "",
    "lab_extras/conf/judge/extra.yaml": "_target_: lab_extras.judges.Extra\n",
    "lab_extras-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: lab-extras\nVersion: 1.0\n",
    "lab_extras-1.0.dist-info/entry_points.txt": "[rlaif_lab.conf]\nlab_extras = lab_extras.conf\n",
}


@dataclass(frozen=True)
class Installed:
    python: Path
    site: Path
    cache: Path

    def __call__(self, *command: str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run one of the installed commands, by its name."""
        given = {k: v for k, v in environment(self.cache).items() if k != "PYTHONPATH"} | extra
        arguments = [str(self.python), "-c", COMMAND, *command]
        return subprocess.run(arguments, cwd=cwd, env=given, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Installed:
    """An environment of its own that borrows this one's libraries, but not the project; and a package of extras."""
    folder = tmp_path_factory.mktemp("installed")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True)
    (site / "borrowed.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")
    for name, content in EXTRAS.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    return Installed(folder / "env" / "bin" / "python", site, cache)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A user's folder: a judge of their own, and its choice."""
    folder = tmp_path / "my study"
    (folder / "conf" / "judge").mkdir(parents=True)
    (folder / "my_judges.py").write_text(JUDGE)
    (folder / "conf" / "judge" / "mine.yaml").write_text("_target_: my_judges.Mine\n")
    return folder


MINE = ("--config-dir", "conf", "judge=mine")


@pytest.mark.slow
def test_it_runs_with_the_wheels_own_conf(installed: Installed, tmp_path: Path) -> None:
    assert installed("rlaif-lab", "--version", cwd=tmp_path).stdout == f"rlaif-lab {rl.__version__}\n"
    where = subprocess.run(
        [str(installed.python), "-c", "from rlaif_lab.config import config_dir; print(config_dir())"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in environment(installed.cache).items() if k != "PYTHONPATH"},
        check=True,
    )
    assert str(installed.site) in where.stdout, "the conf/ of the wheel, not of the clone"
    done = installed("rlaif-lab", *SMALL, "rounds=1", "judge=random", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/single/*/metrics.jsonl"))


@pytest.mark.slow
def test_a_judge_of_ones_own_after_a_kill_from_anywhere(installed: Installed, study: Path, tmp_path: Path) -> None:
    straight = installed("rlaif-lab", *MINE, *SMALL, "rounds=2", "hydra.run.dir=straight", cwd=study)
    assert straight.returncode == 0, straight.stderr
    killed = installed("rlaif-lab", *MINE, *SMALL, "rounds=2", "hydra.run.dir=killed", cwd=study, DIES_AT="4")
    assert killed.returncode == -signal.SIGKILL
    assert not (study / "killed" / "finished.json").exists()
    resumed = installed("rlaif-resume", str(study / "killed"), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(study / "killed") == rows(study / "straight")
    assert weights(study / "killed") == weights(study / "straight")


@pytest.mark.slow
def test_in_a_sweep_and_in_an_audit(installed: Installed, study: Path) -> None:
    swept = installed("rlaif-lab", "-m", *MINE, *SMALL, "rounds=1", "seed=0,1", "hydra.sweep.dir=swept", cwd=study)
    assert swept.returncode == 0, swept.stderr
    assert len(list((study / "swept").glob("*/finished.json"))) == 2
    small = [override for override in SMALL if override.startswith(("task.", "policy.", "bank."))]
    audited = installed("rlaif-audit", *MINE, *small, "hydra.run.dir=audited", cwd=study)
    assert audited.returncode == 0, audited.stderr
    assert (study / "audited" / "audit.json").is_file()


@pytest.mark.slow
def test_a_package_adds_choices_by_its_entry_point(installed: Installed, tmp_path: Path) -> None:
    done = installed("rlaif-lab", *SMALL, "rounds=1", "judge=extra", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run")) == 2
    listed = installed("rlaif-lab", "judge=", cwd=tmp_path)
    assert "extra" in listed.stdout
