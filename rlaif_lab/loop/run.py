"""One run: a config becomes parts, they are checked together, Lightning trains the rounds, the folder is closed."""

from __future__ import annotations

import copy
import gc
import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, read_write

from rlaif_lab import ranks
from rlaif_lab.config import fingerprint
from rlaif_lab.export import export_run
from rlaif_lab.loop.checks import check_together
from rlaif_lab.loop.parts import build_organisms, choose, make_round, organism_weights
from rlaif_lab.loop.versions import git_commit, resolved, untrained_policy_identity, versions
from rlaif_lab.metrics.labellers import labellers
from rlaif_lab.progress import LOG, Terminal, say
from rlaif_lab.store.files import write_atomically, writing
from rlaif_lab.store.outcome import exclusive_access, failure, finished_rounds, write_failure, write_finished
from rlaif_lab.store.run_folder import STOPPED, RoundStore
from rlaif_lab.store.sweep_cache import SweepCache
from rlaif_lab.tracking.log import RoundLog
from rlaif_lab.tracking.objective import objective, objective_name
from rlaif_lab.tracking.run_summary import RunResult, run_result
from rlaif_lab.tracking.terminal import NO_VERDICT_WITHOUT_GOLD, close, introduce

if TYPE_CHECKING:
    from rlaif_lab.loop.round import Round


class Run:
    """One run. Construction builds and checks its parts; ``fit`` loads weights and trains.

    shared: a folder for what it has in common with other jobs of its sweep.
    """

    def __init__(self, cfg: DictConfig, directory: Path, shared: Path | None = None) -> None:
        cfg = as_begun(cfg, directory)
        self.cfg, self.directory, self.shared_folder = cfg, directory, shared
        self.label = f"{cfg.arm}, seed {cfg.seed}"
        self.introduced = ""
        # Everything that can be refused is refused here, before weights load.
        self.chosen = choose(cfg)
        check_together(cfg, self.chosen)
        self.store = RoundStore(directory)
        # Only once the config has passed: a folder is tied to a config for good.
        ranks.on_first(self.claim)

    def claim(self) -> None:
        """Tie the folder to this config."""
        task = self.chosen.task
        identities = {f"{role} weights": source.identity(task) for role, source in self.chosen.sources().items()}
        identities |= {"task content": task.identity(), "engine determinism": self.chosen.engine.determinism}
        self.store.claim(fingerprint(self.cfg, identities), self.cfg.resume)

    def run(self) -> float:
        """Train what is left to train, if anything is; return the final true quality. How it ended is kept."""
        if ranks.on_first(self.finished):
            print(f"{self.directory}: finished before, {self.result()}", flush=True)
            return self.objective()
        # The lock is held as long as anything is written, the failure included.
        with exclusive_access(self.directory) if ranks.first() else nullcontext():
            try:
                return self.fit()
            except BaseException as error:  # signals too
                if ranks.first():
                    write_failure(self.directory, failure(error))
                raise

    def finished(self) -> bool:
        """Tell whether the folder holds all of this run: nothing needs to be loaded then."""
        rounds = finished_rounds(self.directory)
        return rounds is not None and (rounds >= self.cfg.rounds or (self.directory / STOPPED).exists())

    def objective(self) -> float:
        return objective(self.store.rows()[-1])

    def result(self) -> str:
        """Return the objective at the end and at the start, in words."""
        rows = self.store.rows()
        return f"{objective_name(rows[-1])} {objective(rows[-1]):.3f} ({objective(rows[0]):.3f} in round 0)"

    def round(self) -> Round:
        """Load the weights, and return what plays the rounds."""
        chosen, cache = self.chosen, None
        if self.shared_folder:
            identity = untrained_policy_identity(self.cfg, chosen.policy, chosen.task, chosen.trainer)
            cache = SweepCache(self.shared_folder, identity)
        return make_round(self.cfg, chosen, self.store, cache)

    def fit(self) -> float:
        """Train all rounds (or those left, on resume); return the final true quality.

        On several devices of this machine in a process for each, unless these have been started from outside.
        """
        from rlaif_lab.loop.launch import in_ranks

        trainer = self.chosen.trainer
        if trainer.devices > 1 and ranks.world() == 1:
            in_ranks(self.train, trainer)
        else:
            self.train()
        return self.objective()

    def train(self) -> None:
        """Be one rank of the run: train all rounds, or those left. Rank 0 alone writes, prints and logs."""
        import torch

        from rlaif_lab.loop.fit import Hooks, fit

        first = ranks.first()
        Terminal.run, Terminal.log = self.label, self.directory / LOG if first else None
        # Part of a run's identity: sums in float32 depend on how many threads share them.
        torch.set_num_threads(self.cfg.threads)
        gc.freeze()  # the libraries' half a million objects need not be gone through again in every round
        chosen, tracker = self.chosen, self.chosen.tracker
        # Before anything that takes minutes: organisms are pretrained, weights are loaded, a bank is answered.
        ranks.on_first(self.introduce)
        # On one rank, before the others load: an organism is pretrained once.
        ranks.on_first(lambda: build_organisms(chosen))
        round_ = self.round()
        # Once weights are loaded: what cannot start leaves no config.json behind, and no run at a tracker.
        ranks.on_first(lambda: self.begin(round_))
        result = None
        try:
            log_row = RoundLog(self.store, tracker, chosen.watch, self.label)
            hooks = Hooks(log_row, chosen.detector, chosen.callbacks)
            fit(round_, chosen.trainer, hooks, rounds=self.cfg.rounds)
            if first:
                self.check_trained()
                result = run_result(self.directory, chosen.task)
        finally:
            chosen.engine.close()
            if first:
                tracker.end(result)  # None: it failed
        # The policy and `finished.json` come last: a run that is killed before is not whole, and `rlaif-resume` does
        # what is left.
        if result is not None:
            self.close(round_, result)

    def begin(self, round_: Round) -> None:
        """Write down what is about to run."""
        judge = self.chosen.judge.describe()
        # What a judge reads may be known only once it has been attached: a server is asked what it can give.
        if judge != self.introduced:
            say(self.label, f"judge:   {judge}")
        config = resolved(self.cfg) | {"versions": versions(), "git_commit": git_commit()}
        config |= {"weights": organism_weights(self.chosen), "labellers": labellers(config)}
        write_atomically(self.directory / "config.json", json.dumps(config, indent=1).encode())
        # For a tracker that has missed rows, or never had any: it receives everything that metrics.jsonl holds.
        history = [(row, round_.stored_samples(row["round"])) for row in self.store.rows()]
        self.chosen.tracker.begin(self.directory, config, self.cfg.experiment_name, self.cfg.arm, history)

    def close(self, round_: Round, result: RunResult) -> None:
        """Keep the policy, and say that the run is whole."""
        with writing(self.directory / "policy"):
            round_.parts.policy.save(self.directory / "policy")
        if self.cfg.export:
            export_run(self.directory)
        # Last of all files: whoever finds it finds everything else.
        write_finished(self.directory, self.store.rows()[-1]["round"], result.values)
        close(self.label, result.values, self.directory)

    def check_trained(self) -> None:
        """Raise ValueError where no round had an example for a learner that trains: such a run is not finished."""
        # Rows of a policy that was only evaluated have no such metric.
        rounds = [row for row in self.store.rows() if "pairs/examples" in row]
        if rounds and self.chosen.learner.needs and not any(row["pairs/examples"] for row in rounds):
            raise ValueError(
                "no example was left to train on in any round: responses were equal, or tied, or got no verdict; look "
                "at the judgements, raise sampler.temperature or sampler.k, or take another judge"
            )

    def introduce(self) -> None:
        """Say on the terminal what is about to run."""
        learner = self.chosen.learner
        self.introduced = self.chosen.judge.describe()
        reference = learner.reference if learner.needs_reference else "none"
        parts = {
            "policy": str(self.chosen.policy),
            "judge": self.introduced,
            "learner": f"{learner.name}, reference policy: {reference}",
        }
        who = labellers(resolved(self.cfg))
        if "people" in who or "set_people" in who:
            parts["people"] = " and ".join(dict.fromkeys(who[role] for role in ("people", "set_people") if role in who))
        introduce(self.label, parts, self.directory)
        if not self.chosen.task.has_gold and self.chosen.heldout_judge is None:
            say(self.label, NO_VERDICT_WITHOUT_GOLD)


def as_begun(cfg: DictConfig, directory: Path) -> DictConfig:
    """Return the config, with everything measured on all prompts where the folder holds a run that was begun before
    there was ``evaluation.measured``: a preset that sets it now may not change such a run."""
    try:
        held = json.loads((directory / "run.json").read_text())
    except (OSError, ValueError):  # there is none yet, or it is damaged, which is told when it is claimed
        return cfg
    if not isinstance(held, dict) or "evaluation.measured" in held:
        return cfg
    cfg = copy.deepcopy(cfg)
    with read_write(cfg):
        cfg.evaluation.measured = None
    return cfg
