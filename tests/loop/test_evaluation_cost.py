"""What is measured beside sampling costs no more than the sampling: counted in tokens that go through a model."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_model import chat_model
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from rounds import make_round

from rlaif_lab.config import config_dir
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.loop import evaluation, stages
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Position
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.store.sweep_cache import SweepCache
from rlaif_lab.tasks.arithmetic import Addition


def counted(model: LanguageModel, tokens: Counter[str], doing: list[str]) -> LanguageModel:
    """Return a copy whose embedding counts the tokens that it is given; so do copies of the copy."""
    network = copy.deepcopy(model.network)
    embedding: Any = network.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda module, given: tokens.update({doing[-1]: given[0].numel()}))
    return replace(model, network=network)


@pytest.mark.parametrize("policy", ["hf", "qwen2_5_1_5b"])
def test_a_real_models_round_measures_no_more_than_it_samples(
    policy: str, task: Addition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", [f"policy={policy}"])
    tokens: Counter[str] = Counter()
    doing = ["sampling"]

    def round_of(folder: Path) -> Any:
        return make_round(
            counted(chat_model(), tokens, doing),
            task,
            folder,
            ModelJudge("live"),
            sampling=SamplingConfig(k=cfg.sampler.k, batch_size=cfg.sampler.batch_size),
            evaluation=Evaluation(**cfg.evaluation),
            prompts_per_round=cfg.prompts_per_round,
            changes="gold",
        )

    def measured(measure: Any, *given: Any, **named: Any) -> Any:
        doing.append("measuring")
        try:
            return measure(*given, **named)
        finally:
            doing.pop()

    for name in ("measure", "sample_answers"):
        monkeypatch.setattr(evaluation, name, functools.partial(measured, getattr(evaluation, name)))
    monkeypatch.setattr(evaluation, "coverage", lambda *given: ({}, 0.0))
    round_of(tmp_path / "first").before(0)  # how the model may be read is tried once
    tokens.clear()
    one = round_of(tmp_path / "counted")
    one.before(0)
    [prompts] = one.plan.prompts(task, 0)
    stages.generate(Position(0), prompts, one.parts, plan=one.plan, services=one.services)
    assert 0 < tokens["measuring"] <= tokens["sampling"], tokens


def test_what_the_base_answers_is_computed_once_for_all_arms(
    organism: LanguageModel, task: Addition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    generate = Exact.generate

    def spied(self: Exact, model: LanguageModel, prompts: Any, *given: Any) -> Any:
        if model.name == "tiny":
            asked.append(len(prompts))
        return generate(self, model, prompts, *given)

    monkeypatch.setattr(Exact, "generate", spied)
    cache = SweepCache(tmp_path / "shared", "one policy")
    rows = []
    for arm in ("a", "b"):
        one = make_round(
            organism,
            task,
            tmp_path / arm,
            ModelJudge("live"),
            cache=cache,
            evaluation=Evaluation(prompts=8, samples=2, final_samples=0, measured=3),
        )
        rows.append([evaluation.evaluate(index, one.parts, one.plan, one.services) for index in (0, 1)])
    assert asked == [3, 3], "three prompts in each of two rounds, by the first arm"
    for first, second in zip(*rows, strict=True):
        assert {k: v for k, v in first.items() if "time" not in k} == {
            k: v for k, v in second.items() if "time" not in k
        }


def test_fewer_prompts_are_measured_on_and_all_are_sampled(
    organism: LanguageModel, task: Addition, tmp_path: Path
) -> None:
    found = {}
    for measured in (None, 2):
        of = Evaluation(prompts=8, samples=2, final_samples=0, measured=measured)
        one = make_round(organism, task, tmp_path / str(measured), ModelJudge("live"), evaluation=of)
        found[measured] = evaluation.evaluate(0, one.parts, one.plan, one.services)
    assert found[None]["quality/sampled"] == found[2]["quality/sampled"]
    assert found[2]["tokens/evaluation"] < found[None]["tokens/evaluation"]
    with pytest.raises(ValueError, match=r"evaluation\.measured must be at least 1, or null"):
        Evaluation(measured=0)
