"""A real sweep, read back: from its folders, from W&B's offline files, over W&B's API, and by the notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from end_to_end.lab import SMALL, environment, lab
from nbclient import NotebookClient
from servers.wandb_server import KEY, WandbServer, wandb_server

from rlaif_lab.metrics.catalogue import rows
from rlaif_lab.report.panels import GROUPS
from rlaif_lab.results import SweepResults, read_run, read_sweep, read_wandb, results
from rlaif_lab.tracking.run_summary import RESULTS
from rlaif_lab.tracking.wandb_files import REPORT, WandbRun, offline_runs, records
from rlaif_lab.tracking.wandb_files import read_run as read_wandb_run
from rlaif_lab.tracking.wandb_workspace import definition, over_rounds, workspace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two judges, two seeds, four rounds, with W&B offline, and the report on them, in W&B as well. The policy knows
    enough for its judge to have something to tell apart."""
    folder = tmp_path_factory.mktemp("reading") / "sweep"
    small = [override for override in SMALL if not override.startswith(("logger", "rounds", "policy.", "evaluation.p"))]
    done = lab(
        cache,
        "-m",
        *small,
        "policy.steps=250",
        "policy.width=64",
        "policy.layers=2",
        "policy.heads=2",
        "rounds=4",
        "evaluation.prompts=32",
        "experiment_name=tiny",
        "judge=self,oracle",
        "judge@heldout_judge=noisy_oracle",
        "seed=0,1",
        f"hydra.sweep.dir={folder}",
        "hydra.sweep.subdir=${arm}_${seed}",
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-c", "from rlaif_lab.cli.report import main; main()", str(folder), "--wandb"]
    report = subprocess.run(command, capture_output=True, text=True, env=environment(cache))
    assert report.returncode == 0, report.stderr
    return folder


@pytest.fixture(scope="module")
def runs(sweep: Path) -> list[WandbRun]:
    return offline_runs(sweep)


# --- W&B's files --------------------------------------------------------------------------------------------------
def test_a_file_is_read_as_wandb_itself_reads_it(sweep: Path, tmp_path: Path) -> None:
    (file,) = sweep.glob("self_0/wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record.WhichOneof("record_type") for record in records(file)] == [record["type"] for record in theirs]
    logged = [record["history"]["item"] for record in theirs if record["type"] == "history"]
    ours = read_wandb_run(file).history
    numbers = [{k: v for k, v in item.items() if isinstance(v, (int, float))} for item in ours]
    assert numbers == [
        {k: v for k, v in item.items() if isinstance(v, (int, float)) and k[0] != "_" and "." not in k}
        for item in logged
    ]
    # What a killed run leaves is read as far as it goes.
    cut = tmp_path / "run-cut.wandb"
    cut.write_bytes(file.read_bytes()[:-3000])
    assert 0 < len(list(records(cut))) < len(theirs)


def test_offline_runs_say_what_the_run_folders_say(sweep: Path, runs: list[WandbRun]) -> None:
    loops = [run for run in runs if run.job_type != REPORT]
    assert [(run.group, run.job_type, run.name) for run in loops] == [
        ("tiny", arm, f"{arm}_s{seed}_force=True_export=False") for arm in ("oracle", "self") for seed in (0, 1)
    ]
    for run in loops:
        folder = read_run(sweep / f"{run.job_type}_{run.config['seed']}")
        assert run.config == folder.config
        qualities = [row["quality/sampled"] for row in folder.rows]
        assert run.summary["final_quality"] == qualities[-1]
        assert run.summary["gain"] == qualities[-1] - qualities[0]
        assert run.summary["quality/sampled"] == {"last": qualities[-1], "max": max(qualities)}
        assert set(run.tables) == {"samples", "pass_at_k_table", "reliability_table"}
        coverage = {(row["round"], row["k"]): row["pass_at_k"] for row in run.tables["pass_at_k_table"]}
        for row in (folder.rows[0], folder.rows[-1]):
            assert coverage[row["round"], 8] == row["coverage/pass_at_8"]
        last_judged = folder.round(folder.rows[-2]["round"])
        binned = [list(row.values()) for row in run.tables["reliability_table"]]
        assert binned == [list(row.values()) for row in last_judged.calibration()]
    for record in results(runs):
        assert set(RESULTS) <= set(record)
        assert record["verdict"].split(" at ")[0] in ("improving", "plateaued", "degrading", "undecided")
        assert record["why"]


def same(one: SweepResults, other: SweepResults) -> bool:
    """But for causes, which are read from the stored rounds: W&B has none."""

    def told(study: SweepResults, name: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in record.items() if k not in ("why", "cause")} for record in getattr(study, name)()]

    return all(told(one, name) == told(other, name) for name in ("arms", "verdicts", "differences", "why", "problems"))


def test_the_study_is_the_same_from_wandb(sweep: Path) -> None:
    """The verdicts too, which pool the prompts' changes over seeds."""
    one, other = read_sweep(sweep), read_wandb(sweep)
    assert same(one, other)
    traces = [[said.verdict.traces for said in each.view.verdicts] for each in (one, other)]
    assert traces[0] == traces[1] and all(traces[0])


def test_over_the_api_the_same(sweep: Path, runs: list[WandbRun]) -> None:
    """W&B's own client against a stand-in that holds the runs. It keeps its connection for the life of a process."""
    code = (
        "import sys\nfrom rlaif_lab.results import SweepResults, as_runs, wandb_runs\n"
        "runs = wandb_runs(sys.argv[1])\n"
        "print([[r.id, r.history, r.summary, r.config] for r in runs])\n"
        "print(SweepResults(as_runs(runs), 'online').arms())\n"
        "try: wandb_runs('somebody/a_project/another')\n"
        "except ValueError as error: print(error)\n"
    )
    server = WandbServer(runs=runs)
    with wandb_server(server) as url:
        done = subprocess.run(
            [sys.executable, "-c", code, "somebody/a_project/tiny"],
            capture_output=True,
            text=True,
            env=os.environ | {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"},
        )
    assert done.returncode == 0, done.stderr
    read, arms, refused = done.stdout.splitlines()
    nan = {"nan": float("nan")}
    assert eval(read, nan) == [[run.id, run.history, run.summary, run.config] for run in runs]
    assert eval(arms, nan) == read_sweep(sweep).arms()
    assert refused == "there is no run in 'somebody/a_project' in group 'another'"


def test_the_report_is_a_run_beside_the_others(sweep: Path, runs: list[WandbRun]) -> None:
    (report,) = (run for run in runs if run.job_type == REPORT)
    assert (report.group, report.name) == ("tiny", "report on sweep")
    figures = {f"report/{path.stem}": path for path in (sweep / "report").glob("*.png")}
    assert set(report.media) == {*figures, "report/page"}
    for name, path in figures.items():
        assert report.media[name].read_bytes() == path.read_bytes()
    assert report.media["report/page"].read_text() == (sweep / "report" / "report.html").read_text()
    assert [row["arm"] for row in report.tables["report/verdicts"]] == ["oracle", "self"]
    said = {row["arm"]: row["verdict"] for row in report.tables["report/verdicts"]}
    assert all(report.summary[f"verdict/{arm}"].startswith(state) for arm, state in said.items())


def test_every_panel_of_the_workspace_shows_a_metric_that_runs_log(sweep: Path, runs: list[WandbRun]) -> None:
    sections = definition(workspace("somebody", "a_project"))["spec"]["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    logged = {name for row in read_run(sweep / "self_0").rows for name in row}
    drawn = {m for p in panels if p["viewType"] == "Run History Line Plot" for m in p["config"]["metrics"]}
    assert drawn <= logged | {row.name for row in rows()}, "a metric that this run logs, or another kind of run"
    assert {panel.metric for group in GROUPS for panel in over_rounds(group) if "heldout" not in panel.metric} <= logged
    bars = {m for p in panels if p["viewType"] == "Bar Chart" for m in p["config"]["metrics"]}
    assert bars <= set(RESULTS)
    media = {key for p in panels if p["viewType"] == "Media Browser" for key in p["config"]["mediaKeys"]}
    assert media <= {name for run in runs for name in run.media}


# --- notebooks ----------------------------------------------------------------------------------------------------
@pytest.fixture
def example(sweep: Path) -> Iterator[None]:
    """The notebooks look at this sweep."""
    given = {"RLAIF_SWEEP": sweep, "RLAIF_WANDB": sweep, "RLAIF_RUN": sweep / "self_0", "RLAIF_ROUND": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, str(value))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")  # no network
        yield


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path) -> None:
    content = nbformat.read(notebook, 4)
    NotebookClient(content, timeout=300, resources={"metadata": {"path": str(notebook.parent)}}).execute()
    shown = [
        output
        for cell in content.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    tables = [output.data["text/html"] for output in shown if "text/html" in output.data]
    figures = [output for output in shown if "image/png" in output.data]
    assert len(shown) >= 6
    assert sum("<td>" in table for table in tables) >= 5
    assert all(len(output.data["image/png"]) > 5000 for output in figures)
    assert bool(figures) == (notebook.stem != "03_anatomy_of_a_round")
    warnings = [o.text for cell in content.cells for o in cell.get("outputs", ()) if o.output_type == "stream"]
    assert [text for text in warnings if notebook.stem != "04_in_process"] == []  # which shows a run's own lines
