"""The sampler draws from exactly the model's distribution, and batching never shows."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import RAGGED_PROMPTS, plain_logps, prompts_of
from scipy import stats
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation
from rlaif_lab.sampling import exact
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.decoding import CachedDecoder
from rlaif_lab.sampling.exact import BLOCK, choose, sample, sampling_probabilities
from rlaif_lab.tasks.arithmetic import Addition

PROMPTS = prompts_of(RAGGED_PROMPTS)
WARPERS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.6),
    SamplingConfig(temperature=1.7),
    SamplingConfig(top_k=4),
    SamplingConfig(top_k=100),
    SamplingConfig(top_p=0.7),
    SamplingConfig(top_p=0.01),
    SamplingConfig(temperature=0.7, top_k=8, top_p=0.8),
]


def transformers_probabilities(logits: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    if config.top_k:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    return warpers(None, logits).softmax(-1)


def next_logits(model: LanguageModel, text: str) -> torch.Tensor:
    return model.network(torch.tensor(model.encode_prompts([text]))).logits[:, -1]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """p-value; cells with fewer than five expected draws are put together."""
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    assert not counts[~keep].any()
    return float(stats.chisquare(counts[keep], expected[keep] * counts.sum() / expected[keep].sum()).pvalue)


# --- against transformers -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("which", ["untrained", "organism"])
def test_greedy_equals_generate(which: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    rng = np.random.default_rng(0)
    texts = [*RAGGED_PROMPTS, *("".join(rng.choice(list("0123456789+="), rng.integers(1, 12))) for _ in range(40))]
    encoded = model.tokenizer(texts, return_tensors="pt", padding=True)
    made = model.network.generate(
        input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], do_sample=False, max_new_tokens=12
    )
    ours = sample(model, prompts_of(texts), SamplingConfig(k=1, temperature=0.0), 12)
    for row, generation in zip(made[:, encoded["input_ids"].shape[1] :].tolist(), ours, strict=True):
        end = row.index(model.eos_id) + 1 if model.eos_id in row else len(row)
        assert generation.responses[0].token_ids == tuple(row[:end])


@pytest.mark.parametrize("config", WARPERS, ids=str)
def test_truncation_equals_that_of_transformers(config: SamplingConfig) -> None:
    logits = torch.randn(64, 30, generator=torch.Generator().manual_seed(0)) * 2
    expected = transformers_probabilities(logits, config)
    torch.testing.assert_close(sampling_probabilities(logits, config), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", WARPERS, ids=str)
def test_first_tokens_follow_the_exact_distribution(untrained: LanguageModel, config: SamplingConfig) -> None:
    n = 8000
    generation = sample(untrained, PROMPTS[:1], replace(config, k=n), 1)[0]
    counts = np.bincount([r.token_ids[0] for r in generation.responses], minlength=len(untrained.tokenizer))
    exact = transformers_probabilities(next_logits(untrained, PROMPTS[0].text), config)[0].double().numpy()
    assert not counts[exact == 0].any()
    assert exact.max() > 0.999 or chi_square(counts, n * exact) > 1e-3


def test_token_pairs_follow_the_exact_joint_distribution(untrained: LanguageModel) -> None:
    """The second token is drawn given the first, from a stream independent of the first's."""
    n, size = 20_000, len(untrained.tokenizer)
    generation = sample(untrained, PROMPTS[:1], SamplingConfig(k=n), 2)[0]
    counts = np.zeros((size, size + 1))
    for r in generation.responses:
        counts[r.token_ids[0], r.token_ids[1] if len(r.token_ids) > 1 else size] += 1
    prompt = untrained.encode_prompts([PROMPTS[0].text])[0]
    first = next_logits(untrained, PROMPTS[0].text)[0].softmax(-1)
    second = untrained.network(torch.tensor([[*prompt, t] for t in range(size)])).logits[:, -1].softmax(-1)
    exact = torch.cat([first[:, None] * second, torch.zeros(size, 1)], 1).double().numpy()
    exact[untrained.eos_id] = 0.0
    exact[untrained.eos_id, size] = float(first[untrained.eos_id])
    assert chi_square(counts.ravel(), n * exact.ravel()) > 1e-3


def test_samples_and_those_of_generate_come_from_one_distribution(untrained: LanguageModel) -> None:
    n, config = 6000, SamplingConfig(temperature=0.8, top_k=6, top_p=0.9)
    ids = torch.tensor(untrained.encode_prompts([PROMPTS[0].text]))
    torch.manual_seed(0)
    made = untrained.network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=0.8,
        top_k=6,
        top_p=0.9,
        max_new_tokens=2,
        num_return_sequences=n,
    )
    ours = sample(untrained, PROMPTS[:1], replace(config, k=n), 2)[0]
    cells: dict[tuple[int, ...], list[int]] = {}
    for row in made[:, ids.shape[1] :].tolist():
        cells.setdefault(tuple(row), [0, 0])[0] += 1
    for r in ours.responses:
        padded = (*r.token_ids, untrained.pad_id)[:2]
        cells.setdefault(padded, [0, 0])[1] += 1
    table = np.array([c for c in cells.values() if sum(c) >= 10])
    assert len(table) > 10
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("vocabulary", [2**14, 2**14 + 1, 20_000])
def test_a_large_vocabulary_is_searched_to_the_same_tokens(monkeypatch: pytest.MonkeyPatch, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4.0 * torch.randn(500, vocabulary, generator=generator)
    logits[:5] = -torch.inf  # all on one token: the first, the last, the borders of a block
    for row, token in enumerate([0, vocabulary - 1, BLOCK - 1, BLOCK, vocabulary // 2]):
        logits[row, token] = 0.0
    draws = torch.rand(500, dtype=torch.float64, generator=generator)
    draws[5:8] = torch.tensor([0.0, 1.0 - 2.0**-53, 0.5])
    by_blocks, logps = choose(logits, draws, SamplingConfig())
    monkeypatch.setattr(exact, "WIDE", vocabulary)
    whole, exact_logps = choose(logits, draws, SamplingConfig())
    # The one draw beside the total aside, which either way ends at some token of the tail.
    same = torch.arange(500) != 6
    assert torch.equal(by_blocks[same], whole[same])
    torch.testing.assert_close(logps[same], exact_logps[same], rtol=0, atol=2e-5)
    assert torch.isfinite(logps).all()
    # A row's token does not depend on who is beside it.
    monkeypatch.setattr(exact, "WIDE", 2**13)
    for row in (0, 9, 499):
        alone, its_logp = choose(logits[row : row + 1], draws[row : row + 1], SamplingConfig())
        assert (alone.item(), its_logp.item()) == (by_blocks[row].item(), logps[row].item())


def test_choose_is_the_inverse_of_the_cumulative_distribution() -> None:
    logits = torch.log(torch.tensor([[0.25, 0.5, 0.25]])).expand(7, -1)
    draws = torch.tensor([0.0, 0.2499, 0.2501, 0.5, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    tokens, logps = choose(logits, draws, SamplingConfig())
    assert tokens.tolist() == [0, 0, 1, 1, 1, 2, 2]
    torch.testing.assert_close(logps.exp(), torch.tensor([0.25, 0.25, 0.5, 0.5, 0.5, 0.25, 0.25]))


def test_logps_are_those_of_temperature_one_whatever_is_sampled_with() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]]))
    for config in (
        SamplingConfig(temperature=0.0),
        SamplingConfig(temperature=0.2, top_k=1),
        SamplingConfig(top_p=0.5),
    ):
        tokens, logps = choose(logits, torch.tensor([0.999], dtype=torch.float64), config)
        assert tokens.item() == 1
        assert logps.exp().item() == pytest.approx(0.6, abs=1e-6)


# --- invariances ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 12, 1000])
def test_batch_size_changes_nothing(untrained: LanguageModel, batch_size: int) -> None:
    prompts = PROMPTS * 1 + prompts_of(["9+", "11+22=", "5=5="])
    reference = sample(untrained, prompts, SamplingConfig(k=4), 8, 0, "rounds", 1)
    other = sample(untrained, prompts, SamplingConfig(k=4, batch_size=batch_size), 8, 0, "rounds", 1)
    for one, two in zip(reference, other, strict=True):
        assert [(r.token_ids, r.text, r.finished) for r in one.responses] == [
            (r.token_ids, r.text, r.finished) for r in two.responses
        ]
        for a, b in zip(one.responses, two.responses, strict=True):
            assert a.logps == pytest.approx(b.logps, abs=1e-5)


@pytest.mark.parametrize("limit", [1, 14])
def test_rows_that_have_ended_make_room_for_the_next_prompts(
    untrained: LanguageModel, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Of a model that the decoder of transformers' cache computes: no token changes, and fewer steps are taken."""
    config = Qwen2Config(
        vocab_size=len(untrained.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = replace(untrained, network=Qwen2ForCausalLM(config).eval())
    prompts = prompts_of([*RAGGED_PROMPTS, "1", "2345+6", "78", "9", "12+34", "5+", "67+8", "90"])
    steps: list[int] = []
    advance = CachedDecoder.advance

    def counted(self: CachedDecoder, tokens: torch.Tensor) -> None:
        steps.append(len(tokens))
        advance(self, tokens)

    monkeypatch.setattr(CachedDecoder, "advance", counted)

    def drawn(batch_size: int, refills: bool = True) -> tuple[list[Generation], int]:
        steps.clear()
        with monkeypatch.context() as patch:
            if not refills:
                patch.setattr(CachedDecoder, "refills", False)
            found = sample(model, prompts, SamplingConfig(k=2, batch_size=batch_size), limit, 0, "x")
        return found, len(steps)

    whole, _ = drawn(1024)
    lengths = {len(r.token_ids) for g in whole for r in g.responses}
    assert len(lengths) > 4 or limit == 1
    for batch_size in (2, 5, 8):
        some, fewer = drawn(batch_size)
        apart, more = drawn(batch_size, refills=False)
        for found in (some, apart):
            assert [g.prompt for g in found] == prompts
            for one, other in zip(whole, found, strict=True):
                for known, again in zip(one.responses, other.responses, strict=True):
                    assert (known.token_ids, known.finished) == (again.token_ids, again.finished)
                    assert known.logps == pytest.approx(again.logps, abs=1e-5)
        assert fewer < more or batch_size < 4 or limit == 1


def test_the_order_of_prompts_and_their_neighbours_change_nothing(untrained: LanguageModel) -> None:
    def tokens(prompts: list) -> dict[str, list[tuple[int, ...]]]:
        made = sample(untrained, prompts, SamplingConfig(k=3), 8, 0)
        return {g.prompt.id: [r.token_ids for r in g.responses] for g in made}

    reference = tokens(PROMPTS)
    assert list(reference) == [p.id for p in PROMPTS]
    assert tokens(PROMPTS[::-1]) == reference
    for prompt in PROMPTS:
        assert tokens([prompt])[prompt.id] == reference[prompt.id]


def test_fewer_samples_are_the_first_of_more(untrained: LanguageModel) -> None:
    few, many = (sample(untrained, PROMPTS, SamplingConfig(k=k), 8, 5) for k in (2, 6))
    for one, two in zip(few, many, strict=True):
        assert [r.token_ids for r in one.responses] == [r.token_ids for r in two.responses[:2]]


def test_samples_rounds_seeds_and_prompts_draw_apart(untrained: LanguageModel) -> None:
    def texts(*identity: int | str, prompts: list = PROMPTS) -> list[str]:
        return [r.text for g in sample(untrained, prompts, SamplingConfig(k=4), 8, *identity) for r in g.responses]

    reference = texts(0, "rounds", 1)
    assert texts(0, "rounds", 1) == reference
    assert len(set(reference)) > 0.9 * len(reference)
    for other in ((1, "rounds", 1), (0, "evaluation", 1), (0, "rounds", 2)):
        assert np.mean(np.array(texts(*other)) == reference) < 0.2


def test_the_global_random_state_is_neither_used_nor_moved(untrained: LanguageModel) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    reference = sample(untrained, PROMPTS, SamplingConfig(), 8, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert sample(untrained, PROMPTS, SamplingConfig(), 8, 0) == reference


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_mode_is_restored_and_sampling_is_in_eval_mode(untrained: LanguageModel, training: bool) -> None:
    network = copy.deepcopy(untrained.network).requires_grad_(True)
    model = LanguageModel(network, untrained.tokenizer, "copy")
    modes: list[tuple[bool, bool]] = []
    network.register_forward_pre_hook(lambda module, _: modes.append((module.training, torch.is_grad_enabled())))
    network.train(training)
    sample(model, PROMPTS, SamplingConfig(), 3)
    assert network.training is training
    assert torch.is_grad_enabled()
    assert set(modes) == {(False, False)}


def test_the_mode_is_restored_after_an_error(untrained: LanguageModel) -> None:
    network = copy.deepcopy(untrained.network).train()
    model = LanguageModel(network, untrained.tokenizer, "copy")
    with pytest.raises(ValueError, match="cannot write"):
        sample(model, prompts_of(["unknown"]), SamplingConfig(), 3)
    assert network.training


# --- what a response is ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [SamplingConfig(k=5), SamplingConfig(k=5, temperature=0.5, top_k=5)], ids=str)
def test_logps_equal_those_of_a_fresh_forward_pass(untrained: LanguageModel, config: SamplingConfig) -> None:
    for g in sample(untrained, PROMPTS, config, 10, 0):
        prompt = untrained.encode_prompts([g.prompt.text])[0]
        for r in g.responses:
            fresh = plain_logps(untrained.network, prompt, r.token_ids)
            assert r.logps == pytest.approx(fresh.tolist(), abs=1e-5)


def test_a_response_ends_at_its_first_eos_or_at_the_limit(untrained: LanguageModel) -> None:
    made = sample(untrained, PROMPTS, SamplingConfig(k=40), 12, 0)
    lengths = set()
    for g in made:
        for r in g.responses:
            assert len(r.token_ids) == len(r.logps) <= 12
            assert r.finished == (r.token_ids[-1] == untrained.eos_id)
            assert untrained.eos_id not in r.token_ids[:-1]
            assert r.finished or len(r.token_ids) == 12
            assert r.text == untrained.decode([r.token_ids])[0]
            assert "eos" not in r.text
            lengths.add((len(r.token_ids), r.finished))
    assert {(1, True), (12, False)} <= lengths
    assert len(lengths) > 8


def test_a_row_that_ended_is_not_computed_any_more(untrained: LanguageModel) -> None:
    network = copy.deepcopy(untrained.network)
    rows: list[int] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(args[0] if args else kwargs["input_ids"])), with_kwargs=True
    )
    made = sample(LanguageModel(network, untrained.tokenizer, "copy"), PROMPTS, SamplingConfig(k=40), 12, 0)
    lengths = np.array([len(r.token_ids) for g in made for r in g.responses])
    # One pass over the prompts (once for all k), then one row for each response that goes on after step t.
    assert rows == [len(PROMPTS), *(int((lengths > t).sum()) for t in range(1, 12))]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_configs_limit_goes_before_the_tasks(untrained: LanguageModel, limit: int) -> None:
    own = sample(untrained, PROMPTS, SamplingConfig(k=8, max_new_tokens=limit), 12, 0)
    assert max(len(r.token_ids) for g in own for r in g.responses) == limit
    assert own == sample(untrained, PROMPTS, SamplingConfig(k=8), limit, 0)


@pytest.mark.parametrize("stops", [("1",), ("12",), ("+", "="), ("12", "1")], ids=str)
def test_a_stop_string_cuts_a_response_and_changes_nothing_before_it(
    untrained: LanguageModel, stops: tuple[str, ...]
) -> None:
    k = 200
    free = sample(untrained, PROMPTS[:2], SamplingConfig(k=k), 12, 0)
    stopped = sample(untrained, PROMPTS[:2], SamplingConfig(k=k, stop=stops), 12, 0)
    cut = 0
    for one, two in zip(free, stopped, strict=True):
        for f, s in zip(one.responses, two.responses, strict=True):
            ends = [f.text.find(stop) for stop in stops if stop in f.text]
            assert s.text == (f.text[: min(ends)] if ends else f.text)
            assert s.finished == (f.finished or bool(ends))
            assert s.token_ids == f.token_ids[: len(s.token_ids)]
            if ends:
                cut += 1
                seen = untrained.decode([s.token_ids])[0]
                assert any(seen.endswith(stop) for stop in stops)
                assert not any(stop in seen[:-1] for stop in stops if len(stop) == 1)
            else:
                assert s.token_ids == f.token_ids
    assert cut > 5


def test_no_prompts_no_generations(untrained: LanguageModel) -> None:
    assert sample(untrained, [], SamplingConfig(), 5) == []


def test_addition_prompts_are_answered_in_order(organism: LanguageModel, task: Addition) -> None:
    prompts = task.prompts("evaluation", 0, 20, seed=0)
    made = sample(organism, prompts, SamplingConfig(k=2), task.max_response_tokens, 0)
    assert [g.prompt for g in made] == prompts
    assert {len(g.responses) for g in made} == {2}


# --- config ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 0),
        ("batch_size", 0),
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("max_new_tokens", 0),
        ("stop", ("",)),
        ("stop", "END"),  # would be read as three stop strings: E, N and D
    ],
)
def test_impossible_settings_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"sampler.{field}"):
        SamplingConfig(**{field: value})
