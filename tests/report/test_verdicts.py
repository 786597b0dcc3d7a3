"""From run folders to what is said about each arm, in the terminal and in the CSV files."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_lab.cli.report import main, report
from rlaif_lab.plateau.detector import Detector, Evidence, metrics, nothing_yet, step
from rlaif_lab.report.arms import Arm, Study, study
from rlaif_lab.report.load import Run, load
from rlaif_lab.report.verdict_tables import verdict_record
from rlaif_lab.report.verdicts import ArmVerdict, across_tasks, arm_verdicts, differences, run_verdict
from rlaif_lab.seeding import rng_for

WriteRun = Callable[..., Path]
ROUNDS = 16
DETECTOR = Detector(delta=0.01, horizon=ROUNDS)
CONFIG = {"_target_": "rlaif_lab.plateau.detector.Detector", **asdict(DETECTOR)}


@pytest.fixture
def loop(write_run: WriteRun) -> Callable[..., Path]:
    """Writes a run as the loop leaves it: quality that rises to ``ceiling`` with ``tau``, the detector's metrics from
    each prompt's changes, the changes themselves, and D, gap and eps that fit."""

    def write(arm: str, seed: int, ceiling: float, tau: float, prompts: int = 4000, **given: Any) -> Path:
        rng = rng_for("loop", arm, seed)
        left = (ceiling - 0.4) * np.exp(-np.arange(ROUNDS + 1) / tau)
        quality = ceiling - left
        sampled = rng.binomial(1300, quality) / 1300
        evidence: Evidence = nothing_yet()
        logged: dict[str, list[float | None]] = defaultdict(lambda: [None] * (ROUNDS + 1))
        changes = []
        for index in range(1, ROUNDS + 1):
            gain = quality[index] - quality[index - 1]
            changes.append(rng.choice([-1.0, 0.0, 1.0], prompts, p=[(0.2 - gain) / 2, 0.8, (0.2 + gain) / 2]))
            evidence = step(DETECTOR, evidence, [changes[-1]], index)
            logged["quality/change"][index] = float(changes[-1].mean())
            logged["quality/change_stderr"][index] = float(changes[-1].std() / math.sqrt(prompts))
            for name, value in metrics(DETECTOR, evidence).items():
                logged[name][index] = value
        for index in range(ROUNDS):
            logged["gap/diversity_D"][index] = 0.2 * math.exp(-index / tau)
            logged["gap/informativeness_I"][index] = 0.8
            logged["gap/best_of_2"][index] = 0.16 * math.exp(-index / tau)
            logged["gap/update_loss_eps"][index] = 0.16 * math.exp(-index / tau) - quality[index + 1] + quality[index]
        given.setdefault("changes", {"detector": CONFIG})
        folder = write_run(arm, seed, sampled.tolist(), extra=dict(logged), **given)
        for index, some in enumerate(changes, start=1):
            (folder / f"round_{index:03d}").mkdir()
            content = {"measure": "gold", "changes": some.tolist()}
            (folder / f"round_{index:03d}" / "changes.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture
def sweep(tmp_path: Path, loop: Callable[..., Path]) -> Path:
    """self stops at .6 (tau 2), middle at .7 (tau 3), oracle gains .033 to .020 a round and is at .813; 4 seeds."""
    for seed in range(4):
        loop("self", seed, 0.6, 2.0)
        loop("oracle", seed, 1.4, 30.0)
        loop("middle", seed, 0.7, 3.0)
    return tmp_path / "sweep"


def read(folder: Path) -> Study:
    return study(load(folder), folder.name)


def verdicts(folder: Path, **given: Any) -> dict[str, ArmVerdict]:
    return {verdict.label: verdict for verdict in arm_verdicts(read(folder), **given)}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures and the page out, which take seconds."""
    monkeypatch.setattr("rlaif_lab.report.page.page", lambda *given, **named: "")
    monkeypatch.setattr("rlaif_lab.report.figures.group_figure", lambda *given, **named: None)
    monkeypatch.setattr("rlaif_lab.report.figures.save", lambda *given, **named: None)


# --- what is said -------------------------------------------------------------------------------------------------
def test_an_arm_that_stopped_and_one_that_goes_on(sweep: Path) -> None:
    said = verdicts(sweep)
    own, oracle = said["self"], said["oracle"]
    assert own.state == "plateaued"
    assert own.trend.since is not None
    assert 2 <= own.trend.since < own.round  # the gain falls below .01 in round 6
    assert own.saturation.promises
    assert own.saturation.delta == 0.01
    assert own.headline == f"plateaued at round {own.round}"  # four seeds do not tell a ceiling
    assert own.outlook.startswith("ceiling not identified: ")
    assert own.attribution is not None
    assert own.cause == "unknown"  # no samples are stored here
    assert own.why.startswith("cause not known without gold's view of the stored samples; D fell from ")
    assert own.families is not None
    assert own.families.errors[0].error.mean < 0.02
    assert sum(own.votes.values()) == 4
    assert oracle.state == "improving"
    assert not oracle.saturation.identified
    assert "ceiling" not in oracle.headline
    assert oracle.attribution is not None


def test_pgr_counts_from_the_floor_to_the_oracle(sweep: Path) -> None:
    said = verdicts(sweep)
    assert said["self"].pgr is None
    assert said["oracle"].pgr is None
    pgr = said["middle"].pgr
    assert pgr is not None
    assert (pgr.floor, pgr.ceiling, pgr.seeds) == ("self", "oracle", 4)
    assert pgr.interval.mean == pytest.approx(0.1 / 0.213, rel=0.2)
    floor = verdicts(sweep, floor="middle")
    assert floor["middle"].pgr is None
    assert floor["self"].pgr is not None
    assert floor["self"].pgr.floor == "middle"


def test_seeds_are_pooled_by_the_changes_of_their_prompts(sweep: Path) -> None:
    """Without the changes of one run the logged evidence is averaged; without that there is no detector."""
    pooled = verdicts(sweep)["self"].verdict.traces["plateaued"].evidence
    (sweep / "judge=self,seed=0" / "round_003" / "changes.json").unlink()
    averaged = verdicts(sweep)["self"].verdict
    assert averaged.traces["plateaued"].evidence != pytest.approx(pooled)
    first = [run.value("detector/plateau_evidence", 1) for run in load(sweep).runs if run.arm == "self"]
    assert averaged.traces["plateaued"].evidence[0] == pytest.approx(sum(first) / 4)


def test_a_run_without_a_detector(tmp_path: Path, loop: Callable[..., Path]) -> None:
    for seed in range(3):
        loop("self", seed, 0.6, 2.0, changes={"detector": None})
    said = verdicts(tmp_path / "sweep")["self"]
    assert (said.state, said.short) == ("undecided", "undecided")
    assert said.headline == "undecided (no detector)"
    assert not said.verdict.traces


def test_without_gold_nothing_is_made_up(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in range(3):
        folder = write_run("self", seed, [0.5, 0.5], extra={"gap/diversity_D": [None, None]})
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines = [json.dumps(row | {"quality/sampled": None, "quality/greedy": None}) + "\n" for row in rows]
        (folder / "metrics.jsonl").write_text("".join(lines))
    said = verdicts(tmp_path / "sweep")["self"]
    assert (said.state, said.attribution, said.families, said.pgr) == ("undecided", None, None, None)
    assert said.saturation.reason == "no whole run with gold quality"
    assert said.why == "not known: what is left needs gold quality in every round"
    assert differences(read(tmp_path / "sweep"), [said]) == []


def test_null_drift_and_a_hacked_arm(tmp_path: Path, write_run: WriteRun) -> None:
    """Under random quality falls by .02 a round; self loses .3 while its judge finds it better and better."""
    flat: dict[str, list[float | None]] = {"judge/win_rate_vs_round_0": [0.5] * 5}
    for seed in range(3):
        swing = seed / 1000
        write_run("random", seed, [0.5 - 0.02 * i - swing * (i == 4) for i in range(5)], extra=flat)
        won: list[float | None] = [0.5, 0.6, 0.7, 0.8, 0.9 + swing]
        extra = {"judge/win_rate_vs_round_0": won}
        write_run("self", seed, [0.5, 0.45, 0.4, 0.3, 0.2 - swing], extra=extra)
    said = verdicts(tmp_path / "sweep")
    own, null = said["self"], said["random"]
    assert own.null_drift is not None
    assert own.null_drift.arm == "random"
    assert own.null_drift.drift.mean == pytest.approx(-0.02 - 0.001 / 4)
    assert "null drift: under random quality moves by -0.0203" in own.outlook
    assert "and delta = 0.01 does not exceed this drift" in own.outlook
    assert null.null_drift is None
    assert own.hacked is not None
    assert own.headline.endswith(
        "; hacked: its judge prefers it to round 0 more often than at first (+0.401), "
        "while quality has changed by -0.301"
    )
    assert null.hacked is None
    record = verdict_record(own)
    assert (record["hacked"], record["null_arm"]) == (1, "random")
    assert verdicts(tmp_path / "sweep", null="self")["random"].null_drift is not None
    assert verdicts(tmp_path / "sweep", null="nobody")["self"].null_drift is None


def test_prompts_that_come_again_are_told(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6, 0.7], extra={"detector/repeated_prompts": [None, 0.0, 0.4]})
    said = verdicts(tmp_path / "sweep")["self"]
    assert said.repeated == 0.4
    assert said.headline.endswith("with alpha void: up to 40% of a round's evaluation prompts were asked before")


def test_an_arm_without_a_whole_run(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6], rounds=5)
    said = verdicts(tmp_path / "sweep")["self"]
    assert (said.seeds, said.state, said.saturation.identified) == (0, "undecided", False)


def test_a_single_run_as_it_ends(sweep: Path) -> None:
    """From its config and its rows alone, nulls and all, as they are at hand when it ends."""
    folder = sweep / "judge=self,seed=1"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    said = run_verdict(json.loads((folder / "config.json").read_text()), rows)
    alarms = [row["round"] for row in rows if row.get("detector/plateau_alarm")]
    assert said.verdict.traces["plateaued"].alarms == tuple(alarms)
    assert said.saturation.seeds == 1
    assert said.families is None
    assert said.attribution is not None
    assert said.attribution.seeds == 1
    assert run_verdict({"arm": "self", "seed": 0, "rounds": 3}, []).state == "undecided"


# --- several tasks ------------------------------------------------------------------------------------------------
def test_arms_over_several_tasks(tmp_path: Path, write_run: WriteRun) -> None:
    """Two tasks, final qualities .6 and .8 in every seed; seed 2 ran on one of them only."""
    for task, final in (("addition", 0.6), ("lookup", 0.8)):
        for seed in range(3):
            if (task, seed) != ("lookup", 2):
                write_run("self", seed, [0.5, final], name=f"{task}{seed}", changes={"task": {"name": task}})
    (found,) = across_tasks(read(tmp_path / "sweep"))
    assert (found.arm, found.tasks, found.seeds) == ("self", ("addition", "lookup"), 2)
    assert found.interval == pytest.approx((0.7, 0.7, 0.7))


def test_one_task_is_no_aggregate(sweep: Path) -> None:
    assert across_tasks(read(sweep)) == []


# --- what is written ----------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("undrawn")
def test_the_files_and_the_terminal(sweep: Path) -> None:
    shown = report(sweep)
    said = verdicts(sweep)
    folder = sweep / "report"
    assert f"plateaued at {said['self'].round}" in shown
    assert f"self: {said['self'].headline}" in shown
    assert f"  why: {said['self'].why}" in shown
    assert f"  ceiling not identified: {said['oracle'].saturation.reason}" in shown
    assert "adjusted for the 3 comparisons of arms (Holm)" in shown

    main_table = {row["arm"]: row for row in table(folder / "table.csv")}
    assert main_table["self"]["verdict"] == "plateaued"
    assert int(main_table["self"]["verdict_round"]) == said["self"].round
    assert main_table["self"]["cause"] == "unknown"
    assert main_table["oracle"]["ceiling"] == main_table["oracle"]["verdict_round"] * 0 == ""
    assert main_table["self"]["pgr"] == ""
    assert float(main_table["middle"]["pgr"]) == said["middle"].pgr.interval.mean

    records = {row["arm"]: row for row in table(folder / "verdicts.csv")}
    assert records["oracle"]["ceiling_identified"] == "0"
    assert all(records["oracle"][name] == "" for name in ("ceiling", "ceiling_condition", "remaining_gain"))
    assert records["oracle"]["ceiling_not_identified_because"] == said["oracle"].saturation.reason
    assert float(records["self"]["gain_since"]) < 0.01
    promised = [row for row in table(folder / "promises.csv") if row["arm"] == "self"]
    assert {"exponential", "linear", "hump"} <= {row["family"] for row in promised}
    assert all((row["level"] == "") == (row["excluded"] == "1") for row in promised)
    assert sum(int(records["self"][f"runs_{state}"]) for state in ("improving", "plateaued", "undecided")) == 4

    families = [row for row in table(folder / "fits.csv") if row["arm"] == "self"]
    assert {row["family"] for row in families} == {"constant", "linear", "exponential", "power law", "hump"}
    assert float(families[0]["behind_best"]) == 0.0
    phases = {row["quantity"]: row for row in table(folder / "attribution.csv") if row["arm"] == "self"}
    assert float(phases["diversity_D"]["early"]) == pytest.approx(0.2 * np.exp(-np.arange(4) / 2.0).mean())
    assert phases["diversity_D"]["late_rounds"] == "12-15"

    pairs = [row for row in table(folder / "differences.csv") if row["quantity"] == "quality_sampled_final"]
    assert [(row["first"], row["second"]) for row in pairs] == [
        ("middle", "oracle"),
        ("middle", "self"),
        ("oracle", "self"),
    ]
    assert all(float(row["p"]) <= float(row["p_holm"]) <= 1.0 for row in pairs)
    assert not (folder / "across_tasks.csv").exists()


@pytest.mark.usefixtures("undrawn")
def test_another_floor(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(sweep), "--floor", "middle"])
    records = {row["arm"]: row for row in table(sweep / "report" / "verdicts.csv")}
    assert records["self"]["pgr_floor"] == "middle"
    with pytest.raises(SystemExit):
        main([str(sweep), "--floor", "midle"])
    assert "no arm 'midle' to compare with; there is middle, oracle, self" in capsys.readouterr().err


# --- real results -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("experiments/*/results*.csv")), ids=lambda path: path.parent.name
)
def test_real_sweeps(path: Path) -> None:
    """Whatever is in them, each arm gets a whole record, and no ceiling without grounds."""
    rows = table(path)
    if not {"arm", "seed", "round", "quality/sampled"} <= set(rows[0]):
        pytest.skip("no runs of the loop")
    by_run: dict[tuple[str, int], dict[int, dict[str, float]]] = defaultdict(dict)
    for row in rows:
        values = {key: float(v) if v else math.nan for key, v in row.items() if key not in ("arm", "seed", "run")}
        by_run[row["arm"], int(row["seed"])][int(row["round"])] = values
    arms: dict[str, list[Run]] = defaultdict(list)
    for (arm, seed), of_run in by_run.items():
        arms[arm].append(Run(f"{arm}/{seed}", arm, seed, max(of_run), {"arm": arm, "seed": seed}, of_run))
    found = Study("real", "real", [Arm(name, {}, runs) for name, runs in sorted(arms.items())], [], [], [])
    said = arm_verdicts(found)
    assert [verdict.label for verdict in said] == sorted(arms)
    for verdict in said:
        fitted = verdict.saturation
        assert verdict.attribution is not None
        assert fitted.identified == (not fitted.reason) == bool(fitted.condition)
        assert math.isnan(fitted.ceiling.mean) == (not fitted.identified)
        if fitted.identified:
            assert 0.0 <= fitted.ceiling.low <= fitted.ceiling.high <= 1.0
    assert differences(found, said)
