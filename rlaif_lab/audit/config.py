"""The config of an audit: the groups task, policy, judge and bank, and what is asked besides the bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from rlaif_lab.audit.plan import Plan
from rlaif_lab.config import check_target, config_dir, leaves, targets

FAMILIES = ("task", "policy", "judge", "bank")


@dataclass
class AuditConfig:
    """Typed keys; the families carry a ``_target_`` each."""

    task: Any = None
    policy: Any = None
    judge: Any = None
    bank: Any = None
    plan: Any = None
    experiment_name: str = "audit"
    arm: str = "arm"
    seed: int = 0
    block: int = 0
    device: str = "cpu"
    threads: int = 1


ConfigStore.instance().store(name="audit_schema", node=AuditConfig)


def check(cfg: DictConfig) -> None:
    """Everything that can be told to be wrong without loading weights or the bank. Raises ValueError, one sentence."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"{missing[0]} has no value; give one, e.g. {missing[0]}=...")
    if cfg.threads < 1:
        raise ValueError(f"threads must be at least 1; got {cfg.threads}")
    for family in (*FAMILIES, "plan"):
        node = cfg[family]
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise ValueError(f"{family} must be a mapping with a _target_; got {node!r}")
        for path, target in targets(node, family):
            check_target(path, target)


def known_keys() -> list[str]:
    """All keys, dotted, of the audit's own config and of every choice in its groups: what a typo may have meant."""
    keys = [*AuditConfig.__dataclass_fields__, *(f"plan.{name}" for name in Plan.__dataclass_fields__)]
    for file in Path(config_dir()).glob("*/*.yaml"):
        if file.parent.name in FAMILIES:
            keys += leaves(OmegaConf.load(file), file.parent.name)
    return sorted(set(keys))
