"""A run folder of an earlier version is read, reported on and resumed: class paths moved since, numbers did not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from rlaif_lab.cli.report import report
from rlaif_lab.config import check, config_dir
from rlaif_lab.loop.run import Run
from rlaif_lab.results import read_run, read_sweep

FIXTURE = Path(__file__).with_name("fixtures") / "old_run"


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, seen from the folder that its policy's path is relative to."""
    for folder in ("policy", "run"):
        shutil.copytree(FIXTURE / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def rows_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def as_killed_after_two_rounds(run: Path) -> None:
    """Leave what a kill in the third round's sampling leaves: two rows, a checkpoint, the third policy's evaluation."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2]))
    (run / "finished.json").unlink()
    shutil.rmtree(run / "round_003")
    for stage in ("ahead", "generations", "judgements", "pairs"):
        (run / "round_002" / f"{stage}.parquet").unlink()


def resumed(run: Path) -> float:
    overrides = OmegaConf.to_object(OmegaConf.load(run / ".hydra" / "overrides.yaml"))
    assert isinstance(overrides, list)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=[*overrides, "resume=true"])
    check(cfg)
    return Run(cfg, run).run()


def test_it_is_read_round_by_round(old_run: Path) -> None:
    run = read_run(old_run)
    assert [row["round"] for row in run.rows] == [0, 1, 2, 3]
    for index in range(3):
        found = run.round(index)
        assert len(found.generations) == 64
        assert len(found.pairs) == found.metrics["pairs/count"] == len(found.examples) > 0
        computed = {record["metric"]: record for record in found.gap()}
        assert computed["judge/accuracy"]["from the files"] == computed["judge/accuracy"]["in metrics.jsonl"]


def test_it_is_reported_on(old_run: Path) -> None:
    assert [arm["rounds"] for arm in read_sweep(old_run).arms()] == [3]
    said = report(old_run)
    assert "self" in said and "!" not in said
    assert (old_run / "report" / "report.html").stat().st_size > 10_000


def test_resumed_for_its_last_round_it_comes_to_the_same(old_run: Path) -> None:
    """To 1e-4: processors round differently. Names that later versions add are left out."""
    straight = rows_of(old_run)
    as_killed_after_two_rounds(old_run)
    resumed(old_run)
    again = rows_of(old_run)
    assert [row["round"] for row in again] == [0, 1, 2, 3]
    for old, new in zip(straight, again, strict=True):
        known = {name: value for name, value in old.items() if value is not None}
        assert {name: new[name] for name in known} == pytest.approx(known, rel=1e-4, abs=1e-6)
        assert all(new[name] is None for name in old.keys() - known.keys())
    assert (old_run / "policy" / "model.safetensors").exists()


def test_finished_it_stays_as_it_is(old_run: Path) -> None:
    before = (old_run / "metrics.jsonl").read_bytes()
    resumed(old_run)
    assert (old_run / "metrics.jsonl").read_bytes() == before


def test_another_config_is_still_refused(old_run: Path) -> None:
    listed = old_run / ".hydra" / "overrides.yaml"
    listed.write_text(listed.read_text().replace("trainer.batch_size=16", "trainer.batch_size=8"))
    with pytest.raises(ValueError, match="another config"):
        resumed(old_run)
