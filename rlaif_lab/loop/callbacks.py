"""What happens around a round's training: the evidence for a plateau, and the one hook that closes a round.

``RoundEnd`` calls all that has to happen at the end of a round, in one visible order, so that the order of Trainer's
list of callbacks does not matter.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from rlaif_lab import ranks
from rlaif_lab.loop.data import RoundLoader
from rlaif_lab.loop.evaluation import evaluation_prompts
from rlaif_lab.loop.stages import bar
from rlaif_lab.metrics.round import length_amplification
from rlaif_lab.metrics.samples import SampleRow, sample_rows
from rlaif_lab.plateau.detector import FRESH, Detector, Evidence, metrics, nothing_yet, step
from rlaif_lab.plateau.trend import Trend, trend, trend_metrics
from rlaif_lab.progress import say
from rlaif_lab.records import Floats, Metrics
from rlaif_lab.store.files import write_atomically
from rlaif_lab.store.run_folder import STOPPED
from rlaif_lab.training.module import RoundModule

LogRow = Callable[[Metrics, list[SampleRow]], None]


class PlateauDetector(pl.Callback):
    """Weighs the evidence after each round. It is a callback for its state, which checkpoints keep."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.held: list[Evidence] = []  # the last two rounds': the one that is to be logged, and the newest
        self.gains: dict[int, tuple[float, float]] = {}  # round -> mean change of its prompts, and its standard error

    def weigh(self, index: int, changes: Floats | None) -> Evidence | None:
        """Add what the training before round ``index`` changed, per prompt. Return the evidence by now, None where
        nothing was measured."""
        if changes is None or len(changes) == 0:
            return None
        # One changed prompt has a mean but no spread: nan, which the trend takes for "not known", not for "no noise".
        spread = float(changes.std(ddof=1)) if len(changes) > 1 else math.nan
        self.gains[index] = float(changes.mean()), spread / math.sqrt(len(changes))
        # Evidence is a running product: each round multiplies what the one before left, and older changes are not
        # needed again.
        newest = step(self.detector, self.held[-1] if self.held else nothing_yet(), [changes], index)
        self.held = [*self.held[-1:], newest]
        return newest

    def trend(self, index: int) -> Trend:
        """Return what the trend says of the rounds up to this one."""
        # Changes lead into rounds 1, 2, ...; one that was not measured is nan and not left out, so that position stays
        # round.
        known = [self.gains.get(i, (math.nan, math.nan)) for i in range(1, index + 1)]
        found, stderr = (np.array([[pair[side] for pair in known]]) for side in (0, 1))
        return trend(found, self.detector, stderr=stderr)

    def ends_the_run(self, index: int) -> int | None:
        """Return the round since which the loop has stopped, if the trend says so now and that is to end the run."""
        if not self.detector.stop_on_plateau:
            return None
        found = self.trend(index)
        # The state may rest on an older alarm: a run ends in the round that raises one, not in a later one.
        stopped = found.state == "plateaued" and index in found.processes["plateaued"].alarms
        return found.since if stopped else None

    def metrics_of(self, round_index: int) -> Metrics:
        """Return ``detector/*`` and ``trend/*`` of this round; nothing where no change was measured."""
        # Round i is logged after its training, when the evidence of round i + 1 has been weighed already.
        found = [evidence for evidence in self.held if evidence.round_index == round_index]
        return metrics(self.detector, found[0]) | trend_metrics(self.trend(round_index)) if found else {}

    def state_dict(self) -> dict[str, Any]:
        gains = [[index, mean, stderr] for index, (mean, stderr) in self.gains.items()]
        return {"held": [evidence.to_json() for evidence in self.held], "gains": gains}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.held = [Evidence.from_json(content) for content in state_dict["held"]]
        # Checkpoints from before there was a trend hold no gains: it then begins where the run goes on.
        self.gains = {int(index): (mean, stderr) for index, mean, stderr in state_dict.get("gains", [])}


class RoundEnd(pl.Callback):
    """Closes a round: evaluates the policy it made, weighs the evidence, and hands the round's row to ``log_row``."""

    def __init__(self, loader: RoundLoader, log_row: LogRow, detection: PlateauDetector | None = None) -> None:
        self.loader, self.log_row, self.detection = loader, log_row, detection
        self.asked: set[str] = set()  # texts of evaluation prompts
        self.asked_until = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.loader.data is not None
        self.bar = bar(self.loader.data.index, "training", len(self.loader.data.ready))
        self.training_started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.bar.update(1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RoundModule) and self.loader.data is not None
        data, round_ = self.loader.data, self.loader.round
        training = time.perf_counter() - self.training_started
        self.bar.close()
        # Before anything is measured or written: a round that left weights of nan gets neither a row nor a checkpoint,
        # so that a resumed run goes on from the last good one.
        pl_module.check_round(data.index)
        # Kept in a file, where `before` of the next round finds it: every policy is evaluated once.
        after, changes = round_.after(data.index)
        # Before the row, since this may make the round the last one, which gets a further row.
        self.weigh(trainer, data.index + 1, changes)
        trained = pl_module.take_statistics()
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])

        def written() -> Metrics:
            metrics = round_.row(data.before, data.segments)
            # The gain that a judge can pass on is what best-of-two picks; what training did not realise of it is the
            # loss.
            gained = after["quality/sampled"] - metrics["quality/sampled"]
            return {
                "round": data.index,
                **metrics,
                **trained,
                "train/learning_rate": rate,
                **self.detected(data.index),
                "gap/update_loss_eps": metrics["gap/best_of_2"] - gained,
                "audit/length_amplification": length_amplification(metrics),
                "time/training_s": training,
                "time/round_s": time.perf_counter() - self.loader.started,
            }

        row = ranks.on_first(written)
        # Before the checkpoint, which holds the learner's state; on every rank from the same row, so that their states
        # agree.
        round_.parts.learner.observe(row)
        shown = data.segments[0].feedback
        self.keep(row, sample_rows(data.index, shown.generations, shown.prob_beats, round_.parts.task))
        # The last policy is evaluated but not trained: a shorter row, which `append_row` replaces by a whole one if the
        # run is extended.
        if data.index + 1 == trainer.max_epochs or trainer.should_stop:
            last = {
                "round": data.index + 1,
                **after,
                **round_.coverage(data.index + 1),
                **round_.by_people(data.index + 1, last=True),
                **ranks.on_first(lambda: self.detected(data.index + 1)),
            }
            self.keep(last | {"audit/length_amplification": length_amplification(after)}, [])
        # What Lightning sees: ModelCheckpoint keeps the checkpoints with the largest "round".
        finite = {k: v for k, v in after.items() if not math.isnan(v)}
        pl_module.log_dict({"round": float(data.index), **finite}, batch_size=1)

    def keep(self, row: Metrics, samples: list[SampleRow]) -> None:
        """Hand on a row: rank 0 alone has a table, a tracker and a folder to write to."""
        if ranks.first():
            with ranks.by_itself():
                self.log_row(row, samples)

    def weigh(self, trainer: pl.Trainer, index: int, changes: Floats | None) -> None:
        """Tell the detector what training changed; the run ends, and its folder says why, where it has seen enough."""
        if self.detection is None:
            return
        if self.detection.weigh(index, changes) is None:
            return
        since = self.detection.ends_the_run(index)
        # Alarms keep their alpha on fresh prompts only. This one is logged all the same.
        if since is not None and self.repeated(index) > FRESH:
            say(
                "",
                f"round {index}: the trend says plateau, but {self.repeated(index):.0%} of the evaluation prompts were "
                "asked before, so that alpha is void, and the run goes on",
            )
            return
        # All ranks hold the same evidence, and so stop after the same round; the file is rank 0's to write.
        if since is not None:
            content = {"round": index, "reason": "plateau", "since": since}
            folder: Path = self.loader.round.services.store.directory
            # Before the checkpoint: killed in between, the run trains this round once more and still ends here.
            if ranks.first():
                write_atomically(folder / STOPPED, json.dumps(content).encode())
            trainer.should_stop = True

    def detected(self, index: int) -> Metrics:
        if self.detection is None:
            return {}
        found = self.detection.metrics_of(index)
        return found | {"detector/repeated_prompts": self.repeated(index)} if found else {}

    def repeated(self, index: int) -> float:
        """Return the share of this round's evaluation prompts whose text was asked before. The e-detector's bound holds
        for fresh prompts only."""
        # Drawn again instead of kept, so that a resumed run knows what its earlier rounds asked.
        round_ = self.loader.round
        for earlier in range(self.asked_until, index):
            self.asked |= {str(p.text) for p in evaluation_prompts(earlier, round_.parts, round_.plan)}
        self.asked_until = max(self.asked_until, index)
        texts = [str(prompt.text) for prompt in evaluation_prompts(index, round_.parts, round_.plan)]
        return sum(text in self.asked for text in texts) / len(texts)
