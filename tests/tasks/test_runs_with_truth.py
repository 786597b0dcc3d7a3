"""A whole run, in this process, of a tiny chat model on each task with truth; and the bank of its graded answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import make_chat_model
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlaif_lab.audit.sampled import SampledBank, graded_pairs
from rlaif_lab.config import check, config_dir
from rlaif_lab.loop.run import Run
from rlaif_lab.metrics.catalogue import row_of
from rlaif_lab.metrics.difficulty import MOST_LEVELS, difficulty_metrics
from rlaif_lab.records import Generation, Prompt, Response
from rlaif_lab.tasks.answers import Answers

SMALL = (
    "policy=hf",
    "judge=random",  # a random policy is always wrong, and gold would have no preference to train on
    "learner=rloo",
    "logger=none",
    "rounds=1",
    "prompts_per_round=6",
    "sampler.k=2",
    "evaluation.prompts=4",
    "evaluation.samples=2",
    "evaluation.final_samples=0",
    "trainer.batch_size=6",
    "trainer.learning_rate=1e-3",
    "task.max_response_tokens=4",
    "gate.force=true",
    "export=false",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("model"))


def configured(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    check(cfg)
    return cfg


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def questions(path: Path, count: int = 60) -> Path:
    rows = [{"question": f"Say {i} words", "answer": f"#### {i % 7}", "level": f"Level {i % 2}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(tmp_path: Path) -> tuple[str, ...]:
    return (
        "task=answers",
        f"task.path={questions(tmp_path / 'q.jsonl')}",
        "task.columns.prompt=question",
        "task.columns.difficulty=level",
        "task.grader=number",
    )


@pytest.mark.parametrize("task", ["answers", "reasoning_gym"])
def test_a_run_on_a_task_with_truth(task: str, model: Path, tmp_path: Path) -> None:
    if task == "reasoning_gym":
        pytest.importorskip("reasoning_gym", reason="REASONING-GYM IS NOT INSTALLED: a run on it WAS NOT TESTED")
    of_task = answers(tmp_path) if task == "answers" else ("task=reasoning_gym",)
    directory = tmp_path / "run"
    Run(configured(*SMALL, *of_task, f"policy.path={model}"), directory).run()
    rows = metrics(directory)
    assert len(rows) == 2
    for row in rows:
        for name in ("quality/sampled", "quality/greedy", "quality/pass_at_2", "quality/gold_nll"):
            assert row[name] is not None
        levels = [name for name in row if name.startswith("quality/difficulty_")]
        assert levels
        assert all(0.0 <= row[name] <= 1.0 and row_of(name).needs_gold for name in levels)
    assert rows[0]["gap/diversity_D"] is not None


def test_prompts_that_run_out_are_told_before_the_run(model: Path, tmp_path: Path) -> None:
    common = (*SMALL, *answers(tmp_path), f"policy.path={model}", "evaluation.prompts=8", "rounds=4")
    with pytest.raises(ValueError, match=r"has \d+ prompts in its 'evaluation' split, but 5 x 8 fresh ones are needed"):
        Run(configured(*common), tmp_path / "few")
    again = (*common, "task.repeat=true", "detector.stop_on_plateau=true")
    with pytest.raises(ValueError, match=r"ask 40, so that they come again from round \d on, .*alpha would not hold"):
        Run(configured(*again), tmp_path / "again")


def test_prompts_that_come_again_are_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (
        *SMALL,
        *answers(tmp_path),
        f"policy.path={model}",
        "evaluation.prompts=8",
        "rounds=4",
        "task.repeat=true",
    )
    Run(configured(*common, "detector.stop_on_plateau=false"), tmp_path / "again")
    assert "ask 40, so that they come again from round" in capsys.readouterr().out


# --- the bank of graded answers -------------------------------------------------------------------------------------
def response(text: str) -> Response:
    return Response(text, (1,), (0.0,), True)


def test_pairs_are_of_a_best_and_a_worst_answer(tmp_path: Path) -> None:
    task = Answers(
        str(questions(tmp_path / "q.jsonl")), 4, "number", columns={"prompt": "question", "difficulty": "level"}
    )
    prompts = task.prompts("evaluation", 0, 5, 0)
    right = [task.gold_answer(prompt) or "" for prompt in prompts]
    drawn = [Generation(p, (response("none"), response(a), response(a))) for p, a in zip(prompts, right, strict=True)]
    drawn[0] = Generation(prompts[0], (response("none"), response("nothing")))  # equally bad: no pair
    pairs = graded_pairs(task, drawn, author="me", seed=0)
    assert [pair.comparison.prompt for pair in pairs] == prompts[1:]
    for pair, answer in zip(pairs, right[1:], strict=True):
        better = pair.comparison.first if pair.prob_first_is_better == 1.0 else pair.comparison.second
        assert better == answer
        assert pair.author_first == pair.author_second == "me"
        assert pair.subset in ("Level 0", "Level 1")


def test_a_bank_of_graded_answers_needs_gold() -> None:
    from rlaif_lab.tasks.prompts_file import PromptsFile

    with pytest.raises(ValueError, match="is of graded answers, and task 'prompts' has no gold"):
        SampledBank().load(PromptsFile(None, 4, columns={"id": "id"}))
    with pytest.raises(ValueError, match=r"bank\.samples must be at least 2; got 1"):
        SampledBank(samples=1)


# --- quality by difficulty ------------------------------------------------------------------------------------------
class Levels(Answers):
    def __init__(self, levels: list[str]) -> None:
        self.levels = levels

    def difficulty(self, prompt: Prompt) -> str | None:
        return self.levels[int(prompt.id)]


def test_quality_by_difficulty_is_the_mean_of_each_levels_prompts() -> None:
    import numpy as np

    drawn = [Generation(Prompt(str(i), "?"), (response("a"), response("b"))) for i in range(3)]
    qualities = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = difficulty_metrics(Levels(["terms 2", "terms 2", "terms 3"]), drawn, qualities)
    assert found == {"quality/difficulty_terms_2": 0.75, "quality/difficulty_terms_3": 0.0}
    many = [Generation(Prompt(str(i), "?"), (response("a"),)) for i in range(MOST_LEVELS + 1)]
    assert difficulty_metrics(Levels([str(i) for i in range(20)]), many, np.zeros((len(many), 1))) == {}


# --- the experiment for one GPU, with random weights of its architectures --------------------------------------------
def random_model(folder: Path, architecture: str, chat: Path) -> Path:
    """Save a tiny model of an architecture with random weights, and the chat model's tokenizer beside it."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(chat)
    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,  # grouped queries, as in the real ones
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    torch.manual_seed(0)
    qwen3 = architecture == "qwen3"
    network = Qwen3ForCausalLM(Qwen3Config(head_dim=16, **size)) if qwen3 else LlamaForCausalLM(LlamaConfig(**size))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


KEPT_SMALL = (
    "logger",
    "rounds",
    "prompts_per_round",
    "sampler.k",
    "evaluation.prompts",
    "evaluation.samples",
    "evaluation.final_samples",
    "trainer.batch_size",
    "task.max_response_tokens",
    "gate.force",
    "export",
)


@pytest.mark.parametrize(("architecture", "variant"), [("qwen3", "qwen3_4b"), ("qwen3", "self"), ("llama", "random")])
def test_the_experiment_for_one_gpu_runs_on_its_architectures(
    architecture: str, variant: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("reasoning_gym", reason="REASONING-GYM IS NOT INSTALLED: the experiment WAS NOT TESTED")
    folder = random_model(tmp_path / "policy", architecture, model)
    monkeypatch.setenv("RLAIF_LAB_QWEN3_0_6B", str(folder))
    monkeypatch.setenv("RLAIF_LAB_QWEN3_4B", str(random_model(tmp_path / "judge", "qwen3", model)))
    small = [one for one in SMALL if one.split("=")[0] in KEPT_SMALL]
    cpu = ["trainer.accelerator=cpu", "policy.dtype=float32", "sampler.batch_size=16", "evaluation.measured=2"]
    chosen = ["experiment=plateau_real_lm_gpu", f"variant=plateau_real_lm_gpu/{variant}"]
    bank = ["bank.pairs=2", "bank.samples=2", "bank.prompts=4"]
    judge = ["judge.weights.dtype=float32"] if variant == "qwen3_4b" else []
    Run(configured(*chosen, *small, *cpu, *bank, *judge), tmp_path / "run").run()
    first, last = metrics(tmp_path / "run")
    assert last["round"] == 1
    assert 0.0 <= first["quality/sampled"] <= 1.0
    assert first["pairs/examples"] > 0
