"""``rlaif-workspace``: what is sent to W&B, and what is said where it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers.wandb_server import KEY, WandbServer, wandb_server

from rlaif_lab.cli.workspace import main
from rlaif_lab.report.panels import GROUPS
from rlaif_lab.tracking.wandb_workspace import COLUMNS, definition, over_rounds, workspace


def sections(spec: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return found


def line_plots(spec: dict[str, Any]) -> list[dict[str, Any]]:
    panels = [panel for section in sections(spec) for panel in section["panels"]]
    return [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]


def command(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As users call it; W&B looks for keys below ``home`` only."""
    code = "from rlaif_lab.cli.workspace import main; main()"
    outside = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**outside, "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


# --- the definition ---------------------------------------------------------------------------------------------------
def test_every_panel_of_the_page_is_a_curve_over_rounds() -> None:
    spec = definition(workspace("somebody", "a_project"))
    plots = line_plots(spec)
    assert all(plot["xAxis"] == "round" for plot in plots)
    assert spec["spec"]["section"]["settings"]["xAxis"] == "round"
    drawn = {(plot["chartTitle"], *plot["metrics"]) for plot in plots}
    assert {(panel.title, panel.metric) for group in GROUPS for panel in over_rounds(group)} <= drawn
    assert {group.title for group in GROUPS if over_rounds(group)} <= {section["name"] for section in sections(spec)}
    for section in sections(spec):
        assert section["panels"][0]["viewType"] == "Markdown Panel"
        cells = section["flowConfig"]["columnsPerPage"] * section["flowConfig"]["rowsPerPage"]
        assert cells >= len(section["panels"]), "a section shows all its panels without paging"


def test_runs_are_grouped_by_arm_and_their_results_are_columns() -> None:
    (runs,) = definition(workspace("somebody", "a_project"))["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group", "jobType"]
    assert runs["filters"]["filters"] == []
    assert {"summary:verdict", "summary:plateau_round", "summary:ceiling", "summary:why"} <= set(COLUMNS)
    assert set(COLUMNS) <= set(runs["runFeed"]["columnPinned"])

    (runs,) = definition(workspace("somebody", "a_project", "ablation"))["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["jobType"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["op"], only["value"]) == ("group", "=", "ablation")


def test_definition_as_a_file_needs_no_key_and_no_network(tmp_path: Path) -> None:
    done = command(tmp_path, "--json", str(tmp_path / "workspace.json"), WANDB_BASE_URL="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'workspace.json'}\n"), done.stderr
    spec = json.loads((tmp_path / "workspace.json").read_text())
    assert spec["project"] == "rlaif_lab"
    assert line_plots(spec)


# --- the command ------------------------------------------------------------------------------------------------------
def test_one_command_saves_it(tmp_path: Path) -> None:
    """Really posted to a server, whose copy W&B's own package then reads back."""
    server = WandbServer()
    with wandb_server(server) as url:
        login = {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}
        done = command(tmp_path, "--project", "a_project", **login)
        assert done.returncode == 0, done.stderr
        ((name, sent),) = server.views.items()
        assert (sent["entityName"], sent["projectName"], sent["type"]) == ("somebody", "a_project", "project-view")
        assert sent["displayName"] == "rlaif_lab"
        address = done.stdout.strip()
        assert address == f"{url}/somebody/a_project?nw={name.removeprefix('nw-').removesuffix('-v')}"
        read = (
            "import sys, json, wandb_workspaces.workspaces as ws\n"
            "view = ws.Workspace.from_url(sys.argv[1])\n"
            "print(json.dumps([[s.name, len(s.panels)] for s in view.sections]))"
        )
        back = subprocess.run(
            [sys.executable, "-c", read, address], capture_output=True, text=True, env={**os.environ, **login}
        )
        assert back.returncode == 0, back.stderr
    ours = workspace("somebody", "a_project")
    assert json.loads(back.stdout) == [[section.name, len(section.panels)] for section in ours.sections]


def test_without_a_key(tmp_path: Path) -> None:
    done = command(tmp_path, "--entity", "somebody")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("rlaif-workspace: ")
    assert "wandb login" in done.stderr


@pytest.mark.parametrize(
    ("server", "arguments", "message"),
    [
        (WandbServer(entity=None), (), "your W&B key belongs to no entity; say which one with --entity"),
        (WandbServer(refuses="permission denied"), ("--entity", "a_team"), "permission denied"),
    ],
)
def test_refused_in_one_sentence(tmp_path: Path, server: WandbServer, arguments: tuple[str, ...], message: str) -> None:
    with wandb_server(server) as url:
        done = command(tmp_path, *arguments, WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("rlaif-workspace: ")
    assert message in line
    assert KEY not in line


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SystemExit):
        main(["--json", "x.json"])
    assert capsys.readouterr().err == (
        "rlaif-workspace: the package wandb-workspaces is missing: pip install 'rlaif-lab[wandb]'\n"
    )
