"""Puts a run together from its config, and lets Lightning drive the rounds."""

from __future__ import annotations

import copy
import gc
import json
import logging
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rlaif_lab.config import build, fingerprint
from rlaif_lab.console import print_row
from rlaif_lab.evaluation import Evaluation
from rlaif_lab.judges.base import Judge
from rlaif_lab.learners.base import Learner
from rlaif_lab.models.sources import ModelSource, Organism
from rlaif_lab.pairing import Pairing
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.store import RoundStore, defined, write_atomically, writing
from rlaif_lab.tasks.base import ProceduralTask, Split, Task
from rlaif_lab.tracking import Row, Tracker
from rlaif_lab.trainer import TrainerConfig

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.rounds import Rounds

VERSIONED = ("torch", "transformers", "pytorch-lightning", "hydra-core", "wandb", "numpy", "rlaif-lab")


class Loop:
    """One run. Construction builds and checks its parts; ``fit`` loads weights and trains."""

    def __init__(self, cfg: DictConfig, directory: Path) -> None:
        self.cfg, self.directory = cfg, directory
        self.task: Task = build(cfg.task, "task")
        self.policy_source: ModelSource = build(cfg.policy, "policy")
        self.judge: Judge = build(cfg.judge, "judge")
        self.learner: Learner = build(cfg.learner, "learner")
        self.sampling: SamplingConfig = build(cfg.sampler, "sampler")
        self.pairing: Pairing = build(cfg.pairing, "pairing")
        self.trainer: TrainerConfig = build(cfg.trainer, "trainer")
        self.tracker: Tracker = build(cfg.logger, "logger")
        self.evaluation = Evaluation(cfg.evaluation.prompts, cfg.evaluation.samples)
        self.check_together()
        self.store = RoundStore(directory)
        identities = {role: source.identity(self.task) for role, source in self.sources().items()}
        self.store.claim(fingerprint(cfg, identities), cfg.resume)

    def sources(self) -> dict[str, ModelSource]:
        """Every model this run needs, by its role."""
        judges = {f"judge {i}": source for i, source in enumerate(self.judge.sources())}
        return {"policy": self.policy_source, **judges}

    def check_together(self) -> None:
        """What only the combination can get wrong. Raises ValueError."""
        cfg = self.cfg
        if self.sampling.k < self.learner.minimum_k:
            raise ValueError(
                f"sampler.k must be at least {self.learner.minimum_k} for learner {self.learner.name!r}: one response "
                f"has nothing to be compared with; got {self.sampling.k}"
            )
        needs: tuple[tuple[Split, int, int], ...] = (
            ("rounds", cfg.rounds, cfg.prompts_per_round),
            ("evaluation", cfg.rounds + 1, cfg.evaluation.prompts),
        )
        for split, rounds, each in needs:
            if each < 1:
                raise ValueError(f"{split}.prompts must be at least 1; got {each}")
            if rounds * each > self.task.available(split):
                raise ValueError(
                    f"task {self.task.name!r} has {self.task.available(split)} prompts in its {split!r} split, but "
                    f"{rounds} x {each} fresh ones are needed; lower rounds or the prompts per round"
                )
        for source in self.sources().values():
            source.check(self.task)

    # --- the run ----------------------------------------------------------------------------------------------
    def fit(self) -> float:
        """Trains all rounds (or those left, on resume); returns the final true quality."""
        import torch

        torch.set_num_threads(self.cfg.threads)
        gc.freeze()  # the libraries' half a million objects need not be gone through again in every round
        self.build_organisms()
        rounds = self.rounds()
        print(f"policy: {self.policy_source}\njudge:  {self.judge.describe()}", flush=True)
        print(f"learner: {self.learner.name}, reference policy: {self.learner.reference}\n{self.directory}", flush=True)
        config = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(config, dict)
        config = {str(k): v for k, v in config.items()} | {"versions": versions(), "git_commit": git_commit()}
        write_atomically(self.directory / "config.json", json.dumps(config, indent=1).encode())
        history = [(row, rounds.stored_samples(row["round"])) for row in self.store.rows()]
        self.tracker.begin(self.directory, config, self.cfg.experiment_name, self.cfg.arm, history)
        failed = True
        try:
            self.train(rounds)
            failed = False
        finally:
            self.tracker.end(failed)
        with writing(self.directory / "policy"):
            rounds.policy.save(self.directory / "policy")
        return float(self.store.rows()[-1]["quality/sampled"])

    def build_organisms(self) -> None:
        from rlaif_lab.models.cache import build_missing

        organisms = [source.recipe() for source in self.sources().values() if isinstance(source, Organism)]
        if organisms:
            assert isinstance(self.task, ProceduralTask)
            build_missing(self.task, organisms)

    def rounds(self) -> Rounds:
        from rlaif_lab.models.language_model import LanguageModel
        from rlaif_lab.rounds import Rounds

        base = self.policy_source.load(self.task)
        base.network.requires_grad_(False)
        network = copy.deepcopy(base.network).requires_grad_(True).train()
        rounds = Rounds(
            policy=LanguageModel(network, base.tokenizer, "policy"),
            base=base,
            judge=self.judge,
            learner=self.learner,
            task=self.task,
            sampling=self.sampling,
            pairing=self.pairing,
            evaluation=self.evaluation,
            store=self.store,
            seed=self.cfg.seed,
            prompts_per_round=self.cfg.prompts_per_round,
            batch_size=self.trainer.batch_size,
            passes=self.trainer.passes,
        )
        rounds.attach_judge(self.load_judge)
        return rounds

    def load_judge(self, source: ModelSource) -> LanguageModel:
        model = source.load(self.task)
        model.network.requires_grad_(False)
        return model

    def train(self, rounds: Rounds) -> None:
        """One ``fit``, epoch = round."""
        import pytorch_lightning as pl
        from pytorch_lightning.callbacks import ModelCheckpoint

        from rlaif_lab.module import AtomicCheckpoints, RoundEnd, RoundLoader, RoundModule

        quiet_lightning()
        loader = RoundLoader(rounds)
        checkpoints = ModelCheckpoint(
            dirpath=self.directory / "checkpoints",
            filename="round_{epoch:03d}",
            auto_insert_metric_name=False,
            monitor="round",
            mode="max",
            save_top_k=2,
            save_on_train_epoch_end=True,
        )
        trainer = pl.Trainer(
            max_epochs=self.cfg.rounds,
            accelerator=self.trainer.accelerator,
            precision=self.trainer.precision,  # type: ignore[arg-type]
            devices=1,
            accumulate_grad_batches=self.trainer.accumulate,
            gradient_clip_val=self.trainer.clip_norm or None,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            logger=False,
            callbacks=[RoundEnd(loader, self.log_round), checkpoints],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=self.directory,
            plugins=[AtomicCheckpoints()],
        )
        trainer.fit(RoundModule(rounds, self.trainer), loader, ckpt_path=self.last_checkpoint(), weights_only=False)

    def last_checkpoint(self) -> str | None:
        """The newest checkpoint, read once to see that it is whole."""
        found = sorted((self.directory / "checkpoints").glob("round_*.ckpt"), key=lambda p: int(p.stem.split("_")[1]))
        if not found:
            return None
        import torch

        try:
            torch.load(found[-1], map_location="cpu", weights_only=False, mmap=True)
        except Exception as error:  # pickle, zip and torch raise many kinds
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"checkpoint {str(found[-1])!r} is corrupt ({reason}); delete that one file to go on from the round "
                "before, everything else is kept"
            ) from error
        return str(found[-1])

    def log_round(self, row: Row, samples: list[list[Any]]) -> None:
        """metrics.jsonl first: it is the truth, and W&B its mirror."""
        row = defined(row)
        if self.store.append_row(row):
            self.tracker.log(row, samples)
        print_row(row, f"{self.cfg.arm}, seed {self.cfg.seed}", header=row["round"] == 0)


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the clone this code runs from, with a mark if it was changed; None when installed."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def quiet_lightning() -> None:
    """Its advice (more loader workers, a logger, ...) does not fit one fit whose loader generates."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*yielded None.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
