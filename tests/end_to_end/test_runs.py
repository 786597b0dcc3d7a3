"""Whole runs, as users start them: what they show, what they leave, where they can be started from."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end.lab import SMALL, environment, lab, rows, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_multirun_two_by_two_and_its_report(cache: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = lab(
        cache,
        "-m",
        *SMALL,
        "policy.steps=200",  # it is right now and then, so that gold has preferences
        "judge=oracle,random",
        "seed=0,1",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        f"hydra.sweep.dir={sweep}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    runs = {(c["judge"]["name"], c["seed"]): f.parent for f in sweep.rglob("config.json") if (c := _run_config(f))}
    assert set(runs) == {(judge, seed) for judge in ("oracle", "random") for seed in (0, 1)}
    for run in runs.values():
        assert [row["round"] for row in rows(run)] == [0, 1, 2, 3]
    # The policy has never seen these prompts, but seeds share no prompt order and judges share no luck:
    assert len({weights(run) for run in runs.values()}) == 4
    assert len(list((cache / "organisms").glob("addition2-*/model.safetensors"))) >= 1

    command = [sys.executable, "-c", "from rlaif_lab.cli.report import main; main()", str(sweep)]
    report = subprocess.run(command, capture_output=True, text=True, env=environment(cache))
    assert report.returncode == 0, report.stderr
    with (sweep / "report" / "table.csv").open() as file:
        assert {row["arm"] for row in csv.DictReader(file)} == {"oracle", "random"}
    assert (sweep / "report" / "report.html").stat().st_size > 10_000


def _run_config(file: Path) -> dict | None:
    content = json.loads(file.read_text())
    return content if "experiment_name" in content else None


@pytest.mark.slow
def test_what_a_run_leaves_behind(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = lab(
        cache, *SMALL, "policy.steps=200", "judge=noisy_oracle", "judge.flip=0", f"hydra.run.dir={run}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "the policy's own" not in done.stdout
    for row in rows(run)[:-1]:
        assert row["judge/accuracy"] in (1.0, None)  # an oracle, where there was anything to tell apart
        assert row["judge/invalid_rate"] == 0
    config = json.loads((run / "config.json").read_text())
    assert config["versions"]["torch"]
    for stage in ("generations", "judgements", "pairs"):
        assert (run / "round_001" / f"{stage}.parquet").is_file()
    # The policy loads in plain transformers, and says what the run's policy said.
    model, tokenizer = (c.from_pretrained(run / "policy") for c in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer("21+43=", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]


@pytest.mark.slow
def test_answers_at_once_without_heavy_imports(tmp_path: Path) -> None:
    """--help, --cfg job and typos must not load torch: that, and not a time, is what can be tested anywhere."""
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('HEAVY', sorted({'torch', 'transformers', 'pytorch_lightning', 'wandb'} & "
        "set(sys.modules))))\n"
        "from rlaif_lab.cli.lab import main\nmain()\n"
    )
    for arguments in (["--help"], ["--cfg", "job"], ["judge=strongr"], ["sede=1"], ["rounds=0", "hydra.run.dir=x"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert "HEAVY []" in done.stdout, (arguments, done.stdout, done.stderr)


@pytest.mark.slow
def test_peak_memory_of_a_tiny_run_is_below_a_gigabyte(cache: Path, tmp_path: Path) -> None:
    script = (  # not getrusage, whose maximum a process inherits from the one that started it
        "import re\nfrom pathlib import Path\nfrom rlaif_lab.cli.lab import main\nmain()\n"
        "print('PEAK', int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )
    small = [o for o in SMALL if not o.startswith(("prompts", "evaluation", "logger", "rounds", "trainer"))]
    done = subprocess.run(
        [sys.executable, "-c", script, *small, "rounds=1", "evaluation.prompts=256", "prompts_per_round=1024"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(cache),
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.rpartition("PEAK")[2])
    assert peak < 1000, f"{peak} MB"


def test_conf_is_found_in_a_clone() -> None:
    from rlaif_lab.config import config_dir

    assert os.path.samefile(config_dir(), ROOT / "conf")
