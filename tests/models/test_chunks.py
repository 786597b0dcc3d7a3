"""Log-probabilities, KL and entropy from a few positions at a time: the same numbers and gradients, and memory that
does not grow with responses times vocabulary."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
from typing import Any

import pytest
import torch

from models.quirks import network
from rlaif_lab.metrics.divergence import divergence
from rlaif_lab.models import packed
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.lora import LoraConfig, with_adapter
from rlaif_lab.models.packed import Packed, pack, response_logps

M_MMAP_THRESHOLD = -3
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "soft cap": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 3.0}),
    "scale": ("cohere", {"logit_scale": 0.3}),
    "divided": ("granite", {"logits_scaling": 4.0}),
    "bias": ("phi", {}),
    "its own decoder": ("opt", {}),
    "recurrent": ("lfm2", {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
    "more after the body": ("bert", {"is_decoder": True}),
}


def batch() -> Packed:
    return pack([[1, 8, 9, 17], [5]], [[[9, 10, 2], [2]], [[12, 13, 14, 15, 2], []]], 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HEADS)
def test_a_position_at_a_time_gives_the_same_numbers_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, config = HEADS[name]
    model = network(kind, 32, **SPECIAL, **config)
    base = network(kind, 32, seed=2, **SPECIAL, **config).requires_grad_(False)

    def numbers() -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        logps = response_logps(model, batch())
        (logps * torch.arange(1.0, logps.numel() + 1).view_as(logps)).sum().backward()
        with torch.no_grad():
            distance = divergence(model, base, batch())
        return [logps.detach(), *(p.grad for p in model.parameters() if p.grad is not None), *distance.values()]

    whole = numbers()
    monkeypatch.setattr(packed, "LOGITS_AT_ONCE", 3 * 32)
    few = numbers()
    assert len(few) == len(whole)
    for a, b in zip(few, whole, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)


def test_an_adapter_on_the_head_is_in_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = with_adapter(network("llama", 32, **SPECIAL), LoraConfig(r=2, target_modules=("lm_head",)), 0)
    with torch.no_grad():
        for name, weights in policy.named_parameters():
            if "lora_B" in name:
                weights.fill_(0.3)
    whole = response_logps(policy, batch())
    monkeypatch.setattr(packed, "LOGITS_AT_ONCE", 1)
    torch.testing.assert_close(response_logps(policy, batch()), whole, atol=1e-5, rtol=0)
    response_logps(policy, batch()).sum().backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)


def test_the_organisms_numbers_are_made_as_ever(untrained: LanguageModel) -> None:
    """What fits at once is computed at once, to the last bit as it always was."""
    made = response_logps(untrained.network, batch())
    old = packed.token_logps(packed.response_logits(untrained.network, packed.without_last(batch())), batch())
    assert torch.equal(made, old)


def test_few_positions_of_a_small_llama(untrained: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [copy.deepcopy(untrained.network).requires_grad_(True) for _ in range(2)]
    whole = response_logps(networks[0], batch())
    whole.sum().backward()
    monkeypatch.setattr(packed, "LOGITS_AT_ONCE", 1)
    few = response_logps(networks[1], batch())
    few.sum().backward()
    torch.testing.assert_close(few, whole, atol=1e-5, rtol=0)
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


# --- memory -----------------------------------------------------------------------------------------------------------
def peak(model: Any, length: int, backward: bool) -> int:
    """KiB by which a child's peak memory grows over what it has at first, with 16 responses of this length."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        with os.fdopen(read) as stream:
            said = stream.read()
        assert os.waitpid(child, 0)[1] == 0
        return int(said)
    try:
        # Large blocks go back to the system when they are freed, or holes in the heap would be measured.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 500_000)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        before = high_water()
        wide = pack([[1] * 8] * 16, [[[5] * length]] * 16, 0)
        with torch.set_grad_enabled(backward):
            logps = response_logps(model, wide)
            if backward:
                logps.sum().backward()
        os.write(write, str(high_water() - before).encode())
    except BaseException:
        os._exit(1)
    os._exit(0)


def high_water() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
@pytest.mark.parametrize("kind", ["llama", "qwen3"])  # by the lab's own forward pass, and by transformers'
@pytest.mark.parametrize("backward", [False, True])
def test_memory_does_not_grow_with_responses_times_vocabulary(
    kind: str, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of 16 responses of 128 tokens over 16384 words would be 128 MiB. What longer responses take besides
    (states, attention) is seen with a small vocabulary, and taken off."""
    monkeypatch.setattr(packed, "LOGITS_AT_ONCE", 2**20)
    grown = []
    for words in (64, 16384):
        model = network(kind, words, **SPECIAL)
        response_logps(model, pack([[1]], [[[5] * 63]], 0))  # what is set up once
        model.requires_grad_(backward)
        grown.append(peak(model, 128, backward) - peak(model, 16, backward))
    added = 16 * 112 * 16384 * 4 // 1024  # KiB of float32 logits
    assert grown[1] - grown[0] < added / 2, grown
