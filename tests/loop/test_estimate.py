"""The estimate of a run against a tiny model that is measured, and against sums by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import chat_model, make_chat_model

from rlaif_lab.cli.estimate import first_job, print_estimate
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.loop import estimate as estimates
from rlaif_lab.loop.estimate import Lengths, Speed
from rlaif_lab.models.access import parameter_count
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.models.size import Size, size_of
from rlaif_lab.models.sources import Organism
from rlaif_lab.sampling.decoding import CachedDecoder
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.prompts_file import PromptsFile

LENGTHS = Lengths(prompt=20, response=8, prompts=4, k=3, evaluated=4, samples=2, measured=2)
TASK = PromptsFile(None, 8, columns={"id": "id"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def size(folder: Path) -> Size:
    return size_of(HFModel(str(folder)), TASK)


def test_parameters_are_those_that_load(folder: Path, task: Addition) -> None:
    whole = HFModel(str(folder))
    assert size_of(whole, TASK).parameters == parameter_count(whole.load(TASK).network)[0]
    adapter = HFModel(str(folder), lora={"r": 3})
    policy, _ = adapter.load_trainable(TASK, 0)
    assert size_of(adapter, TASK).trained == parameter_count(policy.network)[1]
    some = HFModel(str(folder), lora={"r": 2, "target_modules": ["q_proj", "down_proj"]})
    assert size_of(some, TASK).trained == parameter_count(some.load_trainable(TASK, 0)[0].network)[1]
    organism = Organism({"slip": 0.1, "misconception": 0.0}, "policy_pretraining", width=32, layers=2, heads=2)
    assert size_of(organism, task).layers == 2


def test_what_is_held_throughout_is_what_is_allocated(folder: Path, size: Size) -> None:
    held = estimates.weights_and_optimiser(size)
    policy, base = HFModel(str(folder)).load_trainable(TASK, 0)
    parameters = list(policy.network.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = [v for state in optimiser.state.values() for name, v in state.items() if name != "step"]

    def size_in_bytes(tensors: Any) -> int:
        return sum(t.nbytes for t in tensors)

    assert held["policy"] == size_in_bytes(parameters)
    assert held["frozen first policy"] == size_in_bytes(base.network.parameters())
    assert held["gradients"] == size_in_bytes(p.grad for p in parameters)
    assert held["optimiser (AdamW)"] == size_in_bytes(moments)
    # By hand: 1000 weights of two bytes, of whose adapter 10 are trained in float32.
    held = estimates.weights_and_optimiser(Size(1000, 10, 1, 1, 1, 1, 1, 2, adapter=True, checkpointing=False))
    assert held == {"policy": 2000, "adapter": 40, "gradients": 40, "optimiser (AdamW)": 80}


def test_cached_keys_are_those_of_the_cache(size: Size) -> None:
    network = chat_model().network
    ids = torch.randint(5, 200, (2, LENGTHS.prompt))
    with torch.no_grad():
        ahead = CachedDecoder(network, ids, torch.ones_like(ids), LENGTHS.k)
        for _ in range(LENGTHS.response):
            ahead.advance(torch.full((2 * LENGTHS.k,), 7))
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in ahead.cache.layers)
    assert estimates.cache_bytes(size, 2 * LENGTHS.k, LENGTHS) == kept


def test_activations_are_right_within_a_factor_of_two(folder: Path, size: Size) -> None:
    network = HFModel(str(folder)).load_trainable(TASK, 0)[0].network
    prompts = [list(range(5, 5 + LENGTHS.prompt))] * LENGTHS.prompts
    responses = [[[9] * LENGTHS.response] * LENGTHS.k] * LENGTHS.prompts
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[-1] != size.vocabulary:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = response_logps(network, pack(prompts, responses, 0)).sum()
    found = sum(storage.nbytes() for storage in kept.values())
    total.backward()
    said = estimates.activation_bytes(size, LENGTHS.prompts, LENGTHS.k, LENGTHS)
    assert 0.5 < said / found < 2, (said, found)


def test_seconds_by_hand() -> None:
    size = Size(1000, 1000, 1, 1, 1, 1, 1, 4, adapter=False, checkpointing=False)
    speed = Speed(flops=2000.0, bytes=1e9, what="a token a second")
    found = estimates.round_seconds(size, LENGTHS, speed, n=3, passes=1)
    assert found["sampling"] == 4 * 20 + 8 * 12
    assert found["evaluation's samples"] == 2 * (4 * 20 + 8 * 8)
    assert found["measured beside"] == 2 * (2 * 20 + 8 * 2) + 3 * 2 * 28
    assert found["training"] == 3 * 4 * (20 + 3 * 8)
    assert estimates.judging_seconds(ModelJudge("live"), size, LENGTHS, speed, trains=True) == 4 * 44 + 2 * 36
    slow = Speed(flops=1e12, bytes=4000.0, what="a second to read the weights")
    assert estimates.sampling_seconds(size, LENGTHS, slow, prompts=4, k=3) == pytest.approx(8.0, rel=1e-6)


def test_the_command_says_what_a_run_takes_and_loads_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(HFModel, "load", never)
    monkeypatch.chdir(tmp_path)
    print_estimate(["policy=hf", f"policy.path={folder}", "task=open_prompts", "learner=dpo", "seed=0,1", "rounds=3"])
    said = capsys.readouterr().out
    for part in (
        "optimiser (AdamW)",
        "cached keys",
        "activations",
        "judging (judge)",
        "3 rounds",
        "assumed",
        "GFLOP/s",
    ):
        assert part in said, part
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="does not exist"):
        print_estimate(["policy=hf", "policy.path=/nowhere"])


def test_of_a_sweep_the_first_job_is_meant() -> None:
    cfg = first_job(["experiment=plateau_real_lm", "rounds=1,2"])
    assert (cfg.arm, cfg.seed, cfg.rounds) == ("self", 0, 1)
