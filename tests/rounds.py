"""A round from its pieces in one flat list, which is how tests like to say what differs from the usual."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlaif_lab.feedback.kinds import kinds_for
from rlaif_lab.feedback.pairing import Pairing
from rlaif_lab.judges.base import Judge
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.loop.gate import Gate
from rlaif_lab.loop.parts import assemble
from rlaif_lab.loop.plan import Parts, Plan
from rlaif_lab.loop.round import Round
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.sweep_cache import SweepCache
from rlaif_lab.tasks.base import Task
from rlaif_lab.training.batches import Batching


def make_round(
    organism: LanguageModel,
    task: Task,
    folder: Path,
    judge: Judge,
    *,
    cache: SweepCache | None = None,
    gate: Gate | None = None,
    **changes: Any,
) -> Round:
    """Rounds of sixteen prompts with RLOO. changes: fields of Parts and of Plan."""
    network = copy.deepcopy(organism.network).requires_grad_(True).train()
    given: dict[str, Any] = {
        "policy": LanguageModel(network, organism.tokenizer, "policy"),
        "base": organism,
        "judge": judge,
        "learner": RLOO(),
        "task": task,
        "sampling": SamplingConfig(k=3),
        "pairing": Pairing(),
        "evaluation": Evaluation(prompts=8, samples=2, final_samples=4),
        "seed": 0,
        "prompts_per_round": 16,
        "batching": Batching(batch_size=5),
    } | changes
    given["kinds"] = kinds_for(given["learner"].kinds(), given["pairing"])
    parts, plan = (
        kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})
        for kind in (Parts, Plan)
    )
    gate = gate or Gate(force=True)
    return assemble(parts, plan, RoundStore(folder), load=lambda source: organism, gate=gate, cache=cache)
