"""The config of an audit: the groups task, policy, judge, bank and engine, and what is asked besides the bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from rlaif_lab.config import check_core, schema
from rlaif_lab.config.ranges import Seed

FAMILIES = ("task", "policy", "judge", "bank", "engine")


@dataclass
class AuditConfig:
    """Typed keys; the families carry a ``_target_`` each."""

    task: Any = None
    policy: Any = None
    judge: Any = None
    bank: Any = None
    engine: Any = None
    plan: Any = None
    experiment_name: str = "audit"
    arm: str = "arm"
    seed: Seed = 0
    block: Annotated[int, Ge(0), Le(10**6)] = 0
    device: str = "cpu"
    threads: Annotated[int, Ge(1), Le(1024)] = 1


ConfigStore.instance().store(name="audit_schema", node=schema(AuditConfig))


def check(cfg: DictConfig) -> None:
    """Validate everything that requires loading neither weights nor the bank. Raises ValueError with one sentence."""
    check_core(cfg, AuditConfig, (*FAMILIES, "plan"))
