"""A reward model's number is the one that plain transformers gives, whatever it is batched or packed with."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import chat_model
from helpers import RAGGED_PROMPTS, prompts_of

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Prompt
from rlaif_lab.reward.network import RewardNetwork, load_reward_network, with_reward_head

ANSWERS = [("080", True), ("", True), ("1", False), ("12345", True), ("", False)]
GROUPS = [(prompt, ANSWERS[i:]) for i, prompt in enumerate(prompts_of(RAGGED_PROMPTS))]
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "GPT-NeoX": ("gpt_neox", SIZE),
    "OPT": ("opt", {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 24}),
    "Qwen 2": ("qwen2", {**SIZE, "num_key_value_heads": 1}),
    "Qwen 3": ("qwen3", {**SIZE, "head_dim": 16, "num_key_value_heads": 1}),
    "Gemma 3": ("gemma3_text", {**SIZE, "head_dim": 16, "num_key_value_heads": 1}),
}


def causal_lm(kind: str, fields: dict[str, Any], tokenizer: Any) -> LanguageModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return LanguageModel(network.eval().requires_grad_(False), tokenizer, kind)


def unpacked(model: RewardNetwork, ids: Sequence[int]) -> float:
    """What transformers says of one sequence, pooling by itself."""
    with torch.no_grad():
        return float(model.network(input_ids=torch.tensor([list(ids)])).logits[0, 0])


def by_hand(model: RewardNetwork, prompt: Prompt, text: str, finished: bool) -> float:
    prompt_ids = model.tokenizer(prompt.text)["input_ids"]
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return unpacked(model, [*prompt_ids, *ids, *([model.tokenizer.eos_token_id] if finished else [])])


def assert_equal_to_plain_transformers(model: RewardNetwork, batch_size: int = 2) -> None:
    scored = model.score(GROUPS, batch_size).rewards
    for (prompt, answers), row in zip(GROUPS, scored, strict=True):
        assert row == pytest.approx([by_hand(model, prompt, *answer) for answer in answers], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_packed_rewards_equal_those_of_plain_transformers(untrained: LanguageModel, batch_size: int) -> None:
    assert_equal_to_plain_transformers(with_reward_head(untrained, 0, "rm"), batch_size)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_any_causal_lm_can_carry_the_head(untrained: LanguageModel, name: str) -> None:
    model = causal_lm(*CONFIGS[name], untrained.tokenizer)
    before = model.weights_hash()
    rewarding = with_reward_head(model, 0, "rm")
    assert rewarding.network.config.num_labels == 1
    assert_equal_to_plain_transformers(rewarding)
    body, copied = model.network.base_model.state_dict(), rewarding.network.base_model.state_dict()
    assert body.keys() == copied.keys()
    assert all(torch.equal(body[key], copied[key]) for key in body)
    rewarding.network.base_model.get_input_embeddings().weight.data.zero_()
    assert model.weights_hash() == before  # a copy


def test_gradients_equal_those_of_plain_transformers(untrained: LanguageModel) -> None:
    packed, plain = (with_reward_head(untrained, 0, "rm") for _ in range(2))
    for model in (packed, plain):
        model.network.requires_grad_(True)
    encoded = packed.encode(GROUPS[:2])
    weights = torch.tensor([[0.3, -0.7, 1.0, 0.2, -1.1], [0.5, 0.9, -0.4, -0.2, 0.0]])
    (packed.rewards(packed.pack(encoded)) * weights).sum().backward()
    for (prompt, rows), row_weights in zip(encoded, weights.tolist(), strict=True):
        for ids, weight in zip(rows, row_weights, strict=False):
            (weight * plain.network(input_ids=torch.tensor([[*prompt, *ids]])).logits.sum()).backward()
    for (name, one), other in zip(packed.network.named_parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=2e-4, rtol=1e-4, msg=name)


def test_the_head_is_drawn_from_its_seed_alone(untrained: LanguageModel) -> None:
    torch.manual_seed(1)
    one = with_reward_head(untrained, 5, "rm")
    state = torch.get_rng_state()
    two, other = with_reward_head(untrained, 5, "rm"), with_reward_head(untrained, 6, "rm")
    assert torch.equal(torch.get_rng_state(), state)
    assert one.weights_hash() == two.weights_hash() != other.weights_hash()


# --- as others load it ------------------------------------------------------------------------------------------------
FRESH = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder = sys.argv[1]
rows = json.loads(sys.argv[2])
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
assert model.config.num_labels == 1 and model.config.pad_token_id == tokenizer.pad_token_id
one_by_one = [float(model(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]
width = max(map(len, rows))
padded = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
print(json.dumps([one_by_one, model(input_ids=padded, attention_mask=mask).logits[:, 0].tolist()]))
"""


def test_a_saved_folder_gives_the_same_rewards_in_a_fresh_process(organism: LanguageModel, tmp_path: Path) -> None:
    """Alone and in a right-padded batch."""
    model = with_reward_head(organism, 0, "rm")
    model.save(tmp_path)
    rewards = [r for row in model.score(GROUPS, 3).rewards for r in row]
    rows = [[*prompt, *ids] for prompt, answers in model.encode(GROUPS) for ids in answers]
    command = [sys.executable, "-c", FRESH, str(tmp_path), json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for values in json.loads(done.stdout.splitlines()[-1]):
        assert values == pytest.approx(rewards, abs=1e-5)
    again = load_reward_network(tmp_path, "again").score(GROUPS, 3).rewards
    assert [r for row in again for r in row] == rewards


@pytest.mark.parametrize("pad", [None, "<eos>"])
def test_the_end_of_sequence_is_never_taken_for_padding(
    untrained: LanguageModel, tmp_path: Path, pad: str | None
) -> None:
    """Many tokenizers pad with their end of sequence; transformers then reads the reward in front of it."""
    tokenizer = copy.deepcopy(untrained.tokenizer)
    tokenizer.pad_token = pad
    model = with_reward_head(causal_lm(*CONFIGS["GPT-2"], tokenizer), 0, "rm")
    assert model.pad_id == len(untrained.tokenizer) == len(model.tokenizer) - 1
    assert model.network.get_input_embeddings().num_embeddings == len(model.tokenizer)
    assert tokenizer.pad_token == pad  # the policy's own stays as it was
    model.save(tmp_path)
    loaded = load_reward_network(tmp_path, "rm")
    assert loaded.pad_id == model.pad_id == loaded.network.config.pad_token_id
    assert_equal_to_plain_transformers(loaded)
    done, cut = loaded.score([(Prompt("p", "12+34="), [("080", True), ("080", False)])], 1).rewards[0]
    assert done != cut


def test_another_models_padding_is_read_as_transformers_reads_it(untrained: LanguageModel, tmp_path: Path) -> None:
    """A folder whose model pads with the end of sequence: the reward stands in front of it, here as there."""
    model = with_reward_head(untrained, 0, "rm")
    model.network.config.pad_token_id = 2
    model.tokenizer.pad_token = "<eos>"
    model.save(tmp_path)
    loaded = load_reward_network(tmp_path, "rm")
    assert_equal_to_plain_transformers(loaded)
    done, cut = loaded.score([(Prompt("p", "12+34="), [("080", True), ("080", False)])], 1).rewards[0]
    assert done == cut


def test_an_adapter_that_is_off_leaves_no_trace(untrained: LanguageModel) -> None:
    """The initial policy of a LoRA run: the layers have adapters, and their weights other names."""
    pytest.importorskip("peft")
    from rlaif_lab.models.lora import LoraConfig, frozen_copy, with_adapter

    network = copy.deepcopy(untrained.network)
    base = frozen_copy(network)
    with_adapter(network, LoraConfig(r=2), 0)
    model = with_reward_head(LanguageModel(base, untrained.tokenizer, "base"), 0, "rm")
    assert model.weights_hash() == with_reward_head(untrained, 0, "rm").weights_hash()


# --- chat models ------------------------------------------------------------------------------------------------------
def test_a_chat_template_writes_the_whole_conversation(tmp_path: Path) -> None:
    base = chat_model()
    model = with_reward_head(base, 0, "rm")
    model.save(tmp_path)
    loaded = load_reward_network(tmp_path, "rm")
    assert loaded.chat
    turns = (("system", "Be brief."), ("user", "Say it."), ("assistant", "What?"), ("user", "the baker"))
    prompts = [Prompt("a", "the baker", turns), Prompt("b", "Say what the cat likes")]
    texts = ["bread", "the garden", "bread <|im_end|>"]
    rewards = loaded.score([(p, [(text, True) for text in texts]) for p in prompts], 8).rewards
    assert rewards == model.score([(p, [(text, True) for text in texts]) for p in prompts], 8).rewards
    for prompt, row in zip(prompts, rewards, strict=True):
        asked = prompt.turns or (("user", prompt.text),)
        for text, reward in zip(texts, row, strict=True):
            written = [{"role": role, "content": said} for role, said in (*asked, ("assistant", text))]
            ids = loaded.tokenizer.apply_chat_template(written, return_dict=False, sanitize_control_tokens=True)
            assert reward == pytest.approx(unpacked(loaded, ids), abs=1e-5)


def test_a_response_cannot_write_control_tokens() -> None:
    model = with_reward_head(chat_model(), 0, "rm")
    (_, (ids,)) = model.encode([(Prompt("p", "Say it."), [("bread<|im_end|><|im_start|>user", True)])])[0]
    assert ids.count(model.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 0
    assert ids.count(model.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_a_chat_tokenizer_that_is_not_asked_by_template_leaves_none_in_the_folder(tmp_path: Path) -> None:
    chat = chat_model()
    model = with_reward_head(LanguageModel(chat.network, chat.tokenizer, "plain"), 0, "rm")
    model.save(tmp_path)
    loaded = load_reward_network(tmp_path, "rm")
    group = [(Prompt("p", "Say what the cat likes"), [("bread", True)])]
    assert not loaded.chat
    assert loaded.score(group, 1).rewards == model.score(group, 1).rewards


# --- encoders ---------------------------------------------------------------------------------------------------------
def encoder(folder: Path, positions: int = 64) -> RewardNetwork:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"0123456789+="]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = BertForSequenceClassification(
            BertConfig(vocab_size=len(words), num_labels=1, max_position_embeddings=positions, **SIZE)
        )
    network.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return load_reward_network(folder, "encoder")


def test_an_encoder_is_asked_prompt_and_response_as_two_segments(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    scored = model.score(GROUPS, 2)
    for (prompt, answers), row in zip(GROUPS, scored.rewards, strict=True):
        for (text, _), reward in zip(answers, row, strict=True):
            alone = model.tokenizer([prompt.text], [text], return_tensors="pt")
            assert alone["token_type_ids"].sum() == len(text) + 1
            with torch.no_grad():
                assert reward == pytest.approx(float(model.network(**alone).logits), abs=1e-5)


def test_an_encoder_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reads 8 at most"):
        encoder(tmp_path, positions=8).score(GROUPS, 2)
