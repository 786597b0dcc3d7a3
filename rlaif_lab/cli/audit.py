"""``rlaif-audit judge=... bank=...``: compose -> check -> ask the judge -> table, JSON, page, verdicts."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported; as in rlaif_lab/cli/lab.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.audit.config import FAMILIES, check
from rlaif_lab.cli.command import prepare, sentence
from rlaif_lab.cli.endings import told
from rlaif_lab.cli.through_hydra import through_hydra
from rlaif_lab.config import build
from rlaif_lab.config.secrets import Refused
from rlaif_lab.progress import printable
from rlaif_lab.store.interrupts import Interrupted
from rlaif_lab.store.outcome import shown_path

if TYPE_CHECKING:
    from rlaif_lab.audit.audit import Auditor
    from rlaif_lab.judges.base import Judge
    from rlaif_lab.models.access import JudgeContext
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.tasks.base import Task


def one(cfg: DictConfig) -> float:
    """Audit once, in Hydra's output directory; return the accuracy."""
    check(cfg)
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        return audited(cfg, directory)
    except Interrupted as error:
        # What has been paid for is kept in the folder, and found there again.
        given = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.run.dir=")]
        again = ["rlaif-audit", *given, f"hydra.run.dir={shown_path(directory)}"]
        if HydraConfig.get().mode == RunMode.RUN:
            error.add_note(f"continue with: {shlex.join(again)}")
        raise


def audited(cfg: DictConfig, directory: Path) -> float:
    """Audit once, in a folder; return the accuracy."""
    auditor = auditor_of(cfg, directory)
    from rlaif_lab.audit.write import terminal, write_all
    from rlaif_lab.loop.versions import git_commit, versions

    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    audit = auditor.run()
    described = {str(k): v for k, v in config.items()} | {"versions": versions(), "git_commit": git_commit()}
    write_all(audit, described, directory)
    print(f"{terminal(audit)}\n\n{directory / 'audit.html'}", flush=True)
    return audit.measure("accuracy").value


def auditor_of(cfg: DictConfig, directory: Path) -> Auditor:
    """Build and check the parts; loads the bank's file and no weights."""
    task, policy, judge, bank, engine = (build(cfg[family], family) for family in FAMILIES)
    plan = build(cfg.plan, "plan")
    models = Models(task, policy, cfg.device)
    # Configurations and tokenizers: what is wrong with them is reported before weights load.
    models.check(judge)
    bank.load(task)  # a mistake in it is told before weights load
    import torch

    from rlaif_lab.audit.audit import Auditor

    torch.set_num_threads(cfg.threads)
    # After the cheap checks: this one opens the device.
    check_device(cfg.device)
    # Before the audit, which measures how long verdicts take.
    models.prepare(judge)

    def context(gold: Task | None, seed: int, folder: Path) -> JudgeContext:
        from rlaif_lab.models.access import JudgeContext

        # Outside a run all of the policy's weights are the same.
        return JudgeContext(seed, lambda weights: models.policy(), models.load, gold, folder, engine=engine)

    def other() -> LanguageModel | None:
        """Return the policy, unless it is the judge."""
        # Self-preference is asked of two different models: none where the judge is the policy.
        mine = judge.language_model().weights_hash()
        return models.policy() if models.policy().weights_hash() != mine else None

    return Auditor(
        judge,
        bank,
        task,
        plan=plan,
        seed=cfg.seed,
        context=context,
        other=other,
        directory=directory,
        policy=models.policy,
        engine=engine,
    )


def check_device(name: str) -> None:
    """Raise ValueError for a device that this machine has not got."""
    import torch

    try:
        # An empty tensor is the least that opens a device.
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name} cannot be used here: {str(error).splitlines()[0][:120]}") from None


class Models:
    """Weights, each loaded once. All the policy's weights (live, previous, initial) are the same outside a run. Judges
    compute where the policy lies."""

    def __init__(self, task: Task, policy: ModelSource, device: str) -> None:
        self.task, self.policy_source, self.device = task, policy, device
        self.loaded: dict[str, LanguageModel] = {}

    def check(self, judge: Judge) -> None:
        """Raise ValueError for what cannot judge this task, by configurations and tokenizers alone."""
        sources = judge.sources()
        if judge.writes or sources:  # a language model judges, which will want to know the policy's device
            sources = [*sources, self.policy_source]
        for source in sources:
            source.check(self.task)
        judge.check_tokenizers(
            lambda weights: (self.policy_source if isinstance(weights, str) else weights).load_tokenizer(self.task)
        )

    def prepare(self, judge: Judge) -> None:
        """Pretrain what is missing, side by side, so that none of it is counted as time that a verdict took."""
        if not (judge.writes or judge.sources()):
            return
        from rlaif_lab.models.organism.cache import build_missing
        from rlaif_lab.models.sources import Organism
        from rlaif_lab.tasks.base import ProceduralTask

        organisms = [
            recipe
            for source in (self.policy_source, *judge.sources())
            if isinstance(source, Organism) and (recipe := source.missing_recipe(self.task))
        ]
        if organisms:
            assert isinstance(self.task, ProceduralTask)
            build_missing(self.task, organisms)
        self.policy()

    def policy(self) -> LanguageModel:
        model = self.load(self.policy_source)
        model.network.to(self.device)
        return model

    def load(self, source: ModelSource) -> LanguageModel:
        identity = source.identity(self.task)
        if identity not in self.loaded:
            model = source.load(self.task)
            model.network.requires_grad_(False)
            # By content: a judge that is the policy is loaded once.
            self.loaded[identity] = model
        return self.loaded[identity]


def main() -> None:
    """Run ``rlaif-audit``. A user's mistake ends in one sentence and exit code 2, anything else in a traceback."""
    with told("rlaif-audit"):
        try:
            sys.argv[1:] = prepare("rlaif-audit", sys.argv[1:])
            through_hydra(one, "audit")
        except (ValueError, HydraException, OmegaConfBaseException) as error:
            print(f"rlaif-audit: {sentence(error, 'audit', 'rlaif-audit')}", file=sys.stderr)
            sys.exit(2)
        except Refused as error:
            print(printable(f"rlaif-audit: {error}"), file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()
