"""The stage before round 0: supervised fine-tuning on demonstrations. Done once per machine, then cached."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.config.ranges import Count, LearningRate, NotNegative, Number, Seed, Size
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.lora import LoraConfig, with_adapter
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
        .parquet),
    skill: {slip, misconception} of a demonstrator of the task, who answers ``demonstrations`` of its pretraining
        problems, or
    right: the task's own right answers to ``demonstrations`` of its pretraining problems, for a task that has no
        demonstrators.
    Where a task has demonstrators, ``skill`` counts and ``right`` does not; where it has none, it is the other way
    round, so that one preset serves both.
    lora: an adapter is trained in place of all weights, and merged when that is done (as LoraConfig; None, or of rank
        0: all weights). It has nothing to do with the adapter that the rounds train.
    The loss is the mean negative log-likelihood of the responses' tokens, their end included.
    """

    of: ModelSource
    path: str | None = None
    columns: Mapping[str, str] | None = None
    skill: Mapping[str, float] | None = None
    right: bool = False
    demonstrations: Count = 4096
    passes: Count = 1
    batch_size: Size = 128
    learning_rate: LearningRate = 5e-4
    warmup_steps: Number = 10
    clip_norm: NotNegative = 1.0
    lora: Mapping[str, Any] | None = None
    seed: Seed = 0
    name: str = "fine-tuned"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.skill is None and not self.right):
            raise ValueError(
                "fine-tuning needs demonstrations: either a file (path), or of the task a demonstrator's skill or its "
                "right answers (right=true), not both"
            )
        self.adapter()
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

    def adapter(self) -> LoraConfig | None:
        """Return the adapter's settings. None: all weights are trained."""
        # `lora=null` and rank 0 are the same: all weights.
        adapter = LoraConfig.of(self.lora or {"r": 0})
        return adapter if adapter.r else None

    def check(self, task: Task) -> None:
        self.of.check(task)
        if self.path is None and not isinstance(task, ProceduralTask) and not self.right:
            raise ValueError(
                f"fine-tuning by skill needs a task with demonstrators (a ProceduralTask); {task.name!r} has none: "
                "take its right answers (right=true), or give a file of demonstrations (path)"
            )
        if self.path is None and not isinstance(task, ProceduralTask) and not task.has_gold:
            raise ValueError(
                f"fine-tuning on right answers needs a task with gold, and {task.name!r} has none; give a file of "
                "demonstrations (path)"
            )
        self.data(task)

    def identity(self, task: Task) -> str:
        # By the demonstrations themselves, not by their file's path: the same content is trained once.
        digest = hashlib.sha256(repr(self.data(task)).encode())
        told = ("of", "path", "columns", "skill", "right", "lora", "name")
        # What demonstrations come from is in the digest already, and a name changes no weights.
        settings = {k: v for k, v in vars(self).items() if k not in told}
        if (adapter := self.adapter()) is not None:
            # Only where there is one, so that identities from before there was an adapter stay what they were.
            settings["lora"] = adapter
        digest.update(repr((self.of.identity(task), sorted(settings.items()))).encode())
        return f"fine-tuned {digest.hexdigest()[:16]}"

    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        return self.of.load_tokenizer(task)

    def load(self, task: Task) -> LanguageModel:
        return self.result(task).load(task)

    def load_trainable(self, task: Task, seed: int) -> tuple[LanguageModel, LanguageModel]:
        return self.result(task).load_trainable(task, seed)

    def __str__(self) -> str:
        right = "the task's right answers"
        if self.path is not None or self.skill is None:
            return f"{self.of}, fine-tuned on {self.path or right}"
        # Which of the two it was depends on the task, which is not known here.
        return f"{self.of}, fine-tuned on a demonstrator of {self.skill}" + (
            f" (on {right} where it has no demonstrators)" if self.right else ""
        )

    # --- demonstrations -------------------------------------------------------------------------------------------
    def data(self, task: Task) -> Demonstrations:
        """Return the demonstrations. Raises ValueError, with file and line, for a row that is none."""
        if self.path is not None:
            return self._from_file()
        if not isinstance(task, ProceduralTask):
            return self._right_answers(task)
        if self.skill is None:
            raise ValueError(
                f"fine-tuning on task {task.name!r}, which has demonstrators, needs the skill of one, e.g. "
                "policy.skill={slip: 0.3, misconception: 0.4}"
            )
        # One generator for problems and answers: what is drawn here is decided by the seed and the task.
        rng = rng_for(self.seed, "demonstrations", task.name)
        problems = rng.choice(task.split_problems("policy_pretraining"), size=self.demonstrations)
        answers = task.demonstrate(problems, Skill(**self.skill), rng)
        return [(task.to_prompt(int(p)), answer) for p, answer in zip(problems, answers, strict=True)]

    def _right_answers(self, task: Task) -> Demonstrations:
        """Return the task's own answers to problems that no round and no evaluation asks."""
        held = task.available("policy_pretraining")
        if held < self.demonstrations:
            raise ValueError(
                f"fine-tuning: task {task.name!r} has {held} problems for demonstrations, and demonstrations="
                f"{self.demonstrations} are wanted; lower it, or give a file of demonstrations (path)"
            )
        prompts = task.prompts("policy_pretraining", 0, self.demonstrations, self.seed)
        answers = [(prompt, task.gold_answer(prompt)) for prompt in prompts]
        # A task may name the answer to some problems only.
        found = [(prompt, answer) for prompt, answer in answers if answer is not None]
        if not found:
            raise ValueError(
                f"fine-tuning: task {task.name!r} names no right answer to any of {len(prompts)} problems; give a "
                "file of demonstrations (path)"
            )
        return found

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
        # Whoever comes first trains; the others wait until the folder is there.
        for _ in wait_for(folder.exists):
            with try_lock(folder.with_name(f"{folder.name}.lock")) as mine:
                if mine and not folder.exists():
                    self._train_into(folder, task)
        check_sealed(folder)
        # As it was loaded before: with the same chat template, dtype and attention.
        if isinstance(self.of, HFModel):
            return replace(self.of, path=str(folder), gguf_file=None, revision=None)
        # An organism's fine-tuned copy is loaded as organisms are.
        return HFModel(str(folder), attn="eager", chat=False, name=self.name)

    def _train_into(self, folder: Path, task: Task) -> None:
        """Train into a temporary folder that is renamed: a folder in the cache is always whole."""
        model = self.of.load(task)
        if (adapter := self.adapter()) is not None:
            # Before the adapter is put in: its own weights are to be trained, and nothing else.
            model.network.requires_grad_(False)
            model = replace(model, network=with_adapter(model.network, adapter, self.seed))
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
    """Train in place all weights, or an adapter where there is one; returns the loss of every step.

    Raises:
        ValueError: where loss or gradient is not finite.
    """
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
    # An adapter's parameters are those that are trained already.
    if settings.adapter() is None:
        model.network.requires_grad_(True)
    parameters = [p for p in model.network.train().parameters() if p.requires_grad]
    # As organisms are pretrained, and the rounds' default.
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    losses: list[float] = []
    starts = range(0, len(order), settings.batch_size)
    for step, at in enumerate(bar(starts, announce=True, desc="fine-tuning", unit="step")):
        rows = order[at : at + settings.batch_size]
        packed = pack([prompts[i] for i in rows], [[responses[i]] for i in rows], model.pad_id).to(model.device)
        # A mean over tokens, so that a long response counts by its length.
        loss = -response_logps(model.network, packed).sum() / packed.response_mask.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm or math.inf)
        # Sum of both: nan or infinite if either is.
        if not math.isfinite(loss.item() + norm.item()):
            raise ValueError(f"fine-tuning, step {step}: loss or gradient is not finite; lower its learning_rate")
        # Set ahead of the step, so that the first one is made at a rate above 0.
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / (settings.warmup_steps + 1))
        optimizer.step()
        losses.append(loss.item())
    model.network.requires_grad_(False).eval()
    return losses
