"""Run folders as a run leaves them: one by a real tiny policy on addition, one of a chat model, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_model import make_chat_model
from helpers import ScriptedJudge, judgement, response

from rlaif_lab.feedback.matrices import preference_matrices
from rlaif_lab.feedback.pairing import Pairing, make_pairs
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Generation, Judgement, PreferencePair, Prompt, Verdict
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS, PAIRS, Stage
from rlaif_lab.tasks.arithmetic import Addition

CONFIG: dict[str, Any] = {
    "task": {"_target_": "rlaif_lab.tasks.arithmetic.Addition", "digits": 2},
    "policy": {
        "_target_": "rlaif_lab.models.sources.Organism",
        "name": "tiny",
        "skill": {"slip": 0.3, "misconception": 0.5},
        "split": "policy_pretraining",
    },
    "judge": {"_target_": "helpers.ScriptedJudge", "name": "later"},
    "learner": {"_target_": "rlaif_lab.learners.dpo.DPO", "name": "dpo", "beta": 0.1},
    "sampler": {"_target_": "rlaif_lab.sampling.config.SamplingConfig", "k": 4, "stop": []},
    "pairing": {"_target_": "rlaif_lab.feedback.pairing.Pairing", "strategy": "best_vs_worst", "budget": None},
    "trainer": {"_target_": "rlaif_lab.training.settings.TrainerConfig", "learning_rate": 1e-4},
    "experiment_name": "study|one",
    "arm": "later",
    "seed": 7,
    "rounds": 2,
    "prompts_per_round": 32,
    "versions": {"torch": "2"},
    "git_commit": "0123abc",
}
METRICS: tuple[dict[str, Any], ...] = (
    {
        "round": 0,
        "quality/sampled": 0.36865234375,
        "quality/sampled_stderr": 0.0134,
        "quality/greedy": 0.67578125,
        "judge/win_rate_vs_round_0": 0.4921875,
        "judge/accuracy": 1.0,
        "time/round_s": 2.8453,
    },
    {
        "round": 1,
        "quality/sampled": 0.4111328125,
        "quality/sampled_stderr": 0.0135,
        "quality/greedy": 0.708984375,
        "judge/win_rate_vs_round_0": None,
        "judge/accuracy": 1.0,
        "time/round_s": 2.7,
    },
    {"round": 2, "quality/sampled": 0.5, "quality/sampled_stderr": 0.0135, "quality/greedy": 0.75, "pairs/count": 31},
)


def put(directory: Path, index: int, stage: Stage[Any], records: Sequence[Any], segment: int = 0) -> None:
    RoundStore(directory).stage(index, stage, records, list, chunk=len(records) or 1, segment=segment)


def write_run(directory: Path, config: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))


@pytest.fixture
def addition_run(tmp_path: Path, task: Addition, organism: LanguageModel) -> Path:
    """Two rounds of what a tiny policy really wrote, judged by a judge who likes what comes later in the dictionary."""
    directory = tmp_path / "addition"
    write_run(directory, CONFIG, METRICS)
    judge = ScriptedJudge(lambda c: Verdict(0.9 if c.first > c.second else 0.1))
    for index in range(2):
        prompts = task.prompts("rounds", 32 * index, 32, seed=7)
        generations = sample(organism, prompts, SamplingConfig(k=4), task.max_response_tokens, 7, "rounds", index)
        judgements = judge_generations(judge, generations)
        prob_beats = preference_matrices(generations, judgements)
        put(directory, index, GENERATIONS, generations)
        put(directory, index, JUDGEMENTS, judgements)
        put(directory, index, PAIRS, make_pairs(generations, prob_beats, Pairing("best_vs_worst"), 7, index))
    organism.save(directory / "policy")
    return directory


ODD_TEXTS = ("ünïcode 🙂\u2028\u0085 end", 'quotes " \\ and\nnew\tlines\r\n', "", "  spaces <|im_end|> & <b>tags</b> ")
"""Responses that a careless writer would change."""
PLAIN = Prompt("plain/0", "Wer? \u2029“quoted”")
CHAT = Prompt(
    "chat/0", "And now?", (("system", "Be brief."), ("user", "Hi 🙂"), ("assistant", "Hello"), ("user", "And?"))
)


def odd_judgements(prompt: Prompt) -> list[Judgement]:
    """A preference for the first, one for the second, a tie, and two failures."""
    said = ODD_TEXTS
    ok = judgement(Comparison(prompt, said[0], said[1]), 0, 1, 0.75)
    return [
        replace(ok, prob_first_wins_shown_first=0.9, prob_first_wins_shown_second=0.6),
        Judgement(Comparison(prompt, said[0], said[2]), 0, 2, 0.125, 0.25, 0.0, "ok", 0.1, 3, "B"),
        judgement(Comparison(prompt, said[1], said[2]), 1, 2, 0.5),
        Judgement(Comparison(prompt, said[0], said[3]), 0, 3, None, 0.5, None, "invalid", 0.1, 3, "what? 🙂\n---\nA"),
        Judgement(Comparison(prompt, said[1], said[3]), 1, 3, None, None, None, "timed_out", 9.0, 0, None),
    ]


def write_odd_round(directory: Path, prompts: Sequence[Prompt], index: int = 0, segment: int = 0) -> None:
    generations = [Generation(p, tuple(response(text) for text in ODD_TEXTS)) for p in prompts]
    put(directory, index, GENERATIONS, generations, segment)
    put(directory, index, JUDGEMENTS, [j for p in prompts for j in odd_judgements(p)], segment)
    put(directory, index, PAIRS, [PreferencePair(p, 0, 1, 0.75) for p in prompts], segment)


@pytest.fixture
def odd_run(tmp_path: Path) -> Path:
    """One round of plain prompts with texts that are hard to keep, and every kind of verdict."""
    directory = tmp_path / "judge=odd,seed=1"
    write_run(directory, CONFIG, METRICS)
    write_odd_round(directory, [PLAIN])
    return directory


@pytest.fixture
def chat_run(tmp_path: Path) -> Path:
    """One round of a conversation and of a plain prompt, which a chat model reads as one user turn; no gold."""
    directory = tmp_path / "chat"
    config = CONFIG | {"policy": {"_target_": "rlaif_lab.models.hf.HFModel", "name": "lm", "path": "org/some-lm"}}
    no_gold = {"quality/sampled": None, "quality/sampled_stderr": None, "quality/greedy": None, "judge/accuracy": None}
    write_run(directory, config, [{**METRICS[0], **no_gold}, {"round": 1, "judge/win_rate_vs_round_0": 0.625}])
    write_odd_round(directory, [CHAT, PLAIN])
    return directory


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny untrained Llama that reads any text, in a chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_chat_model(tmp_path_factory.mktemp("chat_model"))
    network = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return LanguageModel(network, AutoTokenizer.from_pretrained(folder), "chat", chat=True)
