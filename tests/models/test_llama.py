"""The small Llama's own forward pass: transformers' numbers, gradients included, and only where they are the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import RAGGED_PROMPTS, prompts_of
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.llama import is_small_llama
from rlaif_lab.models.packed import Packed, pack, response_logits, response_logps
from rlaif_lab.sampling import decoding
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample

RESPONSES = [[[5, 6, 2], [7, 2], [2]], [[8, 9, 10, 11, 2]], [[5, 2], [5, 6]], [[4, 4, 4, 4]], [[12]]]


def llama(**changes: Any) -> LlamaForCausalLM:
    fields: dict[str, Any] = {
        "vocab_size": 19,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "initializer_range": 0.3,
        "attn_implementation": "eager",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LlamaForCausalLM(LlamaConfig(**(fields | changes)))
        for name, parameter in network.named_parameters():
            if "norm" in name:  # ones would hide a norm's weight that is left out
                parameter.data.uniform_(0.5, 1.5)
    return network.eval()


KINDS = {
    "heads": {},
    "grouped heads": {"num_key_value_heads": 2},
    "one layer": {"num_hidden_layers": 1},
    "wide heads": {"head_dim": 16},
    "other rotation": {"rope_parameters": {"rope_type": "default", "rope_theta": 30.0}},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def ragged(model: LanguageModel) -> Packed:
    return pack(model.encode_prompts(list(RAGGED_PROMPTS)), RESPONSES, model.pad_id)


def by_transformers(network: LlamaForCausalLM, compute: Callable[[Any], Any]) -> Any:
    """The same through transformers' own forward pass: a hook is a modification."""
    handle = network.register_forward_pre_hook(lambda module, arguments: None)
    try:
        assert not is_small_llama(network)
        return compute(network)
    finally:
        handle.remove()


@kinds
def test_logits_and_gradients_are_those_of_transformers(kind: str, untrained: LanguageModel) -> None:
    network, batch = llama(**KINDS[kind]), ragged(untrained)
    assert is_small_llama(network)
    weights = torch.randn(response_logits(network, batch).shape, generator=torch.Generator().manual_seed(1))

    def logits_and_gradients(network: LlamaForCausalLM) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        network.zero_grad()
        logits = response_logits(network, batch)
        (logits * weights).sum().backward()
        return logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}

    ours, our_gradients = logits_and_gradients(network)
    theirs, their_gradients = by_transformers(network, logits_and_gradients)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for name, gradient in their_gradients.items():
        assert float((our_gradients[name] - gradient).abs().max() / gradient.abs().max()) < 1e-4, name


@kinds
def test_without_gradients_the_numbers_are_the_same(kind: str, untrained: LanguageModel) -> None:
    network, batch = llama(**KINDS[kind]), ragged(untrained)
    with_gradients = response_logps(network, batch).detach()
    with torch.no_grad():
        torch.testing.assert_close(response_logps(network, batch), with_gradients, rtol=1e-6, atol=1e-6)


@kinds
@pytest.mark.parametrize("k", [1, 7])
def test_samples_are_those_of_the_cached_decoder(
    kind: str, k: int, untrained: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses end at all lengths, so rows leave their groups at every step; prompts are of all lengths, too."""
    model = LanguageModel(llama(**KINDS[kind]), untrained.tokenizer, "llama")
    made = []
    for name in (None, "CachedDecoder"):
        if name:
            monkeypatch.setattr(decoding, "SmallLlamaDecoder", decoding.CachedDecoder)
        made.append(sample(model, prompts_of(RAGGED_PROMPTS), SamplingConfig(k=k), 12, 0, "test"))
    for ours, theirs in zip(*made, strict=True):
        for one, other in zip(ours.responses, theirs.responses, strict=True):
            assert one.token_ids == other.token_ids
            np.testing.assert_allclose(one.logps, other.logps, atol=1e-4)
    lengths = {len(r.token_ids) for g in made[0] for r in g.responses}
    assert k == 1 or len(lengths) > 4


def test_sampled_logps_are_those_of_the_packed_forward_pass(untrained: LanguageModel) -> None:
    """The reference policy of a round is what was recorded while sampling: the two must not differ."""
    generations = sample(untrained, prompts_of(RAGGED_PROMPTS), SamplingConfig(k=5), 8, 0, "test")
    prompts = untrained.encode_prompts(list(RAGGED_PROMPTS))
    batch = pack(prompts, [[r.token_ids for r in g.responses] for g in generations], untrained.pad_id)
    logps = response_logps(untrained.network, batch)
    for row, g in zip(logps.tolist(), generations, strict=True):
        for values, r in zip(row, g.responses, strict=True):
            np.testing.assert_allclose(values[: len(r.logps)], r.logps, atol=1e-5)


REFUSED: dict[str, Callable[[], Any]] = {
    "another architecture": lambda: MistralForCausalLM(
        MistralConfig(vocab_size=19, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    ),
    "a wide one": lambda: llama(hidden_size=1024, num_hidden_layers=1),
    "biases": lambda: llama(attention_bias=True),
    "another activation": lambda: llama(hidden_act="gelu"),
    "scaled rotation": lambda: llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
    "half precision": lambda: llama().to(torch.bfloat16),
    "dropout": lambda: llama(attention_dropout=0.1),
}


@pytest.mark.parametrize("what", REFUSED)
def test_whatever_it_does_not_compute_is_left_to_transformers(what: str) -> None:
    assert not is_small_llama(REFUSED[what]())


def test_modified_layers_and_autocast_are_left_to_transformers() -> None:
    network = llama()
    adapted = copy.deepcopy(network)
    adapted.model.layers[0].self_attn.q_proj = torch.nn.Sequential(adapted.model.layers[0].self_attn.q_proj)
    assert is_small_llama(network) and not is_small_llama(adapted)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_small_llama(network)
