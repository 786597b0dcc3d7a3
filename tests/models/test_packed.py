"""Packing prompts with their responses never changes a log-probability or a gradient."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers import RAGGED_PROMPTS, plain_logps

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import pack, response_hidden, response_logits, response_logps, token_logps
from rlaif_lab.models.packing import model_inputs

Batch = tuple[list[list[int]], list[list[list[int]]]]


def ragged(seed: int, prompts: int = 5, most: int = 4, longest: int = 7) -> Batch:
    """Prompts of different lengths with different numbers of responses of different lengths, empty ones too."""
    rng = np.random.default_rng(seed)
    return (
        [[1, *rng.integers(7, 19, rng.integers(0, 9)).tolist()] for _ in range(prompts)],
        [
            [rng.integers(2, 19, rng.integers(0, longest + 1)).tolist() for _ in range(rng.integers(1, most + 1))]
            for _ in range(prompts)
        ],
    )


CASES = {
    "one response": ([[1, 8]], [[[9, 2]]]),
    "one token": ([[1]], [[[2]]]),
    "equal lengths": ([[1, 8, 17], [1, 9, 17]], [[[9, 2], [10, 2]], [[11, 2], [9, 2]]]),
    "twins": ([[1, 8, 9]], [[[9, 10, 2], [9, 10, 2]]]),
    **{f"ragged {seed}": ragged(seed) for seed in range(4)},
}


@pytest.mark.parametrize("name", CASES)
def test_logps_equal_those_of_plain_forward_passes(untrained: LanguageModel, name: str) -> None:
    prompts, responses = CASES[name]
    logps = response_logps(untrained.network, pack(prompts, responses, untrained.pad_id))
    assert logps.shape[:2] == (len(prompts), max(map(len, responses)))
    for b, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        for i, answer in enumerate(group):
            assert logps[b, i, len(answer) :].eq(0).all()
            if answer:
                plain = plain_logps(untrained.network, prompt, answer)
                torch.testing.assert_close(logps[b, i, : len(answer)], plain, atol=1e-5, rtol=0)
        assert logps[b, len(group) :].eq(0).all()


@pytest.mark.parametrize("name", ["equal lengths", "ragged 0", "ragged 1"])
def test_gradients_equal_those_of_plain_forward_passes(untrained: LanguageModel, name: str) -> None:
    prompts, responses = CASES[name]
    networks = [copy.deepcopy(untrained.network).requires_grad_(True) for _ in range(2)]
    weights = [[0.3 + b - 0.7 * i for i in range(len(group))] for b, group in enumerate(responses)]
    logps = response_logps(networks[0], pack(prompts, responses, untrained.pad_id)).sum(-1)
    sum(w * logps[b, i] for b, row in enumerate(weights) for i, w in enumerate(row)).backward()
    for b, row in enumerate(weights):
        for i, w in enumerate(row):
            if responses[b][i]:
                (w * plain_logps(networks[1], prompts[b], responses[b][i]).sum()).backward()
    for (parameter, packed), plain in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        assert packed.grad is not None, parameter
        torch.testing.assert_close(packed.grad, plain.grad, atol=2e-4, rtol=1e-4, msg=parameter)


def test_the_last_logits_are_what_the_model_would_say_next(untrained: LanguageModel) -> None:
    prompts, responses = ragged(5)
    batch = pack(prompts, responses, untrained.pad_id)
    logits = response_logits(untrained.network, batch)
    assert logits.shape == (*batch.response_ids.shape[:2], batch.response_ids.shape[2] + 1, len(untrained.tokenizer))
    for b, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        for i, answer in enumerate(group):
            plain = untrained.network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 :]
            torch.testing.assert_close(logits[b, i, : len(answer) + 1], plain, atol=1e-5, rtol=1e-5)


def test_padding_never_changes_a_value(untrained: LanguageModel) -> None:
    """Another pad token, a longer neighbour and more siblings: the first row stays as it was."""
    prompts, responses = ragged(6, prompts=1)
    alone = response_logps(untrained.network, pack(prompts, responses, 0))[0]
    longer = [*prompts, [1, *[9] * 12]], [*responses, [[8] * 11] * 6]
    for pad_id in (0, 5, 18):
        beside = response_logps(untrained.network, pack(*longer, pad_id))[0]
        torch.testing.assert_close(beside[: len(alone), : alone.shape[1]], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_no_position_lies_beyond_the_longest_row(untrained: LanguageModel, name: str) -> None:
    """A model with 48 positions reads every row of up to 48 tokens, whatever it is padded to."""
    prompts, responses = CASES[name]
    positions = model_inputs(untrained.network, pack(prompts, responses, untrained.pad_id))["position_ids"]
    longest = max(len(p) + len(answer) for p, group in zip(prompts, responses, strict=True) for answer in group)
    assert int(positions.min()) >= 0
    assert int(positions.max()) < longest


def test_a_response_never_sees_its_siblings(untrained: LanguageModel) -> None:
    one, other = ([[[9, 10, 2], sibling]] for sibling in ([7, 7, 7], [16, 2]))
    results = [response_logps(untrained.network, pack([[1, 8, 9, 17]], group, 0))[0, 0] for group in (one, other)]
    torch.testing.assert_close(*results, atol=1e-6, rtol=0)


def test_order_of_responses_only_permutes_the_values(untrained: LanguageModel) -> None:
    answers = [[9, 2], [10, 11, 2], [12, 13, 14, 2]]
    forwards = response_logps(untrained.network, pack([[1, 8]], [answers], 0))
    backwards = response_logps(untrained.network, pack([[1, 8]], [answers[::-1]], 0))
    torch.testing.assert_close(forwards.flip(1), backwards, atol=1e-6, rtol=0)


def test_pack_lays_out_left_and_right_padding() -> None:
    batch = pack([[1, 8, 9], [1]], [[[5, 2]], [[6], [7, 8, 2]]], pad_id=0)
    assert batch.prompt_ids.tolist() == [[1, 8, 9], [0, 0, 1]]
    assert batch.prompt_mask.tolist() == [[True] * 3, [False, False, True]]
    assert batch.response_ids.tolist() == [[[5, 2, 0], [0, 0, 0]], [[6, 0, 0], [7, 8, 2]]]
    assert batch.response_mask.sum(-1).tolist() == [[2, 0], [1, 3]]


def test_token_logps_are_normalised_over_the_vocabulary(untrained: LanguageModel) -> None:
    """The probabilities of all one-token responses sum to one."""
    batch = pack([[1, 8, 9]], [[[t] for t in range(len(untrained.tokenizer))]], 0)
    logps = token_logps(response_logits(untrained.network, batch), batch)
    assert logps.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_prompts_of_every_length_in_one_batch(untrained: LanguageModel) -> None:
    prompts = sorted(untrained.encode_prompts(list(RAGGED_PROMPTS)), key=len)
    assert any(len(a) < len(b) for a, b in pairwise(prompts))
    logps = response_logps(untrained.network, pack(prompts, [[[9, 2]]] * len(prompts), 0))
    for prompt, row in zip(prompts, logps, strict=True):
        torch.testing.assert_close(row[0], plain_logps(untrained.network, prompt, [9, 2]), atol=1e-5, rtol=0)


# --- hidden states ----------------------------------------------------------------------------------------------------
def test_hidden_states_are_indexed_as_the_logits_are(untrained: LanguageModel) -> None:
    batch = pack(*ragged(5), untrained.pad_id)
    hidden = response_hidden(untrained.network, batch)
    torch.testing.assert_close(untrained.network.lm_head(hidden), response_logits(untrained.network, batch))


def test_hidden_states_are_those_of_plain_forward_passes(untrained: LanguageModel) -> None:
    """The last one of a response is the state at its last token."""
    prompts, responses = ragged(4)
    hidden = response_hidden(untrained.network, pack(prompts, responses, untrained.pad_id))
    for b, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        for i, answer in enumerate(group):
            plain = untrained.network.model(torch.tensor([[*prompt, *answer]])).last_hidden_state[0]
            torch.testing.assert_close(hidden[b, i, : len(answer) + 1], plain[len(prompt) - 1 :], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(hidden[b, i, len(answer)], plain[-1], atol=1e-5, rtol=1e-5)


def classifier(kind: str, attention: str) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 24, "pad_token_id": 0}
    if kind != "gpt2":
        fields |= {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16}
    config = AutoConfig.for_model(kind, num_labels=1, bos_token_id=1, eos_token_id=2, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_sequence_classifiers_score_is_that_of_its_last_state(kind: str, attention: str) -> None:
    made = classifier(kind, attention)
    prompts, responses = [[1, 8, 9], [1]], [[[9, 10, 2], [2]], [[7, 8, 9, 10, 2]]]
    hidden = response_hidden(made, pack(prompts, responses, 0))
    for b, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        for i, answer in enumerate(group):
            plain = made(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
            torch.testing.assert_close(made.score(hidden[b, i, len(answer)]), plain, atol=1e-5, rtol=1e-5)


def test_a_body_without_hidden_states_is_refused(untrained: LanguageModel) -> None:
    class Headless(torch.nn.Module):
        config = untrained.network.config

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        @property
        def base_model(self) -> Any:
            return lambda **_: object()

    with pytest.raises(ValueError, match=r"Headless (has no body that gives hidden states|cannot be read)"):
        response_hidden(Headless(), pack([[1, 8]], [[[9, 2]]], 0))


# --- precision --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16_is_near_float32_and_never_nan(untrained: LanguageModel, attention: str, how: str) -> None:
    """Also behind left padding, in either way that a trainer computes in bfloat16."""
    batch = pack([[1], [1, 8, 9, 10, 11, 12, 13, 14]], [[[9, 2], [2]], [[10, 11, 12, 2]]], 0)
    exact = response_logits(untrained.network, batch)
    network = copy.deepcopy(untrained.network)
    network.set_attn_implementation(attention)
    if how == "weights":
        rounded = response_logits(network.to(torch.bfloat16), batch)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = response_logits(network, batch)
    assert not rounded.isnan().any()
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)
