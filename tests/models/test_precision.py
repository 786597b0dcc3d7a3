"""What a model computes in is said once, and bfloat16 is not computed where it is slow."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from chat_model import make_chat_model

from rlaif_lab.models import precision
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.precision import check_precision, compute_in, computed_dtype, computing
from rlaif_lab.tasks.prompts_file import PromptsFile

TASK = PromptsFile(None, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("models") / "chat", steps=0)


@pytest.fixture
def without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: False)
    monkeypatch.setattr(precision, "has_accelerator", lambda: False)


def test_without_units_bfloat16_weights_are_held_in_float32_and_that_is_said(
    folder: Path, without_units: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source = HFModel(str(folder), dtype="bfloat16")
    assert source.load(TASK).network.dtype == torch.float32
    assert "no units for bfloat16" in capsys.readouterr().out
    assert source.identity(TASK) == HFModel(str(folder)).identity(TASK)


def test_with_units_weights_are_held_in_what_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: True)
    assert HFModel(str(folder), dtype="bfloat16").load(TASK).network.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_without_units_training_in_bfloat16_is_refused(without_units: None, name: str, accelerator: str) -> None:
    with pytest.raises(ValueError, match="no units"):
        check_precision(name, accelerator)
    check_precision("32-true", accelerator)
    check_precision(name, "gpu")


def test_copies_compute_in_the_same_and_others_do_not(untrained: LanguageModel) -> None:
    network = copy.deepcopy(untrained.network)
    compute_in(network, torch.bfloat16)
    ids = torch.tensor([[1, 8, 9]])
    for one in (network, copy.deepcopy(network), network.base_model):
        assert computed_dtype(one) == torch.bfloat16
        with computing(one), torch.no_grad():
            assert one.get_input_embeddings()(ids).dtype == torch.float32
            assert torch.nn.functional.linear(ids.float(), torch.ones(2, 3)).dtype == torch.bfloat16
    assert computed_dtype(untrained.network) == torch.float32
    with computing(untrained.network):
        assert not torch.is_autocast_enabled("cpu")


def test_a_pass_without_gradients_leaves_those_of_the_next_alone() -> None:
    """Autocast keeps the weights that it has cast; one cast without gradients would have none for the whole context."""
    linear = torch.nn.Linear(2, 2)
    compute_in(linear, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad(), computing(linear):
            linear(torch.ones(1, 2))
        linear(torch.ones(1, 2)).sum().backward()
    assert linear.weight.grad is not None
