"""Reward models as judge: probabilities by hand, ensembles, other people's folders, and folders that are none."""

from __future__ import annotations

import json
import math
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import chat_model
from helpers import RAGGED_PROMPTS, prompts_of

from rlaif_lab.judges.asking import both_orders, judge_generations
from rlaif_lab.judges.oracle import OracleJudge
from rlaif_lab.judges.reward_model import RewardModelJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.reward.examples import examples_from
from rlaif_lab.reward.model import RewardModel
from rlaif_lab.reward.network import with_reward_head
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.arithmetic import Addition

TEXTS = ("080", "", "1", "12345", "090")
COMPARISONS = [Comparison(p, a, b) for p in prompts_of(RAGGED_PROMPTS) for a, b in combinations(TEXTS, 2)]


@pytest.fixture(scope="module")
def ensemble(untrained: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three members with the same body and heads of their own, as a run leaves them."""
    folder = tmp_path_factory.mktemp("ensemble")
    for i in range(3):
        with_reward_head(untrained, i, f"member {i}").save(folder / f"member_{i}")
    return folder


def judge_of(path: str | list[str], policy: LanguageModel, task: Any = None, **settings: Any) -> RewardModelJudge:
    judge = RewardModelJudge(path, **settings)
    judge.attach(JudgeContext(0, lambda name: policy, lambda source: source.load(task), None))
    return judge


def plain_reward(folder: Path, prompt: Prompt, text: str) -> float:
    """From transformers alone: one unpadded sequence."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [*tokenizer(prompt.text)["input_ids"], *tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    with torch.no_grad():
        return float(network(input_ids=torch.tensor([ids])).logits)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_one_model_by_hand(ensemble: Path, untrained: LanguageModel, batch_size: int) -> None:
    folder = ensemble / "member_1"
    verdicts = judge_of(str(folder), untrained, batch_size=batch_size).verdicts(COMPARISONS)
    known = {(p, t): plain_reward(folder, p, t) for p in prompts_of(RAGGED_PROMPTS) for t in TEXTS}
    for c, verdict in zip(COMPARISONS, verdicts, strict=True):
        expected = sigmoid(known[c.prompt, c.first] - known[c.prompt, c.second])
        assert verdict.prob_first_wins == pytest.approx(expected, abs=1e-5)
        assert (verdict.status, verdict.details, verdict.raw) == ("ok", None, None)


def test_an_ensemble_by_hand(ensemble: Path, untrained: LanguageModel) -> None:
    comparison = COMPARISONS[3]
    each = [
        [
            plain_reward(ensemble / f"member_{i}", comparison.prompt, text)
            for text in (comparison.first, comparison.second)
        ]
        for i in range(3)
    ]
    apart = [first - second for first, second in each]
    mean = sum(apart) / 3
    disagreement = math.sqrt(sum((d - mean) ** 2 for d in apart) / 3)
    lowest = [min(column) for column in zip(*each, strict=True)]
    for combine, difference in (("mean", mean), ("min", lowest[0] - lowest[1])):
        judge = judge_of(str(ensemble), untrained, combine=combine)
        (verdict,) = judge.verdicts([comparison])
        assert verdict.prob_first_wins == pytest.approx(sigmoid(difference), abs=1e-5)
        assert verdict.details is not None
        assert verdict.details["disagreement"] == pytest.approx(disagreement, abs=1e-5)
        (score,) = judge.scores([(comparison.prompt, comparison.first)])
        members = [first for first, _ in each]
        assert score.value == pytest.approx(sum(members) / 3 if combine == "mean" else min(members), abs=1e-5)
        assert score.details is not None
        assert score.details["members"] == pytest.approx(members, abs=1e-5)


def test_a_folder_of_members_is_the_list_of_them(ensemble: Path, untrained: LanguageModel) -> None:
    one = judge_of(str(ensemble), untrained)
    other = judge_of([str(ensemble / f"member_{i}") for i in range(3)], untrained)
    assert len(one.members) == len(other.members) == 3
    probabilities = ([v.prob_first_wins for v in judge.verdicts(COMPARISONS)] for judge in (one, other))
    assert next(probabilities) == next(probabilities)
    assert one.identity() == other.identity()


def test_swapping_flips_the_probability_and_twins_tie(ensemble: Path, untrained: LanguageModel) -> None:
    judge = judge_of(str(ensemble), untrained)
    for shown_first, shown_second in both_orders(judge, COMPARISONS):
        assert shown_first.prob_first_wins is not None and shown_second.prob_first_wins is not None
        assert shown_first.prob_first_wins == pytest.approx(1 - shown_second.prob_first_wins, abs=1e-15)
        assert shown_first.details == shown_second.details
    (twins,) = judge.verdicts([Comparison(Prompt("p", "12+34="), "080", "080")])
    assert (twins.prob_first_wins, twins.status) == (0.5, "tie")


def test_tokens_and_time_add_up_to_what_was_spent(ensemble: Path, untrained: LanguageModel) -> None:
    """Per member the prompt once and each of four answers once."""
    prompt = Prompt("p", "12+34=")
    texts = ("080", "081", "082", "083")
    judge = judge_of(str(ensemble), untrained)
    asked = both_orders(judge, [Comparison(prompt, a, b) for a, b in combinations(texts, 2)])
    assert sum(a.tokens + b.tokens for a, b in asked) == 3 * ((1 + 6) + 4 * (3 + 1))
    assert sum(s.tokens for s in judge.scores([(prompt, text) for text in texts])) == 3 * ((1 + 6) + 4 * (3 + 1))
    assert all(v.latency_s > 0 for pair in asked for v in pair)
    assert judge.verdicts([]) == judge.scores([]) == []


def test_its_identity_is_that_of_the_weights(ensemble: Path, untrained: LanguageModel, tmp_path: Path) -> None:
    copy = shutil.copytree(ensemble / "member_0", tmp_path / "copy")
    one, other = str(ensemble / "member_0"), str(ensemble / "member_1")
    identities = [judge_of(path, untrained).identity() for path in (one, str(copy), other)]
    assert identities[0] == identities[1] != identities[2]
    assert judge_of([one, other], untrained).identity() != judge_of([one, other], untrained, combine="min").identity()
    sources = judge_of([one, other], untrained).sources()
    assert len({source.identity(None) for source in sources}) == 2  # type: ignore[arg-type]


def test_a_runs_reward_model_judges_as_it_has_learnt(organism: LanguageModel, task: Addition, tmp_path: Path) -> None:
    """From gold labels to the judge's accuracy on other prompts, by way of the folder."""
    oracle = OracleJudge()
    oracle.attach(JudgeContext(0, None, None, task))  # type: ignore[arg-type]
    generations = sample(
        organism, task.prompts("rounds", 0, 1600, 0), SamplingConfig(k=16), task.max_response_tokens, 0, "judge"
    )
    learnt, fresh = generations[:1200], generations[1200:]
    model = RewardModel(passes=4, learning_rate=3e-3, batch_size=16, members=2)
    model.attach(JudgeContext(0, lambda name: organism, None, None))  # type: ignore[arg-type]
    model.fit(examples_from(0, learnt, judge_generations(oracle, learnt)), 0, tmp_path, None)
    judge = judge_of(str(tmp_path), organism, task)
    right = examples_from(0, fresh, judge_generations(oracle, fresh))
    verdicts = judge.verdicts([Comparison(e.prompt, e.chosen.text, e.rejected.text) for e in right])
    accuracy = sum(v.prob_first_wins > 0.5 for v in verdicts if v.prob_first_wins is not None) / len(right)
    assert len(right) > 100
    assert accuracy > 0.5 + 4 * 0.5 / math.sqrt(len(right))
    mean, _ = model.rewards(fresh[:8])
    asked = [
        (g, r, reward)
        for g, row in zip(fresh[:8], mean, strict=True)
        for r, reward in zip(g.responses, row, strict=True)
    ]
    finished = [(g, r, reward) for g, r, reward in asked if r.finished]
    scores = judge.scores([(g.prompt, r.text) for g, r, _ in finished])
    assert [s.value for s in scores] == pytest.approx([reward for _, _, reward in finished], abs=1e-5)


def test_a_reward_model_with_a_chat_template_is_asked_by_it(tmp_path: Path) -> None:
    """As other people's come: conversation in, one number out, read at the end of the last turn."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with_reward_head(chat_model(), 0, "rm").save(tmp_path)
    prompt = Prompt("p", "Say what the cat likes", (("system", "Be brief."), ("user", "Say what the cat likes")))
    judge = judge_of(str(tmp_path), chat_model())
    (verdict,) = judge.verdicts([Comparison(prompt, "bread", "the garden")])
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": role, "content": said} for role, said in prompt.turns]
    rewards = []
    for text in ("bread", "the garden"):
        written = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": text}], return_tensors="pt")
        with torch.no_grad():
            rewards.append(float(network(**written).logits))
    assert verdict.prob_first_wins == pytest.approx(sigmoid(rewards[0] - rewards[1]), abs=1e-5)


def test_folders_that_are_no_reward_models_are_refused_before_they_load(ensemble: Path, tmp_path: Path) -> None:
    def changed(name: str, **config: Any) -> Path:
        folder = shutil.copytree(ensemble / "member_0", tmp_path / name)
        held = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({k: v for k, v in (held | config).items() if v is not None}))
        return folder

    no_weights, no_tokenizer, no_json = changed("weights"), changed("tokenizer"), changed("json")
    (no_weights / "model.safetensors").unlink()
    (no_tokenizer / "tokenizer_config.json").unlink()
    (no_json / "config.json").write_text("{")
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "nowhere": "does not exist",
        tmp_path / "empty": "holds no config.json",
        no_json: "config.json is not valid JSON",
        changed("causal", architectures=["LlamaForCausalLM"]): r"not a sequence classifier: .*LlamaForCausalLM",
        changed("three", id2label={"0": "a", "1": "b", "2": "c"}): "it has 3 labels",
        changed("default", id2label=None): "it has 2 labels",
        no_weights: "holds no weights",
        no_tokenizer: "holds no tokenizer",
    }
    for folder, message in cases.items():
        with pytest.raises(ValueError, match=f"reward model folder .*{message}"):
            RewardModelJudge(str(folder))


def test_corrupt_weights_are_one_clear_sentence(ensemble: Path, untrained: LanguageModel, tmp_path: Path) -> None:
    folder = shutil.copytree(ensemble / "member_0", tmp_path / "corrupt")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is corrupt: its checksum is not the one"):
        judge_of(str(folder), untrained)
    (folder / "checksums.txt").unlink()  # as a folder of another program has none
    with pytest.raises(ValueError, match="cannot load reward model"):
        judge_of(str(folder), untrained)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"combine": "max"}, "judge.combine must be one of mean, min; got 'max'"),
        ({"batch_size": 0}, "judge.batch_size must be at least 1; got 0"),
        ({"path": []}, "judge.path must name at least one"),
    ],
)
def test_impossible_settings_are_refused_by_name(ensemble: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardModelJudge(**({"path": str(ensemble)} | settings))


def test_its_yaml_is_its_constructor() -> None:
    import inspect

    from omegaconf import OmegaConf

    from rlaif_lab.config import config_dir

    held = OmegaConf.load(Path(config_dir()) / "judge" / "reward_model.yaml")
    assert set(held) - {"_target_"} == set(inspect.signature(RewardModelJudge).parameters)
