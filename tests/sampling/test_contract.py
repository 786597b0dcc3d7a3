"""What every engine promises, each with a tiny chat model; and what a server's engine refuses."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import PROMPTS, chat_model, make_chat_model

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation, Prompt
from rlaif_lab.sampling import serve
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.continuous import Continuous
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.sampling.logps import with_logps
from rlaif_lab.sampling.server import EngineError, ServerEngine
from rlaif_lab.tasks.arithmetic import Addition

MORE = [*PROMPTS, Prompt("t/2", "Compare two answers."), Prompt("t/3", "Say what forgets the garden.")]
LIMIT = 9


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Random weights, a copy of its own: responses end at all lengths, and tests may change them."""
    found = chat_model(seed=3, attn="sdpa")
    return replace(found, network=copy.deepcopy(found.network))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that really samples, by plain ``generate``."""
    folder = tmp_path_factory.mktemp("served")
    make_chat_model(folder / "model", seed=3)
    command = [sys.executable, serve.__file__, str(folder / "model"), "--backend", "transformers", "--port", "0"]
    process = subprocess.Popen([*command, "--dtype", "float32", "--announce", str(folder / "port")])
    while not (folder / "port").exists() and process.poll() is None:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{(folder / 'port').read_text()}"
    process.terminate()
    process.wait()


@pytest.fixture(params=["exact", "continuous", "server"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "server":
        return ServerEngine(base_url=request.getfixturevalue("address"), folder=str(tmp_path))
    return Continuous(num_blocks=64) if request.param == "continuous" else Exact()


def drawn(engine: Any, model: LanguageModel, prompts: Any = tuple(MORE), **config: Any) -> list[Generation]:
    return engine.generate(model, prompts, SamplingConfig(**{"k": 2} | config), LIMIT, (0, "rounds", 3))  # type: ignore[no-any-return]


def tokens(found: list[Generation]) -> list[tuple[int, ...]]:
    return [response.token_ids for generation in found for response in generation.responses]


def test_every_engine_keeps_the_contract(engine: Any, model: LanguageModel) -> None:
    engine.update(model, "round 3")
    found = drawn(engine, model)
    assert [g.prompt for g in found] == MORE and all(len(g.responses) == 2 for g in found)
    ends = set(model.eos_ids)
    for response in (r for g in found for r in g.responses):
        assert 1 <= len(response.token_ids) <= LIMIT and len(response.logps) == len(response.token_ids)
        assert response.finished == (response.token_ids[-1] in ends)
        assert not ends & set(response.token_ids[:-1])
        assert response.text == model.decode([response.token_ids])[0]
    again = with_logps(model, found, 3)
    for known, computed in zip(found, again, strict=True):
        for one, other in zip(known.responses, computed.responses, strict=True):
            assert one.logps == pytest.approx(other.logps, abs=1e-5)
    assert tokens(drawn(engine, model)) == tokens(found)  # a killed stage draws the same again
    assert len(set(tokens(found))) > 4
    if engine.determinism == "item":
        assert tokens(drawn(engine, model, MORE[2:])) == tokens(found)[4:]
        assert tokens(drawn(engine, model, MORE[::-1]))[-2:] == tokens(found)[:2]


def test_every_engine_is_greedy_at_temperature_0_and_stops_at_a_text(engine: Any, model: LanguageModel) -> None:
    engine.update(model, "round 3")
    greedy = drawn(engine, model, k=1, temperature=0.0)
    assert tokens(greedy) == tokens(drawn(Exact(), model, k=1, temperature=0.0))
    text = next(r.text for g in greedy for r in g.responses if len(r.text) > 3)
    stop = text[len(text) // 2]
    stopped = drawn(engine, model, k=1, temperature=0.0, stop=(stop,))
    assert tokens(stopped) == tokens(drawn(Exact(), model, k=1, temperature=0.0, stop=(stop,)))
    for known, cut in zip(greedy, stopped, strict=True):
        assert cut.responses[0].text == known.responses[0].text.split(stop)[0]


def test_new_weights_are_taken_over(engine: Any, model: LanguageModel) -> None:
    engine.update(model, "round 3")
    before = tokens(drawn(engine, model, k=1, temperature=0.0))
    changed = replace(model, network=copy.deepcopy(model.network))
    with torch.no_grad():
        for weights in changed.network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    engine.update(changed, "round 4")
    after = tokens(drawn(engine, changed, k=1, temperature=0.0))
    assert after == tokens(drawn(Exact(), changed, k=1, temperature=0.0)) != before


def test_evaluation_by_continuous_batching_keeps_common_draws(model: LanguageModel) -> None:
    config, identity = SamplingConfig(k=2), (0, "evaluation", 3)
    one, other = (e.generate(model, MORE, config, LIMIT, identity) for e in (Continuous(), Exact()))
    assert tokens(one) == tokens(other)


# --- a server ---------------------------------------------------------------------------------------------------------
def test_a_server_that_another_run_has_given_other_weights_refuses(
    address: str, model: LanguageModel, tmp_path: Path
) -> None:
    mine, other = (ServerEngine(base_url=address, folder=str(tmp_path / name)) for name in ("mine", "other"))
    mine.update(model, "round 3")
    changed = replace(model, network=copy.deepcopy(model.network))
    with torch.no_grad():
        next(changed.network.parameters()).add_(0.5)
    other.update(changed, "round 0")
    with pytest.raises(ValueError, match=r"refuses: this server holds version '\w+', not '\w+'"):
        drawn(mine, model)
    resumed = ServerEngine(base_url=address, folder=str(tmp_path / "mine"))
    resumed.update(model, "round 3")
    assert tokens(drawn(resumed, model, k=1, temperature=0.0)) == tokens(drawn(Exact(), model, k=1, temperature=0.0))


def test_a_server_with_another_model_or_tokenizer_is_refused(
    address: str, organism: LanguageModel, model: LanguageModel, task: Addition, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="the server has another model than the policy"):
        ServerEngine(base_url=address, folder=str(tmp_path)).update(organism, "round 0")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens(["<one more>"])
    with pytest.raises(ValueError, match="the server has another tokenizer than the policy"):
        ServerEngine(base_url=address, folder=str(tmp_path)).update(replace(model, tokenizer=tokenizer), "round 0")


def test_a_server_that_is_gone_ends_the_run_with_a_sentence(model: LanguageModel, tmp_path: Path) -> None:
    engine = ServerEngine(base_url="http://127.0.0.1:9", folder=str(tmp_path), wait_s=0.1)
    with pytest.raises(EngineError, match=r"engine at http://127.0.0.1:9 does not answer"):
        engine.update(model, "round 0")


@pytest.mark.parametrize(("name", "least"), [("page_size", 4), ("num_blocks", 1), ("max_batch_tokens", 1)])
def test_sizes_that_continuous_batching_cannot_have_are_refused(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"engine.{name} must be at least {least}; got {least - 1}"):
        Continuous(**{name: least - 1})
    Continuous(**{name: least})


def test_a_cache_that_is_too_small_ends_in_one_sentence(
    model: LanguageModel, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"continuous batching gave up .* raise engine.num_blocks"):
        drawn(Continuous(num_blocks=1, page_size=4), model)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "engine needs either engine.base_url .* or engine.python"),
        ({"base_url": "here"}, "engine.base_url must begin with http"),
        ({"python": "/no/python"}, "engine.python: there is no program '/no/python'"),
        ({"base_url": "http://here", "backend": "tgi"}, "engine.backend must be one of vllm, transformers"),
    ],
)
def test_wrong_settings_of_a_server_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerEngine(**settings)


def test_a_server_that_cannot_be_started_says_why(model: LanguageModel, tmp_path: Path) -> None:
    engine = ServerEngine(python=sys.executable, backend="vllm", folder=str(tmp_path))
    with pytest.raises(ValueError, match=r"the server ended before it served; its last line: ModuleNotFound.*vllm"):
        engine.update(model, "round 0")
