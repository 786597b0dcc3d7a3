"""What a run refuses before it trains anything, and what it does not hide."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from rounds import make_round

from rlaif_lab.config import check, config_dir
from rlaif_lab.judges.oracle import RandomJudge
from rlaif_lab.loop import fit as fit_module
from rlaif_lab.loop.fit import Hooks, fit
from rlaif_lab.loop.run import Run
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.store.checkpoints import newest_checkpoint
from rlaif_lab.store.files import DiskError
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.training.settings import TrainerConfig

TINY = (
    "policy.steps=30",
    "policy.width=32",
    "policy.layers=2",
    "policy.heads=2",
    "prompts_per_round=32",
    "evaluation.final_samples=4",
)


def made(directory: Path, *overrides: str) -> Run:
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
    return Run(cfg, directory)


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
        ("detector.measure=people", "needs people who are asked to evaluate: judge=human_budget judge.use=evaluate"),
        ("evaluation.final_samples=-1", "evaluation.final_samples"),
        ("policy.split=nowhere", "policy.split"),
        ("sampler.top_p=0", "sampler.top_p"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained_or_claimed(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        made(tmp_path, override)
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
    made(tmp_path / "run", *overrides)
    network = copy.deepcopy(organism.network)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    for changed, original in (("judge", "policy"), ("policy", "judge")):
        LanguageModel(network, organism.tokenizer, "changed").save(tmp_path / changed)
        organism.save(tmp_path / original)
        with pytest.raises(ValueError, match="another config"):
            made(tmp_path / "run", *overrides, "resume=true")


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("the judge's server is down"), FileNotFoundError("policy.pt")]
)
def test_an_error_of_the_judge_is_not_reported_as_a_full_disk(
    tmp_path: Path, organism: LanguageModel, task: Addition, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Both are OSErrors; only what writes may say that it could not."""

    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pytorch_lightning.Trainer, "fit", fails)
    round_ = make_round(organism, task, tmp_path, RandomJudge())
    with pytest.raises(Exception) as caught:
        fit(round_, TrainerConfig(), Hooks(lambda row, samples: None), rounds=1)
    assert not isinstance(caught.value, DiskError), caught.value


# --- what the order of callbacks may not change -----------------------------------------------------------------------
def test_the_order_of_callbacks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics and what checkpoints hold are the same, the detector before the hook that calls it and behind it."""
    usual = fit_module.callbacks
    rows = []
    for folder, order in (("usual", lambda found: found), ("shuffled", lambda found: found[::-1])):
        monkeypatch.setattr(fit_module, "callbacks", lambda *given, order=order: order(usual(*given)))
        run = made(tmp_path / folder, *TINY, "judge=random", "gate.force=true", "export=false", "bank.pairs=8")
        run.run()
        rows.append([{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.store.rows()])
        held = torch.load(newest_checkpoint(run.directory / "checkpoints") or "", weights_only=False)["callbacks"][
            "PlateauDetector"
        ]
        rows[-1].append(held)
    assert rows[0] == rows[1]
    assert "detector/plateau_evidence" in rows[0][1]


class Noting(pytorch_lightning.Callback):
    """A callback of a user's."""

    ends: ClassVar[list[int]] = []

    def on_train_epoch_end(self, trainer: pytorch_lightning.Trainer, pl_module: Any) -> None:
        self.ends.append(trainer.current_epoch)


def test_own_callbacks_and_arguments_of_trainers_reach_lightning(tmp_path: Path) -> None:
    Noting.ends.clear()
    run = made(
        tmp_path,
        *TINY,
        *("judge=random", "gate.force=true", "export=false", "~bank", "logger=csv"),
        f"+callbacks.noting._target_={Noting.__module__}.Noting",
        "+trainer.args.profiler._target_=pytorch_lightning.profilers.SimpleProfiler",
        f"+trainer.args.profiler.dirpath={tmp_path}",
        "+trainer.args.profiler.filename=profile",
    )
    run.run()
    assert Noting.ends == [0, 1]
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    for row, line in zip(run.store.rows(), logged, strict=True):
        assert {k: float(v) for k, v in line.items() if v and k != "step"} == {
            k: v for k, v in row.items() if v is not None
        }
