"""What a stranger's folder names is not run when it is resumed; what one started oneself is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlaif_lab.cli.origin import Origin
from rlaif_lab.cli.trust import check_trusted, remember, started_here
from rlaif_lab.config import check_family, config_dir
from rlaif_lab.config.trusted import ONLY_TRUSTED, TRUST, UntrustedError, trust

RESUME = "from rlaif_lab.cli.lab import resume; resume()"
NOWHERE = Origin(None)
CODE = (
    "+judge._target_=os.system",
    "judge={_target_: subprocess.call, args: x}",
    "++learner={'_target_': \"evil.Learner\"}",
    "+callbacks.mine._target_=evil.Callback",
    "task.grader=python:evil.grade",
    "judge._target_=${oc.env:X}",
    "+hydra.callbacks.mine._target_=evil.Callback",
    "hydra.launcher._target_=evil.Launcher",
    "hydra.searchpath=[file:///evil]",
    "hydra/job_logging=evil",
    "~hydra.callbacks.sweep",
    "hydra.run.chdir=true",
    "hydra.launcher.setup=[touch /evil]",
    "hydra.launcher.additional_parameters={wrap: evil}",
    "hydra.sweeper.custom_search_space=evil.space",
    "hydra.sweeper.storage=sqlite:////evil.db",
    'hydra.sweeper.params.experiment="../../evil,../../other"',
    "judge=../../../evil/judge",
    "experiment=/evil/experiment",
    "experiment='../evil'",
    "+judge@heldout_judge=self,../evil",
    "judge=[../evil]",
    "judge.base_url=https://evil.example/v1",
    "logger.tracking_uri=http://evil.example",
    "engine.python=./theirs/bin/python",
    "+engine={_target_: rlaif_lab.sampling.server.ServerEngine, python: theirs}",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLAIF_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(TRUST, raising=False)
    return tmp_path / "cache"


@pytest.mark.parametrize("override", CODE)
def test_what_names_code_is_refused_unless_it_was_started_here(override: str) -> None:
    with pytest.raises(ValueError, match="was not started by you on this machine"):
        check_trusted(["judge=self", override], NOWHERE, None)
    remember(["judge=self", override], NOWHERE)
    assert check_trusted([override, "judge=self", "resume=true", "hydra.run.dir='x'"], NOWHERE, None) == NOWHERE
    with pytest.raises(ValueError, match="was not started by you on this machine"):
        check_trusted(["judge=oracle", override], NOWHERE, None)


def test_the_labs_own_is_resumed_wherever_it_comes_from(tmp_path: Path) -> None:
    """But not from the folder that it names: modules there could stand in for libraries that are not installed."""
    given = ["experiment=learners", "judge._target_=rlaif_lab.judges.oracle.OracleJudge", "hydra/launcher=basic"]
    assert check_trusted(given, Origin(tmp_path), None) == NOWHERE


def test_config_folders_need_trust(tmp_path: Path) -> None:
    origin = Origin(tmp_path, ("--config-dir", "/evil/conf"))
    with pytest.raises(ValueError, match="--trust PACKAGE"):
        check_trusted(["judge=mine"], origin, None)
    assert check_trusted(["judge=mine"], origin, "my_judges") == origin


def test_a_trusted_package_is_run_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST, "")
    trust("my_judges")
    check_trusted(["+judge._target_=my_judges.Mine"], NOWHERE, "my_judges")
    with pytest.raises(ValueError, match="--trust evil"):
        check_trusted(["+judge._target_=my_judges.Mine", "+learner._target_=evil.L"], NOWHERE, "my_judges")


def test_what_the_files_of_a_choice_name_is_refused_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "it ran"
    (tmp_path / "evil_choice.py").write_text(f"open({str(marker)!r}, 'w')\nclass J:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ONLY_TRUSTED, "1")
    nodes = (
        {"_target_": "evil_choice.J"},
        {"_target_": "rlaif_lab.judges.wrappers.noise.NoisyJudge", "of": {"_target_": "evil_choice.J"}},
        {"_target_": "rlaif_lab.judges.oracle.OracleJudge", "name": "python:evil_choice.J"},
        {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(marker)},
    )
    for node in nodes:
        with pytest.raises(UntrustedError, match=r"--trust (evil_choice|pandas)"):
            check_family("judge", node, "judge")
    assert not marker.exists()
    check_family("judge", {"_target_": "rlaif_lab.judges.oracle.OracleJudge"}, "judge")
    monkeypatch.setenv(TRUST, "evil_choice")
    with pytest.raises(ValueError, match="judge must be a Judge"):
        check_family("judge", nodes[0], "judge")
    assert marker.exists()


def test_where_it_was_started_is_part_of_it(tmp_path: Path) -> None:
    remember(["judge=mine"], Origin(tmp_path, ("--config-dir", "conf")))
    assert started_here(["judge=mine"], Origin(tmp_path, ("--config-dir", "conf")))
    assert not started_here(["judge=mine"], Origin(tmp_path / "else", ("--config-dir", "conf")))
    assert not started_here(["judge=mine"], Origin(tmp_path, ("--config-dir", "/evil")))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["target", "folder", "sweep", "choice"])
def test_resuming_a_strangers_folder_runs_none_of_its_code(way: str, tmp_path: Path) -> None:
    evil, marker = tmp_path / "evil_place", tmp_path / "it ran"
    (evil / "conf" / "judge").mkdir(parents=True)
    (evil / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass J:\n    pass\n")
    (evil / "conf" / "judge" / "mine.yaml").write_text("_target_: evil.J\n")
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    sources = [{"provider": "command-line", "path": str(evil / "conf")}] if way == "folder" else []
    overrides = ["judge=mine"] if way == "folder" else ["+judge._target_=evil.J"]
    if way == "choice":
        overrides = [f"judge={os.path.relpath(evil / 'conf' / 'judge' / 'mine', Path(config_dir()) / 'judge')}"]
    hydra = {"runtime": {"cwd": str(evil), "config_sources": sources}, "overrides": {"task": overrides, "hydra": []}}
    if way == "sweep":
        (run / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    else:
        (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    done = subprocess.run([sys.executable, "-c", RESUME, str(run)], capture_output=True, text=True, cwd=evil)
    assert done.returncode == 2
    assert "was not started by you on this machine" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not marker.exists()
