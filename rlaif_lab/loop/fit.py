"""Training: the one Trainer of Lightning's that a run uses, with one ``fit``, epoch = round."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from rlaif_lab import ranks
from rlaif_lab.loop.callbacks import LogRow, PlateauDetector, RoundEnd
from rlaif_lab.loop.data import RoundLoader
from rlaif_lab.loop.round import Round
from rlaif_lab.plateau.detector import Detector
from rlaif_lab.store.checkpoints import check_logged, newest_checkpoint
from rlaif_lab.store.files import read_json_file
from rlaif_lab.store.run_folder import STOPPED
from rlaif_lab.training.checkpoints import AtomicCheckpoints
from rlaif_lab.training.devices import lightning_arguments
from rlaif_lab.training.module import RoundModule
from rlaif_lab.training.settings import TrainerConfig


@dataclass(frozen=True)
class Hooks:
    """What goes on around training. log_row: takes each round's row. own: callbacks of the user's."""

    log_row: LogRow
    detector: Detector | None = None
    own: Sequence[pl.Callback] = ()


def fit(round_: Round, settings: TrainerConfig, hooks: Hooks, *, rounds: int) -> None:
    """Train what is left of ``rounds`` rounds, going on from the newest checkpoint in the run's folder."""
    quiet_lightning()
    directory, parts = round_.services.store.directory, round_.parts
    # One look at the folder, by one rank: files may change while others would still be looking.
    newest, stopped = ranks.on_first(lambda: going_on(round_))
    loader = RoundLoader(round_)
    where = lightning_arguments(settings)
    trainer = pl.Trainer(
        # A run that stopped early is over at that round, even if it is resumed with more rounds.
        max_epochs=min(rounds, stopped or rounds),
        accelerator=settings.accelerator,
        precision=settings.precision,  # type: ignore[arg-type]
        # An epoch is a round, and every round samples its own data.
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=callbacks(loader, hooks, directory),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=directory,
        **where | {"plugins": [AtomicCheckpoints(), *where["plugins"]]},
        **settings.args,
    )
    module = RoundModule(
        parts.policy,
        parts.critic,
        parts.learner,
        settings=settings,
        seed=round_.plan.seed,
        restart=round_.services.weights.restart,
    )
    # Only tensors and plain values are read from a checkpoint: a stranger's runs no code.
    trainer.fit(module, loader, ckpt_path=newest, weights_only=True)


def going_on(round_: Round) -> tuple[Path | None, int | None]:
    """Return the newest checkpoint, and the round at which the run ended early, if there are any."""
    store = round_.services.store
    newest = newest_checkpoint(store.directory / "checkpoints")
    # Rows are written before checkpoints, so a checkpoint without its row means that somebody lost a file.
    check_logged(newest, [row["round"] for row in store.rows()])
    return newest, stopped_at(store.directory)


def callbacks(loader: RoundLoader, hooks: Hooks, directory: Path) -> list[pl.Callback]:
    """Return the callbacks, in any order: of the lab's, ``RoundEnd`` has the only hook at the end of a round, and
    Lightning puts checkpoints last by itself."""
    detection = PlateauDetector(hooks.detector) if hooks.detector else None
    checkpoints = ModelCheckpoint(
        dirpath=directory / "checkpoints",
        filename="round_{epoch:03d}",
        auto_insert_metric_name=False,
        # `RoundEnd` logs it: the newest checkpoints are those of the highest rounds.
        monitor="round",
        mode="max",
        save_top_k=2,
        save_on_train_epoch_end=True,
    )
    found: list[pl.Callback] = [RoundEnd(loader, hooks.log_row, detection), checkpoints, *hooks.own]
    # A callback for its state alone, which is saved with the checkpoint.
    return [*found, detection] if detection else found


def stopped_at(directory: Path) -> int | None:
    """Return the round at which this run ended early, if it did: resumed, it goes no further."""
    file = directory / STOPPED
    if not file.exists():
        return None
    index = read_json_file(file, "delete it to have the run go on to its last round").get("round")
    if not isinstance(index, int) or isinstance(index, bool) or index < 1:
        raise ValueError(
            f"{str(file)!r} is corrupt (no round in it); delete it to have the run go on to its last round"
        )
    return index


def quiet_lightning() -> None:
    """Silence Lightning's advice (more loader workers, a logger, ...), which does not fit one fit whose loader
    generates."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # every rank has the same metrics
