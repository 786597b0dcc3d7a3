"""Sampler and packing on other causal LMs than the organisms: what they cannot serve they must refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import RAGGED_PROMPTS, plain_logps, prompts_of

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "GPT-NeoX": ("gpt_neox", SIZE),
    "OPT": ("opt", {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "Qwen 3": ("qwen3", {**SIZE, "head_dim": 16, "num_key_value_heads": 1}),
    "Gemma 3, within its window": ("gemma3_text", {**SIZE, "head_dim": 16, "num_key_value_heads": 1}),
}
SLIDING = {
    "Mistral": ("mistral", {**SIZE, "num_key_value_heads": 1, "sliding_window": 4}),
    "Gemma 3": ("gemma3_text", {**SIZE, "head_dim": 16, "num_key_value_heads": 1, "sliding_window": 4}),
}
PROMPTS = [[1, 8, 9, 17, 10, 11], [1], [1, 7, 7, 18]]
RESPONSES = [[[9, 10, 2], [2]], [[12, 13, 14, 15, 2]], [[9, 9], [9, 8, 2], [10, 2]]]


def network(kind: str, fields: dict[str, Any], vocab_size: int) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, vocab_size=vocab_size, pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return made.eval().requires_grad_(False)


def largest_error(made: Any) -> float:
    logps = response_logps(made, pack(PROMPTS, RESPONSES, 0))
    return max(
        float((logps[b, i, : len(answer)] - plain_logps(made, PROMPTS[b], answer)).abs().max())
        for b, group in enumerate(RESPONSES)
        for i, answer in enumerate(group)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_and_sampled_logps_equal_those_of_plain_forward_passes(untrained: LanguageModel, name: str) -> None:
    made = network(*CONFIGS[name], len(untrained.tokenizer))
    assert largest_error(made) < 1e-5
    model = LanguageModel(made, untrained.tokenizer, name)
    for g in sample(model, prompts_of(RAGGED_PROMPTS), SamplingConfig(k=3), 8):
        prompt = model.encode_prompts([g.prompt.text])[0]
        for r in g.responses:
            assert r.logps == pytest.approx(plain_logps(made, prompt, r.token_ids).tolist(), abs=1e-5)


@pytest.mark.parametrize("name", SLIDING)
def test_beyond_a_sliding_window_packing_is_right_or_refused(untrained: LanguageModel, name: str) -> None:
    """A packed batch brings a mask of its own, which must not silently open the window."""
    try:
        error = largest_error(network(*SLIDING[name], len(untrained.tokenizer)))
    except ValueError:
        return
    assert error < 1e-5
