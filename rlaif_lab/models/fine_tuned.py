"""The stage before round 0: supervised fine-tuning on demonstrations. Done once per machine, then cached."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_lab.config.ranges import Seed
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.sources import ModelSource
from rlaif_lab.records import Prompt
from rlaif_lab.seeding import rng_for
from rlaif_lab.store.checksums import check_sealed, seal
from rlaif_lab.store.files import new_folder_beside, open_to_umask, rename_folder, writing
from rlaif_lab.store.locks import try_lock, wait_for
from rlaif_lab.tasks.base import ProceduralTask, Skill, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlaif_lab.models.language_model import LanguageModel

Demonstrations = list[tuple[Prompt, str]]


@dataclass(frozen=True)
class FineTuned(ModelSource):
    """Another model after supervised fine-tuning; policy, reference and self judge all start from the result.

    of: the source of the model to begin with. Demonstrations come from one of
    path: a file with a column of prompts and one of responses (``columns``: {prompt, response}; .jsonl, .json, .csv,
        .parquet), or
    skill: {slip, misconception} of a demonstrator of the task, who answers ``demonstrations`` of its pretraining
        problems.
    The loss is the mean negative log-likelihood of the responses' tokens, their end included.
    """

    of: ModelSource
    path: str | None = None
    columns: Mapping[str, str] | None = None
    skill: Mapping[str, float] | None = None
    demonstrations: int = 4096
    passes: int = 1
    batch_size: int = 128
    learning_rate: float = 5e-4
    warmup_steps: int = 10
    clip_norm: float = 1.0
    seed: Seed = 0
    name: str = "fine-tuned"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.skill is None):
            raise ValueError(
                "fine-tuning needs demonstrations: either a file (path) or a demonstrator's skill, not both"
            )
        for name in ("demonstrations", "passes", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"fine-tuning: {name} must be at least 1; got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"fine-tuning: learning_rate must be positive; got {self.learning_rate}")
        for name in ("warmup_steps", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"fine-tuning: {name} must not be negative; got {getattr(self, name)}")
        if self.skill is not None and set(self.skill) != {"slip", "misconception"}:
            raise ValueError(f"a demonstrator's skill needs exactly slip and misconception; got {dict(self.skill)}")
        unknown = set(self.columns or {}) - {"prompt", "response"}
        if unknown:
            raise ValueError(f"fine-tuning: columns has no {sorted(unknown)[0]!r}; it takes prompt, response")
        if self.path is not None and not Path(self.path).expanduser().is_file():
            raise ValueError(f"fine-tuning: the file of demonstrations {self.path!r} does not exist")

    def check(self, task: Task) -> None:
        self.of.check(task)
        if self.skill is not None and not isinstance(task, ProceduralTask):
            raise ValueError(
                f"fine-tuning by skill needs a task with demonstrators (a ProceduralTask); {task.name!r} has none: "
                "give a file of demonstrations (path)"
            )
        self.data(task)

    def identity(self, task: Task) -> str:
        digest = hashlib.sha256(repr(self.data(task)).encode())
        settings = {k: v for k, v in vars(self).items() if k not in ("of", "path", "columns", "skill", "name")}
        digest.update(repr((self.of.identity(task), sorted(settings.items()))).encode())
        return f"fine-tuned {digest.hexdigest()[:16]}"

    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        return self.of.load_tokenizer(task)

    def load(self, task: Task) -> LanguageModel:
        return self.result(task).load(task)

    def load_trainable(self, task: Task, seed: int) -> tuple[LanguageModel, LanguageModel]:
        return self.result(task).load_trainable(task, seed)

    def __str__(self) -> str:
        return f"{self.of}, fine-tuned on {self.path or f'a demonstrator of {self.skill}'}"

    # --- demonstrations -------------------------------------------------------------------------------------------
    def data(self, task: Task) -> Demonstrations:
        """Raise ValueError, with file and line, for a row that is no demonstration."""
        if self.skill is None:
            return self._from_file()
        assert isinstance(task, ProceduralTask)
        rng = rng_for(self.seed, "demonstrations", task.name)
        problems = rng.choice(task.split_problems("policy_pretraining"), size=self.demonstrations)
        answers = task.demonstrate(problems, Skill(**self.skill), rng)
        return [(task.to_prompt(int(p)), answer) for p, answer in zip(problems, answers, strict=True)]

    def _from_file(self) -> Demonstrations:
        from rlaif_lab.tasks.read_rows import read_rows

        columns = {"prompt": "prompt", "response": "response"} | dict(self.columns or {})
        found = []
        for where, row in read_rows(str(self.path), "train", None):
            for column in columns.values():
                if column not in row:
                    raise ValueError(f"{where}: no column {column!r}; there is {', '.join(row)}")
                if not isinstance(row[column], str) or not row[column].strip():
                    raise ValueError(
                        f"{where}: column {column!r} must be a text that is not empty; got {row[column]!r}"
                    )
            found.append((Prompt(where, row[columns["prompt"]]), row[columns["response"]]))
        if not found:
            raise ValueError(f"fine-tuning: {self.path!r} holds no demonstrations")
        return found

    # --- training -------------------------------------------------------------------------------------------------
    def result(self, task: Task) -> ModelSource:
        """Return the fine-tuned model as a source: from the cache, or trained now. Several processes may ask at
        once."""
        from rlaif_lab.store.files import cache_root

        folder = cache_root() / "fine_tuned" / self.identity(task).split()[-1]
        for _ in wait_for(folder.exists):
            with try_lock(folder.with_name(f"{folder.name}.lock")) as mine:
                if mine and not folder.exists():
                    self._train_into(folder, task)
        check_sealed(folder)
        if isinstance(self.of, HFModel):
            return replace(self.of, path=str(folder), gguf_file=None, revision=None)
        return HFModel(str(folder), attn="eager", chat=False, name=self.name)

    def _train_into(self, folder: Path, task: Task) -> None:
        """Into a temporary folder that is renamed: a folder in the cache is always whole."""
        model = self.of.load(task)
        fine_tune(model, self.data(task), self)
        with writing(folder):
            partial = new_folder_beside(folder)
            try:
                model.save(partial)
                open_to_umask(partial)
                seal(partial)
                rename_folder(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def fine_tune(model: LanguageModel, data: Sequence[tuple[Prompt, str]], settings: FineTuned) -> list[float]:
    """Train all weights in place; returns the loss of every step. Raises ValueError where it is not finite."""
    import torch

    from rlaif_lab.models.packed import pack, response_logps
    from rlaif_lab.progress import bar

    prompts = model.encode_prompts([prompt for prompt, _ in data])
    responses = model.encode_responses([text for _, text in data])
    order = [
        int(i)
        for number in range(settings.passes)
        for i in rng_for(settings.seed, "fine-tuning order", number).permutation(len(data))
    ]
    parameters = list(model.network.requires_grad_(True).train().parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    losses: list[float] = []
    starts = range(0, len(order), settings.batch_size)
    for step, at in enumerate(bar(starts, announce=True, desc="fine-tuning", unit="step")):
        rows = order[at : at + settings.batch_size]
        packed = pack([prompts[i] for i in rows], [[responses[i]] for i in rows], model.pad_id).to(model.device)
        loss = -response_logps(model.network, packed).sum() / packed.response_mask.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm or math.inf)
        if not math.isfinite(loss.item() + norm.item()):
            raise ValueError(f"fine-tuning, step {step}: loss or gradient is not finite; lower its learning_rate")
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / (settings.warmup_steps + 1))
        optimizer.step()
        losses.append(loss.item())
    model.network.requires_grad_(False).eval()
    return losses
