"""What a run refuses before it trains anything, and what it does not hide."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from rlaif_lab.config import check, config_dir
from rlaif_lab.loop.run import Loop
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.store.files import DiskError


def loop(directory: Path, *overrides: str) -> Loop:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(
            "config",
            overrides=[
                "logger=none",
                "task.digits=2",
                "prompts_per_round=64",
                "rounds=2",
                "evaluation.prompts=64",
                *overrides,
            ],
        )
    check(cfg)
    return Loop(cfg, directory)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.prompts=0", "evaluation.prompts must be at least 1; got 0"),
        ("evaluation.samples=0", "evaluation.samples must be at least 1; got 0"),
        ("sampler.k=1", "sampler.k must be at least 2"),
        ("rounds=1000", "'rounds' split"),
        ("evaluation.prompts=500", "'evaluation' split"),
        ("detector.horizon=1", "detector.horizon=1 rounds is what the detector's alpha is good for, but rounds=2"),
        ("detector.measure=heldout_judge", "needs a held-out judge"),
        ("evaluation.final_samples=-1", "evaluation.final_samples"),
        ("policy.split=nowhere", "recipe.split"),
        ("sampler.top_p=0", "sampler.top_p"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained_or_claimed(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        loop(tmp_path, override)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_policy_and_a_judge_of_one_name_are_both_in_the_fingerprint(tmp_path: Path, organism: LanguageModel) -> None:
    """Other weights under the same path and name are another run, whichever of the two they are."""
    for folder in ("policy", "judge"):
        organism.save(tmp_path / folder)
    overrides = [
        "policy=hf",
        "judge=hf",
        "policy.name=same",
        "judge.weights.name=same",
        f"policy.path={tmp_path / 'policy'}",
        f"judge.weights.path={tmp_path / 'judge'}",
    ]
    loop(tmp_path / "run", *overrides)
    network = copy.deepcopy(organism.network)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    for changed, original in (("judge", "policy"), ("policy", "judge")):
        LanguageModel(network, organism.tokenizer, "changed").save(tmp_path / changed)
        organism.save(tmp_path / original)
        with pytest.raises(ValueError, match="another config"):
            loop(tmp_path / "run", *overrides, "resume=true")


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("the judge's server is down"), FileNotFoundError("policy.pt")]
)
def test_an_error_of_the_judge_is_not_reported_as_a_full_disk(
    tmp_path: Path, organism: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Both are OSErrors; only what writes may say that it could not."""
    import pytorch_lightning

    def fails(*_: Any, **__: Any) -> None:
        raise error

    made = loop(tmp_path)
    monkeypatch.setattr(pytorch_lightning.Trainer, "fit", fails)
    rounds = SimpleNamespace(policy=LanguageModel(copy.deepcopy(organism.network), organism.tokenizer, "policy"))
    with pytest.raises(Exception) as caught:
        made.train(rounds)  # type: ignore[arg-type]
    assert not isinstance(caught.value, DiskError), caught.value


def test_a_corrupt_checkpoint_is_named(tmp_path: Path) -> None:
    made = loop(tmp_path)
    assert made.last_checkpoint() is None
    (tmp_path / "checkpoints").mkdir()
    for index in (0, 1):
        torch.save({"x": index}, tmp_path / "checkpoints" / f"round_{index:03d}.ckpt")
    assert made.last_checkpoint() == str(tmp_path / "checkpoints" / "round_001.ckpt")
    (tmp_path / "checkpoints" / "round_001.ckpt").write_bytes(b"half a check")
    with pytest.raises(ValueError, match=r"round_001\.ckpt' is corrupt.*delete that one file"):
        made.last_checkpoint()


@pytest.mark.parametrize(("first", "then"), [(8, 12), (999, 1000)])
def test_the_newest_checkpoint_is_that_of_the_latest_round(tmp_path: Path, first: int, then: int) -> None:
    made = loop(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for index in (first, then):
        torch.save({}, tmp_path / "checkpoints" / f"round_{index:03d}.ckpt")
    assert made.last_checkpoint() == str(tmp_path / "checkpoints" / f"round_{then:03d}.ckpt")
