"""Encoding, the identity of weights, and inference mode."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from helpers import RAGGED_PROMPTS

from rlaif_lab.models.cache import load_folder
from rlaif_lab.models.language_model import LanguageModel, hash_weights, inference


def test_prompts_begin_with_bos_and_responses_end_with_eos(untrained: LanguageModel) -> None:
    token = untrained.tokenizer.convert_tokens_to_ids
    assert untrained.encode_prompts(["1+", "="]) == [
        [token("<bos>"), token("1"), token("+")],
        [token("<bos>"), token("=")],
    ]
    assert untrained.encode_responses(["10", ""]) == [[token("1"), token("0"), token("<eos>")], [token("<eos>")]]
    assert untrained.encode_responses(["10", "1"], finished=[False, True]) == [
        [token("1"), token("0")],
        [token("1"), token("<eos>")],
    ]


def test_no_texts_no_rows(untrained: LanguageModel) -> None:
    """A round in which every judgement is a tie has nothing to encode."""
    assert untrained.encode_prompts([]) == []
    assert untrained.encode_responses([]) == []
    assert untrained.decode([]) == []


def test_decoding_undoes_encoding(untrained: LanguageModel) -> None:
    texts = ["", "0", "0123456789+=", "?TF", "====", "3390"]
    assert untrained.decode(untrained.encode_responses(texts)) == texts
    assert untrained.decode(untrained.encode_prompts(texts)) == texts


@pytest.mark.parametrize("text", ["a", "12 + 3", "1\n", "12-3=", "é", "<eos>", "1<pad>"])
def test_texts_with_unknown_characters_are_refused(untrained: LanguageModel, text: str) -> None:
    """The last two spell special tokens, whose characters the alphabet lacks all the same."""
    for encode in (untrained.encode_prompts, untrained.encode_responses):
        with pytest.raises(ValueError, match="cannot write"):
            encode(["12", text])


def test_saving_and_loading_keeps_every_bit(organism: LanguageModel, tmp_path: Path) -> None:
    organism.save(tmp_path)
    again = load_folder(tmp_path, "again")
    assert again.weights_hash() == organism.weights_hash()
    assert not again.network.training
    assert (again.pad_id, again.eos_id, again.tokenizer.padding_side) == (organism.pad_id, organism.eos_id, "left")
    assert again.tokenizer.get_vocab() == organism.tokenizer.get_vocab()
    assert again.encode_prompts(list(RAGGED_PROMPTS)) == organism.encode_prompts(list(RAGGED_PROMPTS))
    assert again.decode([[8, 9, 2]]) == organism.decode([[8, 9, 2]])
    for ids in organism.encode_prompts(list(RAGGED_PROMPTS)):
        one, two = (model.network(torch.tensor([ids])).logits for model in (organism, again))
        assert torch.equal(one, two)


def test_a_hash_is_of_the_weights_bit_for_bit(untrained: LanguageModel) -> None:
    network = copy.deepcopy(untrained.network)
    assert hash_weights(network) == untrained.weights_hash()
    assert hash_weights(network.train()) == untrained.weights_hash()
    weight = next(network.parameters())
    weight.data.view(-1)[0] = torch.nextafter(weight.data.view(-1)[0], torch.tensor(10.0))
    assert hash_weights(network) != untrained.weights_hash()
    assert hash_weights(copy.deepcopy(untrained.network).to(torch.bfloat16)) != untrained.weights_hash()


def test_a_hash_takes_scalar_buffers() -> None:
    assert hash_weights(torch.nn.BatchNorm1d(2)) == hash_weights(torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize("training", [True, False])
def test_inference_restores_the_mode_also_after_an_error(training: bool) -> None:
    network = torch.nn.Linear(1, 1).train(training)

    def fail() -> None:
        with inference(network):
            assert not network.training
            assert not torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert network.training is training
    assert torch.is_grad_enabled()


def test_what_inference_makes_can_be_trained_on() -> None:
    network = torch.nn.Linear(2, 1)
    with inference(network):
        features = network.weight * 2
    (network(features).sum()).backward()
    assert network.weight.grad is not None
