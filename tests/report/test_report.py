"""``rlaif-report`` from run folders to files: the numbers, what is left out and said, and bad input."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlaif_lab.cli.report import main, report
from rlaif_lab.report.arms import study
from rlaif_lab.report.curves import draw
from rlaif_lab.report.figures import group_figure, styles, svg
from rlaif_lab.report.load import load
from rlaif_lab.report.panels import OVERVIEW
from rlaif_lab.report.tables import summaries, terminal_table, write_curves, write_table
from rlaif_lab.report.verdicts import arm_verdicts

WriteRun = Callable[..., Path]
T2 = 4.302653  # t(.975, 2 degrees of freedom)
T1 = 12.706205  # t(.975, 1)


def tables(folder: Path, baseline: str = "self") -> str:
    """The report without its figures, which take seconds; returns what the terminal shows."""
    whole = study(load(folder), folder.name)
    rows = summaries(whole, baseline)
    verdicts = arm_verdicts(whole, baseline)
    (folder / "report").mkdir(exist_ok=True)
    write_table(folder / "report" / "table.csv", rows, verdicts, baseline)
    write_curves(folder / "report" / "curves.csv", whole)
    return terminal_table(rows, verdicts, baseline)


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "report" / "table.csv").open(newline="") as file:
        return {row["arm"]: row for row in csv.DictReader(file)}


def curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "report" / "curves.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(row: dict[str, str], name: str) -> list[float]:
    return [float(row[name + suffix]) for suffix in ("", "_low", "_high")]


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "from rlaif_lab.cli.report import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out, which take seconds, for tests that look at the text only."""
    monkeypatch.setattr("rlaif_lab.report.figures.group_figure", lambda *given: None)
    monkeypatch.setattr("rlaif_lab.report.figures.time_figure", lambda *given: None)
    monkeypatch.setattr("rlaif_lab.report.figures.save", lambda *given: None)


@pytest.fixture
def sweep(tmp_path: Path, write_run: WriteRun) -> Path:
    """self gains .1, .2, .3 (final .6, .7, .8); oracle gains .4 with each of seeds 0, 1 and is broken off at seed 2."""
    for seed, final in enumerate((0.6, 0.7, 0.8)):
        write_run("self", seed, [0.5, 0.55, final])
    write_run("oracle", 0, [0.5, 0.7, 0.9])
    write_run("oracle", 1, [0.4, 0.6, 0.8])
    write_run("oracle", 2, [0.5, 0.95], rounds=2)
    return tmp_path / "sweep"


# --- the numbers ------------------------------------------------------------------------------------------------------
def test_table_is_what_a_hand_computes(sweep: Path) -> None:
    shown = tables(sweep)
    rows = table(sweep)
    assert list(rows) == ["oracle", "self"]  # best first
    own = rows["self"]
    half = T2 * 0.1 / math.sqrt(3)  # .6, .7, .8: standard deviation .1
    assert numbers(own, "quality_sampled_final") == pytest.approx([0.7, 0.7 - half, 0.7 + half], abs=1e-6)
    assert numbers(own, "quality_sampled_gain") == pytest.approx([0.2, 0.2 - half, 0.2 + half], abs=1e-6)
    assert numbers(own, "quality_sampled_round_0") == pytest.approx([0.5, 0.5, 0.5])
    assert numbers(own, "quality_greedy_final") == pytest.approx([0.9, 0.9 - half, 0.9 + half], abs=1e-6)
    assert numbers(own, "judge_accuracy_final") == pytest.approx([0.8, 0.8, 0.8])
    assert numbers(own, "kl_per_sequence_final") == pytest.approx([1.0, 1.0, 1.0])
    assert numbers(own, "wall_seconds") == pytest.approx([4.0, 4.0, 4.0])
    assert own["seeds"] == own["quality_sampled_final_n"] == "3"
    assert own["rounds"] == "2"
    assert own["quality_sampled_minus_self"] == ""
    oracle = rows["oracle"]
    half = T1 * 0.05  # .9, .8: standard error .05
    assert numbers(oracle, "quality_sampled_final") == pytest.approx([0.85, 0.85 - half, 0.85 + half], abs=1e-5)
    # Paired with self by seed: .9 - .6 = .3 and .8 - .7 = .1.
    half = T1 * 0.1
    assert numbers(oracle, "quality_sampled_minus_self") == pytest.approx([0.2, 0.2 - half, 0.2 + half], abs=1e-5)
    # Paired with its own round 0, both seeds gain .4, though their levels differ.
    assert numbers(oracle, "quality_sampled_gain") == pytest.approx([0.4, 0.4, 0.4])
    assert oracle["seeds"] == oracle["quality_sampled_minus_self_n"] == "2"
    assert "0.850 ± 0.635" in shown


def test_another_baseline(sweep: Path) -> None:
    tables(sweep, "oracle")
    row = table(sweep)["self"]
    half = T1 * 0.1
    assert numbers(row, "quality_sampled_minus_oracle") == pytest.approx([-0.2, -0.2 - half, -0.2 + half], abs=1e-5)
    with pytest.raises(ValueError, match="no arm 'orakel' to compare with; there is oracle, self"):
        report(sweep, baseline="orakel")


def test_curves_hold_every_metric_of_every_round(sweep: Path) -> None:
    tables(sweep)
    rows = curves(sweep)
    assert len(rows) == 5 * 3 + 2
    row = next(r for r in rows if (r["arm"], r["seed"], r["round"]) == ("self", "2", "1"))
    assert float(row["quality/sampled"]) == 0.55
    assert float(row["gap/diversity_D"]) == 0.2
    assert row["gap/informativeness_I"] == ""  # null: undefined
    assert row["complete"] == "1"
    broken_off = [r for r in rows if (r["arm"], r["seed"]) == ("oracle", "2")]
    assert [(r["round"], r["complete"]) for r in broken_off] == [("0", "0"), ("1", "0")]


def test_undefined_in_one_seed_lowers_that_n_only(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6], extra={"judge/accuracy": [None, None]})
    write_run("self", 1, [0.5, 0.6], extra={"judge/accuracy": [0.7, None]})
    tables(tmp_path / "sweep")
    row = table(tmp_path / "sweep")["self"]
    assert (row["seeds"], row["judge_accuracy_final_n"], row["judge_accuracy_final"]) == ("2", "1", "0.7")


# --- few seeds, unfinished runs ---------------------------------------------------------------------------------------
@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_values_and_no_interval(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run("self", 0, [0.5, 0.6])
    report(folder)  # a single run's own folder works as well
    row = table(folder)["self"]
    assert float(row["quality_sampled_final"]) == 0.6
    assert row["quality_sampled_final_low"] == row["quality_sampled_final_high"] == ""
    assert "n/a (1 seed)" in (folder / "report" / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_incomplete_and_failed_runs_are_listed(sweep: Path) -> None:
    failed = sweep / "judge=self,seed=3"
    (failed / ".hydra").mkdir(parents=True)
    (failed / "config.json").write_text('{"arm": "se')  # a full disk, say
    shown = report(sweep)
    html = (sweep / "report" / "report.html").read_text()
    for text in (shown, html):
        assert "judge=self,seed=3" in text
        assert "failed, or still in its first round" in text
        assert "judge=oracle,seed=2" in text
        assert "incomplete: 1 of rounds 0 to 2 not logged, the first is round 2" in text


def test_an_arm_without_a_complete_run_is_still_there(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6])
    write_run("oracle", 0, [0.5, 0.9], rounds=5)
    tables(tmp_path / "sweep")
    row = table(tmp_path / "sweep")["oracle"]
    assert (row["seeds"], row["quality_sampled_final"]) == ("0", "")


def test_a_run_stopped_on_a_plateau_is_whole(tmp_path: Path, write_run: WriteRun) -> None:
    """Seed 0 was ended in round 2 of 5, seed 1 went on to the end: each counts with its own last round."""
    stopped = write_run("self", 0, [0.5, 0.6, 0.7], rounds=5)
    (stopped / "stopped.json").write_text('{"round": 2, "state": "plateaued"}')
    write_run("self", 1, [0.5, 0.6, 0.7, 0.8, 0.8, 0.9])
    tables(tmp_path / "sweep")
    row = table(tmp_path / "sweep")["self"]
    assert row["seeds"] == "2"
    assert float(row["quality_sampled_final"]) == pytest.approx(0.8)
    assert float(row["judge_accuracy_final"]) == pytest.approx(0.8)
    assert not study(load(tmp_path), "x").problems


def test_runs_at_any_depth(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6], name="experiment/2026-01-01/judge=self/seed=0")
    write_run("self", 1, [0.5, 0.6], name="elsewhere/1")
    tables(tmp_path)
    assert table(tmp_path)["self"]["seeds"] == "2"


# --- the page --------------------------------------------------------------------------------------------------------
class References(HTMLParser):
    """Everything a page would load or link to, and whether its tags balance."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_self_contained(sweep: Path) -> None:
    report(sweep)
    html = (sweep / "report" / "report.html").read_text()
    assert 'name="viewport"' in html
    parser = References()
    parser.feed(html)
    assert not parser.open
    assert not {"script", "link", "iframe", "object", "img"} & set(parser.tags)
    files = {reference for reference in parser.found if not reference.startswith("#")}
    assert files <= {path.name for path in (sweep / "report").iterdir()}, "a link to a file that is not beside the page"
    assert {"overview.png", "overview.svg", "overview.csv", "gap.csv", "cost.csv", "table.csv", "curves.csv"} <= files
    targets = {reference[1:] for reference in parser.found if reference.startswith("#")}
    assert targets <= set(parser.ids)
    assert "url(" not in html
    assert "@import" not in html


def test_svg_names_no_outside_address(sweep: Path) -> None:
    whole = study(load(sweep), "sweep")
    drawn = draw([OVERVIEW], whole.arms)["overview"]
    image = svg(group_figure(drawn, [arm.label for arm in whole.arms], styles(whole.arms)), "salt")
    assert re.findall(r"https?://[^\"]+", re.sub(r'xmlns(:\w+)?="[^"]*"', "", image)) == []


@pytest.mark.usefixtures("undrawn")
def test_names_are_escaped(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("<script>alert(1)</script> & $title", 0, [0.5, 0.6], name="run")
    report(tmp_path / "sweep")
    html = (tmp_path / "sweep" / "report" / "report.html").read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $title" in html


@pytest.mark.usefixtures("undrawn")
def test_provenance(sweep: Path) -> None:
    (sweep / "multirun.yaml").write_text(
        "hydra:\n  overrides:\n    hydra: [hydra.mode=MULTIRUN]\n    task: ['judge=self,oracle', 'seed=0,1,2']\n"
    )
    report(sweep)
    html = (sweep / "report" / "report.html").read_text()
    assert "<pre>rlaif-lab -m judge=self,oracle seed=0,1,2</pre>" in html
    assert "0123abc" in html
    assert "<td>judge.name</td><td>oracle</td><td>self</td>" in html
    assert "judge=oracle seed=2" in html  # the overrides of each run


def test_files_and_repeatability(sweep: Path) -> None:
    """A second report (over a folder that now holds report/) writes the same bytes."""
    report(sweep)
    folder = sweep / "report"
    names = {"report.html", "table.csv", "curves.csv", "verdicts.csv", "fits.csv", "differences.csv"}
    figures = ("overview", "gap", "progress", "judge", "coverage", "optimisation", "cost")
    names |= {f"{name}.{ending}" for name in figures for ending in ("png", "svg", "csv")}
    assert {path.name for path in folder.iterdir()} == names
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report(sweep)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_arms_look_different_from_one_another(tmp_path: Path, write_run: WriteRun) -> None:
    for index in range(30):
        write_run(f"arm {index}", 0, [0.5, 0.6])
    looks = styles(study(load(tmp_path), "x").arms)
    assert len(set(looks.values())) == 30


@pytest.mark.filterwarnings("error")
def test_any_arm_name_can_be_drawn(tmp_path: Path, write_run: WriteRun) -> None:
    for index, name in enumerate(("_hidden", r"$\nothing{$", "x" * 200)):
        write_run(name, 0, [0.5, 0.6], name=str(index))
    whole = study(load(tmp_path), "x")
    labels = [arm.label for arm in whole.arms]
    figure = group_figure(draw([OVERVIEW], whole.arms)["overview"], labels, styles(whole.arms))
    svg(figure, "salt")
    texts = [text.get_text().replace("\n", "") for text in figure.legends[0].get_texts()]
    assert texts == [arm.label for arm in whole.arms]


# --- bad input -------------------------------------------------------------------------------------------------------
Refused = Callable[[Path], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Reports on a folder, which must fail with one sentence; returns it."""

    def refused(folder: Path) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([str(folder)])
        assert exit_.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("rlaif-report: ")
        return line

    return refused


def test_exit_code_of_the_process(tmp_path: Path) -> None:
    done = command(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"rlaif-report: no run in {str(tmp_path)!r}: a run folder holds metrics.jsonl or .hydra/\n"


def test_no_such_folder(tmp_path: Path, refused: Refused) -> None:
    assert "no folder" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(tmp_path / "file")


def test_folder_without_runs(tmp_path: Path, refused: Refused) -> None:
    assert "no run in" in refused(tmp_path)
    assert not (tmp_path / "report").exists()


def test_only_failed_runs(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    assert "has finished a round; 1 without one: a" in refused(tmp_path)


# --- one damaged run of many -----------------------------------------------------------------------------------------
def damaged(run: Path, how: str) -> None:
    metrics, config = run / "metrics.jsonl", run / "config.json"
    lines = metrics.read_text().splitlines()
    known = json.loads(config.read_text())
    if how == "a line cut off":
        metrics.write_text("\n".join([lines[0], lines[1][:-9], lines[2], ""]))
    elif how == "a block of NUL":
        metrics.write_bytes(lines[0].encode() + b"\n" + bytes(4096) + b"\n")
    elif how == "no text":
        metrics.write_bytes(b"\xff\xfe\x00\x01\n\n")
    elif how == "a folder for a file":
        metrics.unlink()
        metrics.mkdir()
    elif how == "a metric that is text":
        metrics.write_text('{"round": 0, "quality/sampled": "good"}\n')
    elif how == "a round that is text":
        metrics.write_text('{"round": "0"}\n')
    elif how == "no round":
        metrics.write_text('{"quality/sampled": 0.5}\n')
    elif how == "nested without end":
        metrics.write_text("[" * 100_000 + "\n")
    elif how == "a round of the far future":
        metrics.write_text('{"round": 100000000000}\n')
    elif how == "no config":
        config.unlink()
    elif how == "a broken stop":
        (run / "stopped.json").write_text('{"round": "two"}')
    elif how == "broken changes":
        (run / "round_001").mkdir()
        (run / "round_001" / "changes.json").write_text('{"changes": 3}')
    else:
        config.write_text(
            {
                "config: half": "{",
                "config: empty": "",
                "config: a list": "[]",
                "config: of another type": json.dumps(known | {"arm": 3}),
                "config: a key is missing": json.dumps({k: v for k, v in known.items() if k != "rounds"}),
                "config: rounds without end": json.dumps(known | {"rounds": 10**12}),
                "config: a family that is text": json.dumps(known | {"detector": "none"}),
            }[how]
        )


DAMAGES = (
    *("a line cut off", "a block of NUL", "no text", "a folder for a file", "a metric that is text"),
    *("a round that is text", "no round", "nested without end", "a round of the far future", "no config"),
    *("a broken stop", "broken changes", "config: half", "config: empty", "config: a list"),
    *("config: of another type", "config: a key is missing", "config: rounds without end"),
    "config: a family that is text",
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_run_is_named_with_the_reason_and_the_others_are_read(sweep: Path, how: str) -> None:
    """By everybody who reads several runs, since all read them so; and a damage is no traceback."""
    (sweep / "judge=self,seed=1" / "run.json").write_text("{}")  # a run, whatever else is there
    damaged(sweep / "judge=self,seed=1", how)
    found = load(sweep)
    (problem,) = [problem for problem in found.failed if problem.name == "judge=self,seed=1"]
    assert problem.reason.startswith("damaged: ")
    assert str(sweep / "judge=self,seed=1") in problem.reason
    assert "judge=self,seed=1" not in [run.name for run in found.runs]
    assert {"judge=self,seed=0", "judge=oracle,seed=0"} <= {run.name for run in found.runs}
    assert study(found, "sweep").arms


def test_the_report_names_what_is_damaged(sweep: Path) -> None:
    damaged(sweep / "judge=self,seed=1", "config: half")
    done = command(sweep)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "! judge=self,seed=1: damaged: " in said
    assert "config.json" in said
    assert table(sweep)["self"]["seeds"] == "2"
    assert "damaged" in (sweep / "report" / "report.html").read_text()


def test_a_folder_of_damaged_runs_only_is_refused_with_the_reason(
    tmp_path: Path, write_run: WriteRun, refused: Refused
) -> None:
    write_run("self", 0, [0.5, 0.6])
    damaged(tmp_path / "sweep" / "judge=self,seed=0", "config: half")
    assert "config.json" in refused(tmp_path / "sweep")


def test_line_cut_short_by_a_crash_is_an_incomplete_run(sweep: Path) -> None:
    path = sweep / "judge=self,seed=1" / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    tables(sweep)
    assert table(sweep)["self"]["seeds"] == "2"


def test_broken_hydra_files_cost_the_command_only(sweep: Path) -> None:
    (sweep / "multirun.yaml").write_text("hydra: [")
    (sweep / "judge=self,seed=1" / ".hydra" / "overrides.yaml").write_text("- a\n b: {")
    tables(sweep)
    assert table(sweep)["self"]["seeds"] == "3"


def test_report_cannot_be_written(sweep: Path, refused: Refused) -> None:
    (sweep / "report").write_text("a file where the folder should be")
    assert "report" in refused(sweep)


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rlaif_lab.cli.report import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'matplotlib', 'scipy', 'torch', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: rlaif-report" in done.stdout


def test_command_line_prints_table_and_path(sweep: Path) -> None:
    done = command(sweep)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[:3] == ["arm", "seeds", "rounds"]
    assert done.stdout.splitlines()[-1] == str(sweep.resolve() / "report" / "report.html")
    assert json.loads((sweep / "judge=self,seed=0" / "config.json").read_text())["seed"] == 0  # runs are only read
