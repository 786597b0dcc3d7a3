"""What real models have that the organisms have not: it is handled, or told in one sentence before weights are used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import plain_logps

from models.quirks import END, EOS_LAST, GEMMA, NO_SYSTEM, THINK, first_token, save, tokenizer
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.prompts_file import PromptsFile

TASK = PromptsFile(None, 8)
PROMPTS = [Prompt("1", "Name a tree."), Prompt("2", "What does the small cat like to eat in the morning?")]
MIXED = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}


def gemma(template: str = GEMMA) -> object:
    return tokenizer(template, first_token(END, 0), bos=END)


MADE: dict[str, Callable[[Path], Path]] = {
    "window 0 is off": lambda at: save(at, "qwen2_moe", tokenizer(), num_experts=4, **MIXED),
    "unk is bos and eos": lambda at: save(
        at, "opt", tokenizer(None, first_token(END, 0), pad=None, bos=END, eos=END, unk=END)
    ),
    "eos is appended": lambda at: save(at, "llama", tokenizer(None, EOS_LAST)),
    "pad beyond the embedding": lambda at: save(
        at, "llama", words := tokenizer(pad="[PAD]"), len(words) - 1, pad_token_id=None
    ),
    "more ids than tokens": lambda at: save(at, "llama", tokenizer(), 1024),
    "no pad token": lambda at: save(at, "llama", tokenizer(pad=None), pad_token_id=None),
    "no sdpa": lambda at: save(at, "gemma2", gemma(), head_dim=8, sliding_window=16),
    "a window": lambda at: save(at, "mistral", tokenizer(), sliding_window=16),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quirks")


def folder(folders: Path, name: str, make: Callable[[Path], Path]) -> Path:
    at = folders / name.replace(" ", "_")
    return at if at.exists() else make(at)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MADE)
def test_it_is_asked_and_read_as_by_plain_passes(folders: Path, name: str) -> None:
    source = HFModel(str(folder(folders, name, MADE[name])))
    source.check(TASK)
    model = source.load(TASK)
    ids = model.encode_prompts(PROMPTS)
    assert all(row[-1] != model.tokenizer.eos_token_id for row in ids)
    for generation, prompt in zip(sample(model, PROMPTS, SamplingConfig(k=2), 6, 0), ids, strict=True):
        for response in generation.responses:
            right = plain_logps(model.network, prompt, response.token_ids)
            assert response.logps == pytest.approx(right.tolist(), abs=1e-4)


def test_the_first_token_stands_once_and_the_last_not_at_all(folders: Path) -> None:
    model = HFModel(str(folder(folders, "eos is appended", MADE["eos is appended"]))).load(TASK)
    [row] = model.encode_prompts(["Name a tree."])
    first, last = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    assert (row.count(first), row[0], row.count(last)) == (1, first, 0)
    assert model.decode([row]) == ["Name a tree."]
    assert model.encode_prompts([""]) == [[first]]


def test_text_that_the_tokenizer_cannot_write_is_still_refused() -> None:
    """Also where the token for unknown characters has another office."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "a": 1}, unk_token="<s>"))
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<s>", bos_token="<s>", eos_token="<s>")
    made._tokenizer.post_processor = first_token("<s>", 0)
    model = LanguageModel(torch.nn.Identity(), made, "words")  # type: ignore[arg-type]
    assert model.encode_prompts(["a"]) == [[0, 1]]
    with pytest.raises(ValueError, match="cannot write 'b'"):
        model.encode_prompts(["b"])


def test_prompts_longer_than_the_positions_are_refused_before_weights_load(folders: Path, tmp_path: Path) -> None:
    made = save(folders / "short", "gpt2", tokenizer(None, pad=END, bos=None, eos=END), n_positions=48)
    rows = [{"prompt": f"Say {i}."} for i in range(8)] + [{"prompt": "Tell me of trees, and of cats. " * 9}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "model.safetensors").unlink()  # nothing of it is read
    (made / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"reads 48 tokens at most, and prompt .* with up to 8 of response"):
        HFModel(str(made)).check(PromptsFile(str(tmp_path / "long.jsonl"), 8, evaluation_share=0.4))


def test_an_end_without_embedding_is_refused_before_weights_load(folders: Path) -> None:
    words = tokenizer(None, eos="[END]")
    made = save(folders / "end", "llama", words, len(words) - 1, eos_token_id=None)
    with pytest.raises(ValueError, match=r"has embeddings for \d+ tokens, but the end of a response needs token"):
        HFModel(str(made)).check(TASK)


# --- templates --------------------------------------------------------------------------------------------------------
def test_a_template_that_drops_the_system_turn_is_not_given_one(folders: Path) -> None:
    made = save(folders / "drops", "llama", tokenizer(NO_SYSTEM))
    model = HFModel(str(made)).load(TASK)
    assert not model.keeps_system
    with_system = Prompt("s", "Hi", (("system", "Be brief."), ("user", "Hi")))
    with pytest.raises(ValueError, match="drops the system turn"):
        model.encode_prompts([with_system])
    with pytest.raises(ValueError, match="drops the system turn"):
        HFModel(str(made), system="Be brief.").check(TASK)


def test_an_open_thought_is_seen(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = HFModel(str(save(folders / "thinks", "llama", tokenizer(THINK)))).load(TASK)
    assert model.opens_thought
    assert "opens a thought" in capsys.readouterr().out
    assert not HFModel(str(folder(folders, "a window", MADE["a window"]))).load(TASK).opens_thought


# --- saved ------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("targets", "tied"), [(["lm_head"], False), ("all-linear", True)])
def test_a_saved_model_says_whether_its_head_is_tied(
    folders: Path, tmp_path: Path, targets: object, tied: bool
) -> None:
    at = folders / "tied"
    made = at if at.exists() else save(at, "llama", tokenizer(), tie_word_embeddings=True)
    policy, _ = HFModel(str(made), lora={"r": 2, "target_modules": targets}).load_trainable(TASK, 0)
    with torch.no_grad():
        for name, weights in policy.network.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.1)
    policy.save(tmp_path / "policy")
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["tie_word_embeddings"] is tied
    again = HFModel(str(tmp_path / "policy")).load(TASK)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again.network(ids).logits, policy.network.eval()(ids).logits, atol=1e-5, rtol=0)
