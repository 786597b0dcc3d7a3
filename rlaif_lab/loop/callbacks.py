"""The detector inside Lightning: one step per round, its state in the checkpoint, and the end of the run if wanted."""

from __future__ import annotations

import json
from typing import Any

import pytorch_lightning as pl

from rlaif_lab.plateau.detector import Detector, Evidence, metrics, nothing_yet, step
from rlaif_lab.store.files import write_atomically
from rlaif_lab.store.run_folder import STOPPED
from rlaif_lab.training.module import RoundLoader


class PlateauDetector(pl.Callback):
    """Weighs the evidence after each round. Comes before ``RoundEnd``, which logs ``metrics_of`` the round."""

    def __init__(self, detector: Detector, loader: RoundLoader) -> None:
        self.detector, self.loader = detector, loader
        self.held: list[Evidence] = []  # the last two rounds': the one that is to be logged, and the newest

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.loader.data is not None
        index, rounds = self.loader.data.index + 1, self.loader.rounds
        rounds.evaluate(index)
        changes = rounds.changes_into(index)
        if changes is None or len(changes) == 0:
            return
        newest = step(self.detector, self.held[-1] if self.held else nothing_yet(), [changes], index)
        self.held = [*self.held[-1:], newest]
        if self.detector.stop_on_plateau and "plateaued" in newest.alarms:
            content = {"round": index, "reason": "plateau", "since": newest.since["plateaued"]}
            write_atomically(rounds.store.directory / STOPPED, json.dumps(content).encode())
            trainer.should_stop = True

    def metrics_of(self, round_index: int) -> dict[str, float]:
        """``detector/*`` of this round; nothing where no change was measured."""
        found = [evidence for evidence in self.held if evidence.round_index == round_index]
        return metrics(self.detector, found[0]) if found else {}

    def state_dict(self) -> dict[str, Any]:
        return {"held": [evidence.to_json() for evidence in self.held]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.held = [Evidence.from_json(content) for content in state_dict["held"]]
