"""Where memory is not enough, one sentence names the setting to lower, whatever was being computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from chat_model import COMPARISONS, PROMPTS, attached_to_chat, chat_model

from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.metrics.divergence import divergence_metrics
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.records import Generation, Response
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 10 bytes"),
)
ANSWERED = [Generation(prompt, (Response("no", (5, 6), (0.0, 0.0), True),)) for prompt in PROMPTS]
STAGES: dict[str, Callable[[], Any]] = {
    "sampler.batch_size": lambda: sample(chat_model(), PROMPTS, SamplingConfig(k=2), 4, 0),
    "judge.batch_size": lambda: attached_to_chat(ModelJudge("live"), chat_model()).verdicts(COMPARISONS[:2]),
    "evaluation.prompts": lambda: divergence_metrics(chat_model(), chat_model(), ANSWERED),
}


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu", "windows"])
@pytest.mark.parametrize("key", STAGES)
def test_the_key_to_lower_is_named(key: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    STAGES[key]()  # how the model may be read is tried, and found

    def fail(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(torch, "log_softmax", fail)
    monkeypatch.setattr("rlaif_lab.models.packed.cross_entropy", fail)
    with pytest.raises(ValueError, match=rf"memory is not enough: lower {key}$"):
        STAGES[key]()


def test_any_other_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), out_of_memory("sampler.batch_size"):
        raise RuntimeError("shapes cannot be multiplied")


def test_a_model_that_says_nan_is_told_and_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    sample(chat_model(), PROMPTS, SamplingConfig(k=2), 4, 0)
    soft = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda *given, **named: soft(*given, **named) * float("nan"))
    with pytest.raises(ValueError, match=r"logits are not finite .* lower trainer\.learning_rate"):
        sample(chat_model(), PROMPTS, SamplingConfig(k=2), 4, 0)
