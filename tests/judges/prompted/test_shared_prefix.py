"""Sharing beginnings changes nothing but the time, and verdict tokens are read as the tokenizer writes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from chat_model import chat_model

from rlaif_lab.judges.prompted.labels import LabelTokens
from rlaif_lab.judges.prompted.shared_prefix import read_next
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.seeding import rng_for

COLUMNS = [5, 99, 300]


def alone(model: LanguageModel, sequence: list[int]) -> torch.Tensor:
    """Log-probabilities of every next token: one sequence, one forward pass, nothing else."""
    return torch.log_softmax(model.network(input_ids=torch.tensor([sequence])).logits[0].float(), -1)


def tree(prompts: int = 3, answers: int = 3, seed: int = 0) -> tuple[list[list[int]], list[tuple[str, ...]]]:
    """Sequences of the form: instructions, prompt, first answer, second answer, question; of random lengths."""
    rng = rng_for(seed, "tree")

    def piece(low: int, high: int) -> list[int]:
        return rng.integers(3, 400, size=int(rng.integers(low, high))).tolist()

    start, end = piece(20, 21), piece(5, 6)
    sequences, paths = [], []
    for p in range(prompts):
        prompt, texts = piece(3, 15), [piece(1, 25) for _ in range(answers)]
        for i, first in enumerate(texts):
            for j, second in enumerate(texts):
                if i != j:
                    sequences.append([*start, *prompt, *first, *second, *end])
                    paths.append((f"prompt {p}", f"answer {i}"))
    return sequences, paths


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_shared_beginnings_give_what_each_sequence_gives_alone(attn: str, batch_size: int) -> None:
    model = chat_model(attn=attn)
    sequences, paths = tree()
    read = read_next(model, sequences, paths, COLUMNS, keep=2, batch_size=batch_size)
    for sequence, logps, top in zip(sequences, read.logps, read.top.tolist(), strict=True):
        expected = alone(model, sequence)[-2:]
        torch.testing.assert_close(logps, expected[:, COLUMNS], atol=1e-5, rtol=0)
        assert top == int(expected[0].argmax())


def test_every_token_of_the_tree_is_computed_once() -> None:
    sequences, paths = tree()
    nodes = {(*path, tuple(s[:20])) for path, s in zip(paths, sequences, strict=True)}
    assert len(nodes) == 9
    shared = read_next(chat_model(), sequences, paths, COLUMNS)
    prefixes = {tuple(sequence[:end]) for sequence in sequences for end in range(1, len(sequence) + 1)}
    repeated = sum(map(len, sequences)) - len(prefixes)
    assert shared.tokens < sum(map(len, sequences)) - 0.9 * repeated
    assert read_next(chat_model(), sequences, paths, COLUMNS, share=False).tokens == sum(map(len, sequences))


def test_paths_that_do_not_hold_only_cost_time() -> None:
    sequences, _ = tree()
    wrong = [(f"prompt {i % 2}", f"answer {i % 3}") for i in range(len(sequences))]
    read = read_next(chat_model(), sequences, wrong, COLUMNS)
    plain = read_next(chat_model(), sequences, wrong, COLUMNS, share=False)
    torch.testing.assert_close(read.logps, plain.logps, atol=1e-5, rtol=0)


def test_sequences_with_nothing_in_common_and_one_that_begins_another() -> None:
    sequences = [[7, 8, 9], [20, 21], [7, 8], [7, 8, 9, 10, 11]]
    read = read_next(chat_model(), sequences, [("a",)] * 4, COLUMNS)
    for sequence, logps in zip(sequences, read.logps, strict=True):
        torch.testing.assert_close(logps[0], alone(chat_model(), sequence)[-1, COLUMNS], atol=1e-5, rtol=0)


def test_a_model_that_cannot_look_back_so_far_is_asked_without_sharing() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=418,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=16,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = replace(chat_model(), network=MistralForCausalLM(config).eval())
    sequences, paths = tree()
    read = read_next(model, sequences, paths, COLUMNS)
    assert read.tokens == sum(map(len, sequences))
    for sequence, logps in zip(sequences, read.logps, strict=True):
        torch.testing.assert_close(logps[0], alone(model, sequence)[-1, COLUMNS], atol=1e-5, rtol=0)


# --- verdict tokens -------------------------------------------------------------------------------------------------
def test_labels_are_read_in_their_place_behind_the_cue() -> None:
    model = chat_model()
    labels = LabelTokens.of(model.tokenizer, ["A", "B"], "Verdict:", "m", "votes")
    assert model.tokenizer.decode(labels.lead) == "Verdict:"
    assert [model.tokenizer.decode(ids) for ids in labels.tokens] == [" A", " B"]
    sequences, paths = tree()
    found = labels.probabilities(model, sequences, paths, batch_size=8)
    for sequence, values in zip(sequences, found.values, strict=True):
        last = alone(model, [*sequence, *labels.lead])[-1].double().exp()
        torch.testing.assert_close(values, last[[ids[0] for ids in labels.tokens]], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.mass, found.values.sum(-1))
    torch.testing.assert_close(found.normalised().sum(-1), torch.ones(len(sequences), dtype=torch.float64))


def test_a_score_of_two_digits_is_told_from_its_first() -> None:
    """P(10) = P(1) P(0 | 1), and P(1) is what is left of P(1)."""
    model = chat_model()
    scores = [str(i) for i in range(1, 11)]
    labels = LabelTokens.of(model.tokenizer, scores, "Score:", "m", "votes")
    one, ten = labels.tokens[0], labels.tokens[9]
    assert len(one) == 1 and ten == (*one, model.tokenizer.convert_tokens_to_ids("0"))
    sequences, paths = tree()
    found = labels.probabilities(model, sequences, paths, batch_size=8)
    for sequence, values in zip(sequences, found.values, strict=True):
        prompt = [*sequence, *labels.lead]
        before, after = alone(model, [*prompt, *one]).double().exp()[-2:]
        assert values[9] == pytest.approx(float(before[one[0]] * after[ten[1]]), abs=1e-7)
        assert values[0] == pytest.approx(float(before[one[0]] * (1 - after[ten[1]])), abs=1e-7)
        assert values[4] == pytest.approx(float(before[labels.tokens[4][0]]), abs=1e-7)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (["Alpha", "Beta"], ["splits the verdict 'Alpha'", "use labels of one token", "judge.reads=votes"]),
        (["A", "A"], ["begins several of the verdicts", "with the same token"]),
        (["1", "10", "11"], ["begins several of the verdicts '10', '11'"]),
    ],
)
def test_labels_that_cannot_be_told_by_their_token_are_refused(labels: list[str], parts: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        LabelTokens.of(chat_model().tokenizer, labels, "Verdict:", "tiny", "judge.reads=votes")
    assert all(part in str(error.value) for part in ["model 'tiny'", *parts]), str(error.value)
