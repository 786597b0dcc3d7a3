"""Configuration: the typed core, where conf/ lies, and checks that run before any weights load."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf


@dataclass
class EvaluationSize:
    prompts: int = 512
    samples: int = 4
    final_samples: int = 64
    final_prompts: int = 64


@dataclass
class GateSettings:
    force: bool = False
    confidence: float = 0.95


@dataclass
class RunConfig:
    """The closed core of a run. The open families (task, judge, learner, ...) carry a ``_target_`` each."""

    task: Any = None
    policy: Any = None
    judge: Any = None
    heldout_judge: Any = None
    learner: Any = None
    sampler: Any = None
    engine: Any = None
    pairing: Any = None
    replay: Any = None
    reward_model: Any = None
    revision: Any = None
    bank: Any = None
    metrics: Any = None
    watch: Any = None
    detector: Any = None
    trainer: Any = None
    logger: Any = None
    callbacks: Any = None
    experiment_name: str = "single"
    arm: str = "arm"
    seed: int = 0
    block: int = 0
    rounds: int = 10
    prompts_per_round: int = 1024
    evaluation: EvaluationSize = field(default_factory=EvaluationSize)
    sync_every: int | None = None
    lag: int = 0
    gate: GateSettings = field(default_factory=GateSettings)
    export: bool = True
    resume: bool = False
    threads: int = 1


ConfigStore.instance().store(name="schema", node=RunConfig)  # what `schema` in conf/config.yaml stands for

FAMILIES = (
    "task",
    "policy",
    "judge",
    "heldout_judge",
    "learner",
    "sampler",
    "engine",
    "pairing",
    "replay",
    "reward_model",
    "revision",
    "bank",
    "trainer",
    "watch",
    "detector",
    "logger",
)
OPTIONAL = ("heldout_judge", "revision", "bank", "detector")
NOT_IN_FINGERPRINT = (
    "logger",
    "metrics",
    "resume",
    "export",
    "threads",
    "experiment_name",
    "arm",
    "rounds",
    "gate",
    "watch",
)
"""Keys that may differ between a run and its resumption: they do not change a number. More rounds only extend it."""


def config_dir() -> str:
    """The conf/ folder: inside the installed package, else beside it in a clone."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise ValueError(f"no conf/config.yaml in {package} or {package.parent}: the installation is incomplete")


def job_folder(overrides: str, longest: int = 200) -> str:
    """The name of a sweep's job, which is the same whenever its overrides are: they themselves, or, where they are
    longer than a file system takes, their beginning and a hash of them all."""
    if len(overrides) <= longest:
        return overrides
    return f"{overrides[: longest - 13]}-{hashlib.sha256(overrides.encode()).hexdigest()[:12]}"


def policy_seed(block: int) -> int:
    """Return the seed that a block's policy organism is pretrained from; block 0 has that of a run by itself."""
    return 2 * block


def judge_seed(block: int) -> int:
    """Return the seed that a block's judge organisms are pretrained from: never a policy's, of no block."""
    return 2 * block + 1


OmegaConf.register_new_resolver("policy_seed", policy_seed, replace=True)
OmegaConf.register_new_resolver("judge_seed", judge_seed, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)  # for hydra.sweep.subdir

MOVED = {
    "rlaif_lab.judges.api.ApiJudge": "rlaif_lab.judges.api.judge.ApiJudge",
    "rlaif_lab.judges.cached.CachedJudge": "rlaif_lab.judges.wrappers.cached.CachedJudge",
    "rlaif_lab.judges.constitution.ConstitutionJudge": "rlaif_lab.judges.prompted.constitution.ConstitutionJudge",
    "rlaif_lab.judges.human_budget.HumanBudget": "rlaif_lab.judges.wrappers.human_budget.HumanBudget",
    "rlaif_lab.judges.length_control.LengthControl": "rlaif_lab.judges.wrappers.length_control.LengthControl",
    "rlaif_lab.judges.model.ModelJudge": "rlaif_lab.judges.logprob.ModelJudge",
    "rlaif_lab.judges.panel.Panel": "rlaif_lab.judges.wrappers.panel.Panel",
    "rlaif_lab.judges.pointwise.PointwiseJudge": "rlaif_lab.judges.prompted.pointwise.PointwiseJudge",
    "rlaif_lab.judges.prompted.PromptedJudge": "rlaif_lab.judges.prompted.pairwise.PromptedJudge",
    "rlaif_lab.judges.wrappers.BiasedJudge": "rlaif_lab.judges.wrappers.noise.BiasedJudge",
    "rlaif_lab.judges.wrappers.NoisyJudge": "rlaif_lab.judges.wrappers.noise.NoisyJudge",
    "rlaif_lab.judges.wrappers.ShorterOnTie": "rlaif_lab.judges.wrappers.order.ShorterOnTie",
    "rlaif_lab.judges.wrappers.SingleOrderJudge": "rlaif_lab.judges.wrappers.order.SingleOrderJudge",
    "rlaif_lab.pairing.Pairing": "rlaif_lab.feedback.pairing.Pairing",
    "rlaif_lab.replay.Replay": "rlaif_lab.feedback.replay.Replay",
    "rlaif_lab.revision.RevisionConfig": "rlaif_lab.feedback.revision.RevisionConfig",
    "rlaif_lab.sweep.Sweep": "rlaif_lab.cli.sweep.Sweep",
    "rlaif_lab.tracking.NoTracker": "rlaif_lab.tracking.base.NoTracker",
    "rlaif_lab.tracking.WandbTracker": "rlaif_lab.tracking.wandb_tracker.WandbTracker",
    "rlaif_lab.trainer.TrainerConfig": "rlaif_lab.training.settings.TrainerConfig",
    "rlaif_lab.watch.Watch": "rlaif_lab.tracking.alarms.Watch",
}
"""Class paths of earlier versions, which run folders and users' own YAML files hold -> where the classes are now."""

ADDED: dict[str, str] = {
    "trainer.half_life": "None",
    "engine._target_": "rlaif_lab.sampling.exact.Exact",
    "callbacks": "None",
    "block": "0",
    "bank.labels": "None",
    "bank.ignore": "[]",
    "task.format": "auto",
    "task.columns.system": "system",
    "task.columns.input": "None",
    "task.ignore": "[]",
}
"""Keys that the fingerprints of earlier versions lack, with the value that those versions had."""


def current_path(target: str) -> str:
    """Return the class path of today for one that may be an earlier version's."""
    return MOVED.get(target, target)


def with_current_paths(value: Any) -> Any:
    """Return a config (plain containers) in which each ``_target_`` is the class path of today."""
    if isinstance(value, dict):
        return {
            key: current_path(child) if key == "_target_" and isinstance(child, str) else with_current_paths(child)
            for key, child in value.items()
        }
    return [with_current_paths(child) for child in value] if isinstance(value, list) else value


# --- checks -------------------------------------------------------------------------------------------------------
def check(cfg: DictConfig) -> None:
    """Everything that can be told to be wrong without loading weights. Raises ValueError, one sentence."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"{missing[0]} has no value; give one, e.g. {missing[0]}=...")
    for name in ("rounds", "prompts_per_round", "threads"):
        if cfg[name] < 1:
            raise ValueError(f"{name} must be at least 1; got {cfg[name]}")
    if cfg.sync_every is not None and cfg.sync_every < 1:
        raise ValueError(
            f"sync_every must be at least 1 optimiser step, or null (once per round); got {cfg.sync_every}"
        )
    if cfg.lag < 0:
        raise ValueError(f"lag must not be negative (rounds); got {cfg.lag}")
    if not 0.5 < cfg.gate.confidence < 1:
        raise ValueError(f"gate.confidence must lie between 0.5 and 1; got {cfg.gate.confidence}")
    for family in FAMILIES:
        node = cfg[family]
        if node is None and family in OPTIONAL:
            continue
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise ValueError(f"{family} must be a mapping with a _target_; got {node!r}")
        for path, target in targets(node, family):
            check_target(path, target)
    for family, kind in (("metrics", "Metric"), ("callbacks", "callback of Lightning's")):
        check_several(cfg[family], family, kind)


def check_several(nodes: DictConfig | None, family: str, kind: str) -> None:
    """Check a family of which a run may have any number, each by a name of its own."""
    for name, node in (nodes or {}).items():
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise ValueError(f"{family}.{name!s} must be a mapping with a _target_ (a {kind}); got {node!r}")
        for path, target in targets(node, f"{family}.{name!s}"):
            check_target(path, target)


def targets(node: DictConfig, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All nodes with a ``_target_``, the innermost first."""
    for key in node:
        if isinstance(child := node[key], DictConfig):
            yield from targets(child, f"{path}.{key!s}")
    if "_target_" in node:
        content = OmegaConf.to_container(node, resolve=True)
        assert isinstance(content, dict)
        yield path, {str(key): value for key, value in content.items()}


def check_target(path: str, node: dict[str, Any]) -> None:
    """The target can be imported and its signature takes the arguments given."""
    target = current_path(str(node["_target_"]))
    module_name, _, attribute = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{path}._target_: cannot import {target!r} ({error})") from None
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, dir(module))
        raise ValueError(f"{path}._target_: module {module_name!r} has no {attribute!r}{hint}")
    signature = inspect.signature(getattr(module, attribute)).parameters
    parameters = {n: p for n, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    arguments = [key for key in node if not key.startswith("_")]
    for key in arguments:
        if key not in parameters and not takes_any:
            hint = did_you_mean(key, list(parameters))
            raise ValueError(
                f"{path}.{key}: {attribute} takes no such argument{hint}; it takes {', '.join(parameters)}"
            )
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments and not node.get("_partial_"):
            raise ValueError(f"{path}.{name} is missing: {attribute} needs it")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, [k for k in known if not k.startswith("_")], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def known_keys() -> list[str]:
    """All keys of the default config, dotted, and of every choice in every group: what a typo may have meant."""
    keys = list(RunConfig.__dataclass_fields__)
    for file in Path(config_dir()).glob("*/*.yaml"):
        if file.parent.name in FAMILIES:
            keys += leaves(OmegaConf.load(file), file.parent.name)
    evaluation = {f"evaluation.{name}" for name in EvaluationSize.__dataclass_fields__}
    return sorted({*keys, *evaluation, "experiment"})


def leaves(node: Any, path: str) -> list[str]:
    if not isinstance(node, DictConfig):
        return [path]
    return [path, *(leaf for key in node for leaf in leaves(node._get_node(key), f"{path}.{key!s}"))]


def build(node: DictConfig, path: str) -> Any:
    """The object a ``_target_`` node describes. Its ValueError comes out as it is, with the path in front."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    content = with_current_paths(OmegaConf.to_container(node, resolve=True))
    try:
        return instantiate(OmegaConf.create(content), _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, (ValueError, TypeError)):
            cause = str(error.__cause__)
            raise ValueError(cause if cause.startswith(path.split(".")[0]) else f"{path}: {cause}") from None
        raise


def fingerprint(cfg: DictConfig, identities: dict[str, str]) -> dict[str, str]:
    """What decides a run's numbers, flat: dotted key -> value. ``identities``: content hashes of models and data."""
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        else:
            flat[prefix] = str(value)

    walk("", {key: value for key, value in content.items() if key not in NOT_IN_FINGERPRINT})
    return as_of_today(flat | identities)


def as_of_today(fingerprint: Mapping[str, str]) -> dict[str, str]:
    """Return a fingerprint that may be an earlier version's as this version would write it."""
    current = {k: current_path(v) if k.endswith("_target_") else v for k, v in fingerprint.items()}
    return ADDED | current
