"""Critique and revision inside the loop, with a tiny chat model: imitated, or chosen against what they revise."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_model import make_chat_model
from end_to_end.lab import lab, rows, weights

SMALL = (
    "policy=hf",
    "task=open_prompts",
    "task.max_response_tokens=12",
    "judge=constitution",
    "judge.minimum_mass=0",
    "revision=constitutional",
    "revision.critique_tokens=8",
    "revision.revision_tokens=12",
    "rounds=1",
    "prompts_per_round=8",
    "sampler.k=2",
    "evaluation.prompts=4",
    "evaluation.samples=2",
    "evaluation.final_samples=0",
    "trainer.batch_size=4",
    "trainer.warmup_steps=0",
    "trainer.learning_rate=3e-3",
    "logger=none",
)
WAYS = {
    "imitated": ("learner=revision_sft",),
    "chosen against the originals": ("learner=dpo", "pairing.source=revisions"),
}


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("models") / "chat", steps=40)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_revisions_are_learnt_from(way: tuple[str, ...], chat_folder: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = lab(cache, *SMALL, *way, f"policy.path={chat_folder}", f"hydra.run.dir={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    revisions = pq.read_table(run / "round_000" / "revisions.parquet").to_pylist()
    assert len(revisions) == 8
    for row in revisions:
        [(principle, critique, rewritten)] = json.loads(row["steps"])
        assert principle
        assert isinstance(critique, str)
        assert row["revised_response"] == (rewritten if rewritten.strip() else row["original_response"])
    first = rows(run)[0]
    changed = sum(row["revised_response"] != row["original_response"] for row in revisions)
    assert first["pairs/examples"] == (8 if way == WAYS["imitated"] else changed) > 0
    assert weights(run) != (chat_folder / "model.safetensors").read_bytes()
    assert (run / "export" / "revisions.parquet").is_file()


@pytest.mark.slow
def test_without_a_way_to_revise_it_is_refused(chat_folder: Path, cache: Path, tmp_path: Path) -> None:
    without = tuple(o for o in SMALL if not o.startswith("revision"))
    overrides = ("learner=revision_sft", f"policy.path={chat_folder}")
    refused = lab(cache, *without, *overrides, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "revision=constitutional" in refused.stderr
