"""Every mistake ends in one clear sentence and an exit code, before weights load, and costs nothing computed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end.lab import SMALL, environment, lab, rows, weights

from rlaif_lab.store.checksums import CHECKSUMS

MISTAKES = {
    ("judge=strongr",): "judge=strongr: no such choice (did you mean 'stronger'?)",
    ("sede=3",): "unknown key 'sede' (did you mean 'seed'?)",
    ("judge.wieghts=live",): "unknown key 'judge.wieghts' (did you mean 'judge.weights'?)",
    ("+judge.wieghts=live",): "judge.wieghts: ModelJudge takes no such argument (did you mean 'weights'?)",
    ("judge.weights=lively",): "judge.weights must be one of live, previous, initial",
    ("judge.reads=verdit",): "judge.reads must be one of mean_logp, sum_logp, verdict; got 'verdit'",
    ("seed=abc",): "seed must be an integer in [0, 4294967296); got 'abc'",
    ("rounds=0",): "rounds must be at least 1; got 0",
    ("prompts_per_round=-4",): "prompts_per_round must be at least 1; got -4",
    ("evaluation.prompts=0",): "evaluation.prompts must be at least 1; got 0",
    ("sampler.k=1",): "sampler.k must be at least 2 for learner 'rloo'",
    ("sampler.k=0",): "sampler.k must be at least 1; got 0",
    ("sampler.stop=ab",): "sampler.stop must be a list of strings",
    ("sampler.top_p=1.5",): "sampler.top_p must lie in (0, 1]; got 1.5",
    ("trainer.learning_rate=0",): "trainer.learning_rate must be positive; got 0",
    ("learner=dpo", "learner.beta=-1"): "learner.beta must be positive; got -1",
    (
        "pairing.strategy=worst",
    ): "pairing.strategy must be one of best_vs_worst, best_vs_random, best_vs_all, all_pairs; got 'worst'",
    ("policy.skill.slip=2",): "skill.slip is a probability",
    ("policy.width=10",): "width must be a multiple of 2 x heads",
    ("rounds=500",): "fresh ones are needed; lower rounds",
    ("judge=hf",): "judge.weights.path has no value",
    ("judge=hf", "judge.weights.path=/nowhere"): "model path '/nowhere' does not exist",
    ("logger=wandb", "logger.mode=of"): "logger.mode must be one of offline, online, disabled or null; got 'of'",
    ("judge._target_=rlaif_lab.judges.logprob.ModelJugde",): "has no 'ModelJugde' (did you mean 'ModelJudge'?)",
}


@pytest.mark.slow
def test_mistakes_are_told_in_one_sentence(cache: Path, tmp_path: Path) -> None:
    running = {
        overrides: subprocess.Popen(
            [sys.executable, "-m", "rlaif_lab", *SMALL, *overrides, f"hydra.run.dir={tmp_path / str(i)}"],
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
        assert process.returncode == 2, (overrides, errors)
        (last,) = errors.strip().splitlines()  # nothing stands before the sentence
        assert last.startswith("rlaif-lab: "), (overrides, errors)
        assert MISTAKES[overrides] in last, (overrides, last)
        assert "Traceback" not in errors
    assert not (tmp_path / "no organisms" / "organisms").exists(), "no organism was built for a config that cannot run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    done = lab(cache, *SMALL, "rounds=2", f"hydra.run.dir={run}", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
def test_a_store_is_not_mixed_up(finished: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    place = f"hydra.run.dir={run}"
    again = lab(cache, *SMALL, "rounds=2", place, cwd=tmp_path)
    assert again.returncode == 2
    assert "already holds this run; pass resume=true" in again.stderr
    other = lab(cache, *SMALL, "rounds=2", "seed=5", place, "resume=true", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds a run with another config (seed was '0', is '5')" in other.stderr
    assert rows(run) == rows(finished)


@pytest.mark.slow
def test_corrupt_files_are_named_and_deleting_them_is_enough(finished: Path, cache: Path, tmp_path: Path) -> None:
    for name in ("round_001/judgements.parquet", "checkpoints/round_000.ckpt", "round_001/evaluation.json"):
        run = tmp_path / name.replace("/", "_")
        shutil.copytree(finished, run)
        for checkpoint in (run / "checkpoints").glob("round_001*"):  # as if it had died in round 1
            checkpoint.unlink()
        (run / "finished.json").unlink()  # which is written last
        victim = run / name
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
        overrides = (*SMALL, "rounds=2", f"hydra.run.dir={run}", "resume=true")
        broken = lab(cache, *overrides, cwd=tmp_path)
        assert broken.returncode == 2, broken.stderr
        last = broken.stderr.strip().splitlines()[-1]
        assert str(victim) in last, last
        assert "corrupt" in last
        victim.unlink()
        mended = lab(cache, *overrides, cwd=tmp_path)
        assert mended.returncode == 0, mended.stderr
        assert weights(run) == weights(finished)
        assert rows(run) == rows(finished)


@pytest.mark.slow
def test_a_full_or_read_only_disk_loses_nothing(finished: Path, cache: Path, tmp_path: Path) -> None:
    """A real file system of 400 kB, which fills up in the first rounds."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk]).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        run = disk / "run"
        overrides = (*SMALL, "rounds=2", f"hydra.run.dir={run}", "resume=true")
        full = lab(cache, *overrides, cwd=tmp_path)
        assert full.returncode == 2, full.stderr
        last = full.stderr.strip().splitlines()[-1]
        assert "No space left on device" in last, full.stderr
        assert "what was computed before is kept" in last
        subprocess.run(["mount", "-o", "remount,size=50M,ro", disk], check=True)
        for place in (run, disk / "another"):
            locked = lab(cache, *overrides, f"hydra.run.dir={place}", cwd=tmp_path)
            assert locked.returncode == 2, locked.stderr
            assert "Read-only file system" in locked.stderr.strip().splitlines()[-1], locked.stderr
        subprocess.run(["mount", "-o", "remount,size=50M,rw", disk], check=True)
        mended = lab(cache, *overrides, cwd=tmp_path)
        assert mended.returncode == 0, mended.stderr
        assert weights(run) == weights(finished)
        assert rows(run) == rows(finished)
    finally:
        subprocess.run(["umount", disk], check=False)


@pytest.mark.slow
def test_a_judge_folder_that_is_no_model_for_this_task(finished: Path, cache: Path, tmp_path: Path) -> None:
    no_model = tmp_path / "bert"
    shutil.copytree(finished / "policy", no_model)
    (no_model / CHECKSUMS).unlink()  # or it would be refused as damaged
    config = json.loads((no_model / "config.json").read_text())
    (no_model / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    judge = ("judge=hf", f"judge.weights.path={no_model}")
    refused = lab(cache, *SMALL, *judge, f"hydra.run.dir={tmp_path / 'a'}", cwd=tmp_path)
    assert "is not a causal LM" in refused.stderr, refused.stderr

    # A model of another task: its tokenizer has no token for the signs of this one.
    judge = ("judge=hf", f"judge.weights.path={finished / 'policy'}", "task=lookup")
    small = tuple(o for o in SMALL if not o.startswith("task."))
    mismatch = lab(cache, *small, *judge, "task.facts=1000", f"hydra.run.dir={tmp_path / 'b'}", cwd=tmp_path)
    assert mismatch.returncode == 2, mismatch.stderr
    assert "it has no token for one of its characters" in mismatch.stderr.strip().splitlines()[-1]
