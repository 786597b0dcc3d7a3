"""Which runs count as seeds of one arm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlaif_lab.config.older import with_later_settings
from rlaif_lab.report.arms import Arm, Study, baseline_for, differences, study
from rlaif_lab.report.load import load

WriteRun = Callable[..., Path]
Q = [0.5, 0.6]


def read(tmp_path: Path) -> Study:
    return study(load(tmp_path / "sweep"), "sweep")


def labels(found: Study) -> dict[str, list[int]]:
    return {arm.label: [run.seed for run in arm.runs] for arm in found.arms}


def named(found: Study, label: str) -> Arm:
    return next(arm for arm in found.arms if arm.label == label)


def test_seeds_of_one_config_are_one_arm(tmp_path: Path, write_run: WriteRun) -> None:
    for arm in ("self", "oracle"):
        for seed in (1, 0):
            # What does not change a number does not split an arm.
            write_run(arm, seed, Q, changes={"threads": seed + 1, "git_commit": f"commit {seed}"})
    found = read(tmp_path)
    assert labels(found) == {"oracle": [0, 1], "self": [0, 1]}
    assert differences(found.arms) == {"judge.name": ["oracle", "self"]}
    assert not found.notes
    assert not found.problems


def test_same_arm_and_seed_but_another_config_is_another_arm(tmp_path: Path, write_run: WriteRun) -> None:
    for beta in (0.1, 0.5):
        for seed in (0, 1):
            write_run("self", seed, Q, name=f"self{beta}/{seed}", changes={"learner.beta": beta})
    assert labels(read(tmp_path)) == {"self (learner.beta=0.1)": [0, 1], "self (learner.beta=0.5)": [0, 1]}


def test_seeds_that_differ_in_config_are_not_pooled(tmp_path: Path, write_run: WriteRun) -> None:
    """No seed is there twice, and still these are not repetitions of one another."""
    write_run("self", 0, Q, changes={"learner.beta": 0.1})
    write_run("self", 1, Q, changes={"learner.beta": 0.1})
    write_run("self", 2, Q, changes={"learner.beta": 0.5})
    assert labels(read(tmp_path)) == {"self (learner.beta=0.1)": [0, 1], "self (learner.beta=0.5)": [2]}


def test_a_setting_with_one_value_per_seed_is_pooled_and_said(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in (0, 1):
        write_run("self", seed, Q, changes={"learner.seed": seed, "learner.folder": f"base_{seed}"})
    found = read(tmp_path)
    assert labels(found) == {"self": [0, 1]}
    assert [note for note in found.notes if "learner.folder" in note]
    assert not [note for note in found.notes if "learner.seed" in note]


def test_a_setting_that_came_with_a_later_version_splits_no_arm(tmp_path: Path, write_run: WriteRun) -> None:
    """At its default it changes nothing, so that a run without it is one with its default."""
    lab = {"_target_": "rlaif_lab.training.settings.TrainerConfig"}
    write_run("self", 0, Q, changes={"trainer": lab})
    later = {"engine": {"_target_": "rlaif_lab.sampling.exact.Exact"}, "callbacks": {}, "metrics": {}}
    write_run("self", 1, Q, changes={"trainer": lab | {"devices": 1, "args": {}}, "lag": 0} | later)
    assert labels(read(tmp_path)) == {"self": [0, 1]}
    write_run("self", 2, Q, changes={"trainer": lab | {"devices": 2}})
    assert labels(read(tmp_path)) == {"self (trainer.devices=1)": [0, 1], "self (trainer.devices=2)": [2]}


def test_the_defaults_of_other_packages_are_not_asked_for() -> None:
    foreign = {"judge": {"_target_": "somebody.judges.Mine"}}
    assert with_later_settings(foreign)["judge"] == foreign["judge"]
    assert with_later_settings({"judge": {"_target_": "rlaif_lab.no.such.Class"}})["judge"] == {
        "_target_": "rlaif_lab.no.such.Class"
    }


def test_runs_of_different_lengths_are_never_pooled(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6])
    write_run("self", 1, [0.5, 0.6, 0.7])
    assert labels(read(tmp_path)) == {"self (rounds=1)": [0], "self (rounds=2)": [1]}


def test_a_repeated_run_is_no_new_seed(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6], name="2026-01-01/a")
    write_run("self", 0, [0.5, 0.7], name="2026-01-02/a")
    write_run("self", 0, [0.5], rounds=1, name="2026-01-03/a")
    found = read(tmp_path)
    (arm,) = found.arms
    assert [run.name for run in arm.runs] == ["2026-01-02/a"]
    assert [problem.name for problem in found.problems] == ["2026-01-01/a", "2026-01-03/a"]
    assert all("same arm, seed and config as 2026-01-02/a" in problem.reason for problem in found.problems)


def test_labels_take_names_and_few_keys(tmp_path: Path, write_run: WriteRun) -> None:
    """DPO and RLOO differ in many keys, but one name tells them apart."""
    for learner in ("dpo", "rloo"):
        changes = {"learner": {"name": learner, "_target_": f"learners.{learner}", learner: 1}}
        write_run("self", 0, Q, name=learner, changes=changes)
    assert list(labels(read(tmp_path))) == ["self (learner.name=dpo)", "self (learner.name=rloo)"]


def test_baseline_agrees_in_what_was_swept(tmp_path: Path, write_run: WriteRun) -> None:
    for arm, betas in (("self", (0.1, 0.5)), ("oracle", (0.1, 0.5)), ("random", (0.5,))):
        for beta in betas:
            write_run(arm, 0, Q, name=f"{arm}{beta}", changes={"learner.beta": beta})
    found = read(tmp_path)
    for label, expected in (
        ("oracle (learner.beta=0.1)", "self (learner.beta=0.1)"),
        ("oracle (learner.beta=0.5)", "self (learner.beta=0.5)"),
        ("random", "self (learner.beta=0.5)"),
    ):
        against = baseline_for(named(found, label), found.arms, "self")
        assert against is not None
        assert against.label == expected
    assert baseline_for(named(found, "self (learner.beta=0.1)"), found.arms, "self") is None
    # A full label is taken at its word.
    against = baseline_for(named(found, "random"), found.arms, "oracle (learner.beta=0.1)")
    assert against is not None
    assert against.label == "oracle (learner.beta=0.1)"


def test_no_baseline_where_none_fits(tmp_path: Path, write_run: WriteRun) -> None:
    """The only self ran with beta .5, so it is nothing to compare the oracle at .1 with."""
    write_run("self", 0, Q, name="self", changes={"learner.beta": 0.5})
    for beta in (0.1, 0.5):
        write_run("oracle", 0, Q, name=f"oracle{beta}", changes={"learner.beta": beta})
    found = read(tmp_path)
    assert baseline_for(named(found, "oracle (learner.beta=0.1)"), found.arms, "self") is None
    assert baseline_for(named(found, "oracle (learner.beta=0.5)"), found.arms, "self") is not None


def test_blocks_are_seeds_of_one_arm_and_their_weights_are_printed(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in (0, 1):
        policy = {"seed": 2 * seed}
        write_run("self", seed, Q, changes={"block": seed, "policy": policy, "weights": {"policy": f"{seed}" * 64}})
    found = read(tmp_path)
    assert labels(found) == {"self": [0, 1]}
    assert found.notes == ["Weights of the policy: block 0: 000000000000, block 1: 111111111111."]


def test_unequal_organisms_of_one_block_are_not_pooled_in_silence(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in (0, 1):
        write_run("self", seed, Q, changes={"block": 0, "weights": {"policy": f"{seed}" * 64}})
    notes = " ".join(read(tmp_path).notes)
    assert "Block 0 has unequal weights as policy (000000000000: " in notes
    assert "these runs were pooled" in notes
    assert "All seeds share one policy organism" in notes
