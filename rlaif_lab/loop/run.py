"""Puts a run together from its config, and lets Lightning drive the rounds."""

from __future__ import annotations

import gc
import json
import logging
import platform
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rlaif_lab.config import build, fingerprint
from rlaif_lab.export import export_run
from rlaif_lab.feedback.pairing import Pairing
from rlaif_lab.feedback.replay import Replay
from rlaif_lab.judges.base import Judge
from rlaif_lab.learners.base import Learner
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.models.sources import ModelSource, Organism
from rlaif_lab.plateau.detector import Detector, Measure
from rlaif_lab.progress import say
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.store.files import write_atomically, writing
from rlaif_lab.store.outcome import alone, failure, finished_rounds, write_failure, write_finished
from rlaif_lab.store.rows import without_nan
from rlaif_lab.store.run_folder import STOPPED, RoundStore
from rlaif_lab.store.sweep_cache import SharedFiles
from rlaif_lab.tasks.base import ProceduralTask, Split, Task
from rlaif_lab.tracking.alarms import Watch
from rlaif_lab.tracking.base import Row, Tracker
from rlaif_lab.tracking.run_summary import run_result
from rlaif_lab.tracking.terminal import introduce, print_row
from rlaif_lab.training.settings import TrainerConfig

if TYPE_CHECKING:
    from rlaif_lab.audit.bank import PairBank
    from rlaif_lab.audit.pairs import LabelledPair
    from rlaif_lab.feedback.revision import RevisionConfig
    from rlaif_lab.loop.round import Rounds
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.reward.model import RewardModel

VERSIONED = ("torch", "transformers", "pytorch-lightning", "hydra-core", "wandb", "numpy", "rlaif-lab")


class Loop:
    """One run. Construction builds and checks its parts; ``fit`` loads weights and trains.

    shared: a folder for what it has in common with other jobs of its sweep.
    """

    def __init__(self, cfg: DictConfig, directory: Path, shared: Path | None = None) -> None:
        self.cfg, self.directory, self.shared_folder = cfg, directory, shared
        self.label = f"{cfg.arm}, seed {cfg.seed}"
        self.task: Task = build(cfg.task, "task")
        self.policy_source: ModelSource = build(cfg.policy, "policy")
        self.judge: Judge = build(cfg.judge, "judge")
        self.heldout_judge: Judge | None = cfg.heldout_judge and build(cfg.heldout_judge, "heldout_judge")
        self.learner: Learner = build(cfg.learner, "learner")
        self.sampling: SamplingConfig = build(cfg.sampler, "sampler")
        self.pairing: Pairing = build(cfg.pairing, "pairing")
        self.replay: Replay = build(cfg.replay, "replay")
        reward_model: RewardModel = build(cfg.reward_model, "reward_model")
        self.reward_model = reward_model if self.learner.reward == "reward_model" else None
        self.revision: RevisionConfig | None = cfg.revision and build(cfg.revision, "revision")
        self.bank: PairBank | None = cfg.bank and build(cfg.bank, "bank")
        self.trainer: TrainerConfig = build(cfg.trainer, "trainer")
        self.watch: Watch = build(cfg.watch, "watch")
        self.detector: Detector | None = cfg.detector and build(cfg.detector, "detector")
        self.tracker: Tracker = build(cfg.logger, "logger")
        self.evaluation = Evaluation(**cfg.evaluation)
        self.check_together()
        self.store = RoundStore(directory)
        identities = {f"{role} weights": source.identity(self.task) for role, source in self.sources().items()}
        self.store.claim(fingerprint(cfg, identities | {"task content": self.task.identity()}), cfg.resume)

    def sources(self) -> dict[str, ModelSource]:
        """Every model this run needs, by its role."""
        found = {"policy": self.policy_source}
        for role, part in (
            ("judge", self.judge),
            ("heldout judge", self.heldout_judge),
            ("reward model", self.reward_model),
        ):
            for i, source in enumerate(part.sources() if part is not None else []):
                found[f"{role} {i}"] = source
        return found

    def check_together(self) -> None:
        """What only the combination can get wrong. Raises ValueError."""
        cfg = self.cfg
        if self.sampling.k < self.learner.minimum_k:
            raise ValueError(
                f"sampler.k must be at least {self.learner.minimum_k} for learner {self.learner.name!r}: one response "
                f"has nothing to be compared with; got {self.sampling.k}"
            )
        for role, judge in (("judge", self.judge), ("heldout_judge", self.heldout_judge)):
            if judge is not None and judge.sees_gold and not self.task.has_gold:
                raise ValueError(
                    f"{role} {judge.name!r} needs gold, and task {self.task.name!r} has none; use another judge"
                )
        self.check_learner()
        if cfg.lag and cfg.sync_every is not None:
            raise ValueError(f"lag={cfg.lag} and sync_every={cfg.sync_every} both say whose policy samples: set one")
        needs: tuple[tuple[Split, int, int], ...] = (
            ("rounds", cfg.rounds, cfg.prompts_per_round),
            ("evaluation", cfg.rounds + 1, cfg.evaluation.prompts),
        )
        for split, rounds, each in needs:
            if each < 1:
                raise ValueError(f"{split}.prompts must be at least 1; got {each}")
            spare = self.spare_prompts() if split == "rounds" else 0
            if rounds * each + spare > self.task.available(split):
                needed = f"{rounds} x {each}" + (f" and {spare} for the judge" if spare else "")
                raise ValueError(
                    f"task {self.task.name!r} has {self.task.available(split)} prompts in its {split!r} split, but "
                    f"{needed} fresh ones are needed; lower rounds or the prompts per round"
                )
        self.check_detector()
        for source in self.sources().values():
            source.check(self.task)
        for judge in (self.judge, self.heldout_judge):
            if check := getattr(judge, "check_tokenizers", None):  # a judge that is asked in words
                check(lambda w: (self.policy_source if isinstance(w, str) else w).load_tokenizer(self.task))

    def check_detector(self) -> None:
        """A detector that could not detect anything is refused where the run depends on it. Raises ValueError."""
        detector = self.detector
        if detector is None:
            return
        if self.cfg.rounds > detector.horizon:
            raise ValueError(
                f"detector.horizon={detector.horizon} rounds is what the detector's alpha is good for, but rounds="
                f"{self.cfg.rounds}; set detector.horizon to at least that"
            )
        if detector.measure == "heldout_judge" and self.heldout_judge is None:
            raise ValueError("detector.measure=heldout_judge needs a held-out judge, e.g. judge@heldout_judge=stronger")
        if detector.stop_on_plateau and detector.measure == "gold" and not self.task.has_gold:
            raise ValueError(
                f"detector.stop_on_plateau needs gold, and task {self.task.name!r} has none; use "
                "detector.measure=heldout_judge with a held-out judge"
            )

    def spare_prompts(self) -> int:
        """How many prompts a judge needs for itself."""
        return max(judge.spare_prompts for judge in (self.judge, self.heldout_judge) if judge is not None)

    def check_learner(self) -> None:
        """What the learner needs of the other parts. Raises ValueError."""
        learner, name = self.learner, self.learner.name
        if learner.reward == "score" and not self.judge.gives_scores:
            raise ValueError(
                f"learner.reward=score needs a judge that scores single responses; judge {self.judge.name!r} compares "
                "two. Use learner.reward=win_rate"
            )
        if learner.needs_demonstrations and not self.judge.writes:
            raise ValueError(
                f"learner {name!r} learns from the judge's own answers, but judge {self.judge.name!r} has none"
            )
        revised_pairs = learner.needs_pairs and self.pairing.source == "revisions"
        if (learner.needs_revisions or revised_pairs) and self.revision is None:
            raise ValueError(f"learner {name!r} learns from revisions: add revision=constitutional")
        if learner.restart == "base" and self.cfg.sync_every is not None:
            raise ValueError(
                f"learner {name!r} starts each round from the first weights (restart=base), so it cannot sample again "
                "within a round; got sync_every="
                f"{self.cfg.sync_every}"
            )

    # --- the run ----------------------------------------------------------------------------------------------
    def run(self) -> float:
        """Trains what is left to train, if anything is; returns the final true quality. How it ended is kept."""
        if self.finished():
            print(f"{self.directory}: finished before, {self.result()}", flush=True)
            return self.objective()
        with alone(self.directory):
            try:
                return self.fit()
            except Exception as error:
                write_failure(self.directory, failure(error))
                raise

    def finished(self) -> bool:
        """Whether the folder holds all of this run: nothing needs to be loaded then."""
        rounds = finished_rounds(self.directory)
        return rounds is not None and (rounds >= self.cfg.rounds or (self.directory / STOPPED).exists())

    def objective(self) -> float:
        return objective(self.store.rows()[-1])

    def result(self) -> str:
        """The objective at the end and at the start, in words."""
        rows = self.store.rows()
        return f"{objective_name(rows[-1])} {objective(rows[-1]):.3f} ({objective(rows[0]):.3f} in round 0)"

    def fit(self) -> float:
        """Trains all rounds (or those left, on resume); returns the final true quality."""
        import torch

        torch.set_num_threads(self.cfg.threads)
        gc.freeze()  # the libraries' half a million objects need not be gone through again in every round
        self.build_organisms()
        rounds = self.rounds()
        reference = self.learner.reference if self.learner.needs_reference else "none"
        learner = f"{self.learner.name}, reference policy: {reference}"
        parts = {"policy": str(self.policy_source), "judge": self.judge.describe(), "learner": learner}
        introduce(self.label, parts, self.directory)
        config = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(config, dict)
        config = {str(k): v for k, v in config.items()} | {"versions": versions(), "git_commit": git_commit()}
        write_atomically(self.directory / "config.json", json.dumps(config, indent=1).encode())
        history = [(row, rounds.stored_samples(row["round"])) for row in self.store.rows()]
        self.tracker.begin(self.directory, config, self.cfg.experiment_name, self.cfg.arm, history)
        result = None
        try:
            self.train(rounds)
            result = run_result(self.directory, self.task)
        finally:
            self.tracker.end(result)  # None: it failed
        with writing(self.directory / "policy"):
            rounds.policy.save(self.directory / "policy")
        if self.cfg.export:
            export_run(self.directory)
        write_finished(self.directory, self.store.rows()[-1]["round"])
        return self.objective()

    def build_organisms(self) -> None:
        from rlaif_lab.models.organism.cache import build_missing

        organisms = [
            recipe
            for source in self.sources().values()
            if isinstance(source, Organism) and (recipe := source.missing_recipe(self.task))
        ]
        if organisms:
            assert isinstance(self.task, ProceduralTask)
            build_missing(self.task, organisms)

    def rounds(self) -> Rounds:
        from rlaif_lab.loop.gate import Gate
        from rlaif_lab.loop.round import Rounds
        from rlaif_lab.training.batches import Batching

        policy, base = self.policy_source.load_trainable(self.task, self.cfg.seed)
        self.base = base
        rounds = Rounds(
            policy=policy,
            base=base,
            judge=self.judge,
            heldout_judge=self.heldout_judge,
            learner=self.learner,
            task=self.task,
            sampling=self.sampling,
            pairing=self.pairing,
            evaluation=self.evaluation,
            store=self.store,
            seed=self.cfg.seed,
            prompts_per_round=self.cfg.prompts_per_round,
            batching=Batching(self.trainer.batch_size, self.trainer.accumulate, self.trainer.passes),
            replay=self.replay,
            reward_model=self.reward_model,
            revision=self.revision,
            bank=self.labelled_pairs(),
            gate=Gate(**self.cfg.gate),
            sync_every=self.cfg.sync_every,
            lag=self.cfg.lag,
            changes=self.measured_changes(),
            shared=SharedFiles(self.shared_folder, self.of_round_0()) if self.shared_folder else None,
        )
        rounds.attach_judges(self.load_judge)
        return rounds

    def of_round_0(self) -> str:
        """All that decides what the untrained policy writes, to the last bit, but for prompts and sampler."""
        import torch

        cfg = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(cfg, dict)
        keys = ("policy", "task", "seed", "threads")
        weights, device = self.policy_source.identity(self.task), (self.trainer.accelerator, self.trainer.precision)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        machine = (platform.machine(), torch.backends.cpu.get_cpu_capability(), gpu)
        return repr(([cfg[key] for key in keys], weights, self.task.identity(), device, machine, versions()))

    def measured_changes(self) -> Measure | None:
        """By what the detector measures the change of a round; None where there is no detector, or nothing to measure
        it by."""
        if self.detector is None or (self.detector.measure == "gold" and not self.task.has_gold):
            return None
        return self.detector.measure

    def labelled_pairs(self) -> list[LabelledPair]:
        """Of the bank; none where it is made by demonstrators that the task has not."""
        if self.bank is None or (self.bank.graded and not isinstance(self.task, ProceduralTask)):
            return []
        return self.bank.load(self.task)

    def load_judge(self, source: ModelSource) -> LanguageModel:
        if source.identity(self.task) == self.policy_source.identity(self.task):
            return self.base  # one copy of the weights for what is one model
        model = source.load(self.task)
        model.network.requires_grad_(False)
        return model

    def train(self, rounds: Rounds) -> None:
        """One ``fit``, epoch = round."""
        import pytorch_lightning as pl
        from pytorch_lightning.callbacks import ModelCheckpoint

        from rlaif_lab.loop.callbacks import PlateauDetector
        from rlaif_lab.training.module import AtomicCheckpoints, RoundEnd, RoundLoader, RoundModule

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
        detection = PlateauDetector(self.detector, loader) if self.detector else None
        detected = detection.metrics_of if detection else lambda index: {}
        callbacks: list[pl.Callback] = [RoundEnd(loader, self.log_round, detected), checkpoints]
        trainer = pl.Trainer(
            max_epochs=min(self.cfg.rounds, self.stopped_at() or self.cfg.rounds),
            accelerator=self.trainer.accelerator,
            precision=self.trainer.precision,  # type: ignore[arg-type]
            devices=1,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            logger=False,
            callbacks=[detection, *callbacks] if detection else callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=self.directory,
            plugins=[AtomicCheckpoints()],
        )
        trainer.fit(RoundModule(rounds, self.trainer), loader, ckpt_path=self.last_checkpoint(), weights_only=False)

    def stopped_at(self) -> int | None:
        """The round at which this run ended early, if it did: resumed, it goes no further."""
        file = self.directory / STOPPED
        return int(json.loads(file.read_bytes())["round"]) if file.exists() else None

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
        row = without_nan(row)
        first = next(iter(self.store.rows()), row)
        alarms = self.watch.alarms(row, first)
        row |= {f"alarm/{name}": float(name in alarms) for name in self.watch.names()}
        for name, sentence in alarms.items():
            say(self.label, f"alarm ({name}), round {row['round']}: {sentence}")
        if said := [name for name in ("plateau", "improving", "degrading") if row.get(f"detector/{name}_alarm")]:
            say(self.label, f"detector, round {row['round']}: {', '.join(said)}")
        if self.store.append_row(row):
            self.tracker.log(row, samples)
        print_row(row, self.label, header=row["round"] == 0)


OBJECTIVES = {
    "quality/sampled": "quality",
    "heldout_judge/win_rate_vs_round_0": "held-out win rate",
    "judge/win_rate_vs_round_0": "win rate",
}
"""The first that a run has is what sweepers optimise: true quality; without gold, what the judges think."""


def objective(row: Row) -> float:
    """Of a run's last row; nan where it has none of them."""
    return next((float(row[name]) for name in OBJECTIVES if row.get(name) is not None), float("nan"))


def objective_name(row: Row) -> str:
    return next((title for name, title in OBJECTIVES.items() if row.get(name) is not None), "no objective")


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
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
