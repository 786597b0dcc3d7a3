"""At the first step of a round no log-ratio has moved, whatever the round is computed in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import prompts_of
from models.quirks import network

from rlaif_lab.feedback.base import Example
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import response_logps
from rlaif_lab.models.precision import set_precision
from rlaif_lab.records import Position
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.training.batches import Batching, Models, prepare

BOUND = {"32-true": 1e-5, "bf16-mixed": 0.0, "bf16-true": 0.0}
"""Nats per token. Recorded values are used in float32, where decoding and the packed forward differ by rounding."""


class Learner:
    """What ``prepare`` asks of a learner."""

    needs_reference = True
    reference = "round"


@contextlib.contextmanager
def as_lightning_does(precision: str) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
        yield


@pytest.mark.parametrize("reference", ["round", "initial"])
@pytest.mark.parametrize("precision", BOUND)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_every_log_ratio_is_zero(untrained: LanguageModel, kind: str, precision: str, reference: str) -> None:
    size = {"head_dim": 8} if kind != "llama" else {}
    made: Any = network(kind, len(untrained.tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, **size)
    set_precision(made, precision)
    policy = LanguageModel(made.requires_grad_(True), untrained.tokenizer, "policy")
    prompts = prompts_of(("12+34=", "1=", "7+"))
    generations = sample(policy, prompts, SamplingConfig(k=2), 8, 0)
    examples = [Example(g.prompt, g.responses, (1.0, 0.0), 0) for g in generations]
    learner: Any = Learner()
    learner.reference = reference
    steps = prepare(
        Position(0), examples, Models(policy, policy), learner=learner, batching=Batching(2), seed=0, fresh=True
    )
    made.train()
    for step in steps:
        for batch in step.batches:
            with as_lightning_does(precision):
                now = response_logps(made, batch.packed)
            for before in (batch.sampled_logps, batch.reference_logps):
                assert float((now.detach() - before).abs().max()) <= BOUND[precision]
            now.sum().backward()
    assert all(p.grad is not None for p in made.parameters())
