"""Seconds per update against TRL, as ratios within one process. Times on a shared machine are not for quoting.

    python experiments/speed/against_trl.py [--steps 24] [--warmup 8] [--repeats 5] [--csv FILE]

Everybody trains the default policy (addition) under ``judge=stronger`` on one thread in float32: same prompts, samples
per prompt, token limit, temperature and number of updates; 32 prompts x 4 samples per update for policy gradients,
64 x 2 for DPO.

- ``online``: samples are drawn anew for every update, as TRL does by default; here ``sync_every=1``.
- ``round``: one sampling serves 8 updates; here ``prompts_per_round`` of 8 updates, in TRL ``steps_per_generation=8``.
  TRL's online DPO has no such setting and is compared as it is: same prompts, samples and updates.

What is timed: from one sampling to the next, so generating, judging, pairing, training, the store's files, Lightning
and (``round``) metrics and checkpoint; not the evaluation, which TRL does not do. The warm-up is left out. The ratio by
CPU time is the steadier one while other processes run.

TRL at its best: no gradient checkpointing (its default costs it a second forward pass), no KL term and so no reference
model (RLOO, GRPO), no dropout, no logging, saving or evaluation, one batch per update without accumulation, no loader
workers; of eager and SDPA attention, and of RLOO and GRPO, the faster. Its reward function is this lab's judge with all
its book-keeping, in batches as large as TRL hands over: the same verdicts cost both sides the same. ``as shipped`` is
TRL's online DPO with its own defaults, which are gradient checkpointing and bfloat16.

Both DPO losses are sigmoid with beta .1, without an NLL term. Equal samples make no pair here, nor equal groups an
example, while TRL trains on them for nothing: ``trained`` counts the responses that went through a backward pass.
Batches are so much smaller here that a round makes 8 updates, sometimes 7 or 9.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import contextlib
import csv
import functools
import gc
import itertools
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from hydra import compose, initialize_config_dir
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from rlaif_lab.config import build, config_dir
from rlaif_lab.feedback.matrices import preference_matrices, win_rates
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.judges.base import Judge
from rlaif_lab.loop import evaluation, stages
from rlaif_lab.loop.run import Run
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation, Prompt, Response
from rlaif_lab.store.checkpoints import newest_checkpoint
from rlaif_lab.store.tables import GENERATIONS
from rlaif_lab.tasks.base import Task

ROUND = 8
"""Updates per sampling in ``round`` mode."""
LEARNING_RATE = 1e-4
Moment = tuple[float, float]
"""Wall and CPU seconds."""


@dataclass(frozen=True)
class Work:
    """What one update works on. batch_size: examples per update that make as many updates here, where some prompts give
    none."""

    prompts: int
    k: int
    batch_size: int

    @property
    def samples(self) -> int:
        return self.prompts * self.k


GROUPS, PAIRS = Work(32, 4, 31), Work(64, 2, 49)


@dataclass(frozen=True)
class Trace:
    """One run. wall, cpu: median seconds per update after the warm-up. judging: wall seconds per update of the judge.
    samples, tokens: generated per update. trained: responses per update that were trained on. loss: the last one's or
    a mean."""

    wall: float
    cpu: float
    judging: float
    samples: float
    tokens: float
    trained: float
    updates: int
    loss: float


def now() -> Moment:
    return time.perf_counter(), time.process_time()


def medians(moments: Sequence[Moment], updates_between: int) -> Moment:
    """Median wall and CPU seconds per update between moments."""
    gaps = [[(b[i] - a[i]) / updates_between for a, b in itertools.pairwise(moments)] for i in (0, 1)]
    return statistics.median(gaps[0]), statistics.median(gaps[1])


# --- TRL ------------------------------------------------------------------------------------------------------------
class JudgeReward:
    """The lab's judge as a reward function: each completion's win rate among those of its prompt."""

    __name__ = "judge"

    def __init__(self, judge: Judge, end: int, prefix: str = "") -> None:
        self.judge, self.end, self.prefix = judge, end, prefix
        self.samples = self.tokens = 0
        self.seconds = 0.0

    def __call__(
        self, prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:
        start = time.perf_counter()
        groups: dict[str, list[int]] = {}
        for i, (prompt, ids) in enumerate(zip(prompts, completion_ids, strict=True)):
            groups.setdefault(prompt.removeprefix(self.prefix), []).append(i)
            self.samples += 1
            self.tokens += ids.index(self.end) + 1 if self.end in ids else len(ids)
        generations = [
            Generation(Prompt(text, text), tuple(Response(completions[i], (), (), True) for i in members))
            for text, members in groups.items()
        ]
        rates = win_rates(preference_matrices(generations, judge_generations(self.judge, generations)))
        rewards = [0.0] * len(prompts)
        for members, row in zip(groups.values(), rates.tolist(), strict=True):
            for i, rate in zip(members, row, strict=True):
                rewards[i] = rate
        self.seconds += time.perf_counter() - start
        return rewards


class StepEnds(TrainerCallback):
    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.moments.append(now())


@dataclass(frozen=True)
class Setting:
    task: Task
    judge: Judge
    policy: LanguageModel
    steps: int
    warmup: int


def trl_arguments(folder: str, steps: int, batch_size: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "temperature": 1.0,
        "seed": 0,
    }


def trl_group_trainer(
    setting: Setting, folder: str, trainer: Any, config: Any, attention: str, updates_per_sampling: int
) -> Trace:
    """RLOOTrainer or GRPOTrainer."""
    task, policy, steps = setting.task, setting.policy, setting.steps
    reward = JudgeReward(setting.judge, policy.eos_id)
    arguments = config(
        **trl_arguments(folder, steps, GROUPS.samples),
        num_generations=GROUPS.k,
        steps_per_generation=updates_per_sampling,
        max_completion_length=task.max_response_tokens,
        beta=0.0,
        shuffle_dataset=False,
    )
    prompts = [p.text for p in task.prompts("rounds", 0, GROUPS.prompts * steps, 0)]
    return trl_trace(setting, reward, trainer, attention, updates_per_sampling, args=arguments, prompts=prompts)


def trl_online_dpo(setting: Setting, folder: str, attention: str, as_shipped: bool) -> Trace:
    task, policy, steps = setting.task, setting.policy, setting.steps
    defaults = {"gradient_checkpointing": True, "bf16": None} if as_shipped else {}
    begin = policy.tokenizer.bos_token  # it adds none by itself when generating
    reward = JudgeReward(setting.judge, policy.eos_id, begin)
    arguments = OnlineDPOConfig(
        **trl_arguments(folder, steps, PAIRS.prompts) | defaults,
        max_new_tokens=task.max_response_tokens,
        max_length=128,
        beta=[0.1],
    )
    prompts = [begin + p.text for p in task.prompts("rounds", 0, PAIRS.prompts * steps, 0)]
    return trl_trace(setting, reward, OnlineDPOTrainer, attention, 1, args=arguments, prompts=prompts)


def trl_trace(
    setting: Setting, reward: JudgeReward, trainer: Any, attention: str, every: int, args: Any, prompts: list[str]
) -> Trace:
    ends = StepEnds()
    network = AutoModelForCausalLM.from_pretrained(
        setting.policy.network.name_or_path, attn_implementation=attention, dtype="float32"
    )
    training = trainer(
        model=network,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=setting.policy.tokenizer,
        callbacks=[ends],
    )
    settle()
    with contextlib.redirect_stdout(sys.stderr):
        outcome = training.train()
    wall, cpu = medians(ends.moments[setting.warmup - 1 :: every], every)
    steps = setting.steps
    assert outcome.global_step == len(ends.moments) == steps
    return Trace(
        wall,
        cpu,
        reward.seconds / steps,
        reward.samples / steps,
        reward.tokens / steps,
        reward.samples / steps,
        steps,
        outcome.training_loss,
    )


# --- this lab ---------------------------------------------------------------------------------------------------------
def lab(
    setting: Setting,
    folder: str,
    learner: str,
    work: Work,
    updates_per_sampling: int,
    overrides: Sequence[str] = (),
) -> Trace:
    """A real run. ``online``: one round that samples anew for every update; else rounds of some updates each."""
    steps, every = setting.steps, updates_per_sampling
    shape = (
        [f"prompts_per_round={work.prompts * steps}", "rounds=1", "sync_every=1"]
        if every == 1
        else [f"prompts_per_round={work.prompts * every}", f"rounds={steps // every}"]
    )
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(
            "config",
            overrides=[
                "judge=stronger",
                f"learner={learner}",
                f"sampler.k={work.k}",
                f"trainer.batch_size={work.prompts if every == 1 else work.batch_size}",
                f"trainer.learning_rate={LEARNING_RATE}",
                "trainer.warmup_steps=0",
                "evaluation.prompts=1",
                "evaluation.samples=1",
                "gate.force=true",
                "logger=none",
                *shape,
                *overrides,
            ],
        )
    run, clock = Run(cfg, Path(folder) / "run"), Clock()
    settle()
    with contextlib.redirect_stdout(sys.stderr), clock.running():
        run.fit()
    rows, moments = run.store.rows()[:-1], clock.moments
    wall, cpu = medians(moments[setting.warmup - 1 if every == 1 else setting.warmup // every :], every)
    generations = [g for r in range(len(rows)) for s in range(len(moments) // len(rows)) for g in stored(run, r, s)]
    responses = [r for g in generations for r in g.responses]
    return Trace(
        wall,
        cpu,
        sum(row["time/judging_s"] for row in rows) / steps,
        len(responses) / steps,
        sum(len(r.token_ids) for r in responses) / steps,
        sum(row["pairs/examples"] for row in rows) / steps * (2 if learner == "dpo" else work.k),
        updates_of(run),
        sum(row["train/loss"] for row in rows) / len(rows),
    )


class Clock:
    """Notes when a run begins to sample. It stands still while the run evaluates."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.stood_still = (0.0, 0.0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        note = functools.partial(self.note, stages.generate)
        leave_out = functools.partial(self.leave_out, evaluation.evaluate)
        with patch.object(stages, "generate", note), patch.object(evaluation, "evaluate", leave_out):
            yield

    def note(self, generate: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        wall, cpu = now()
        self.moments.append((wall - self.stood_still[0], cpu - self.stood_still[1]))
        return generate(*arguments, **named)

    def leave_out(self, evaluate: Callable[..., Any], *arguments: Any) -> Any:
        begun = now()
        found = evaluate(*arguments)
        ended = now()
        self.stood_still = (
            self.stood_still[0] + ended[0] - begun[0],
            self.stood_still[1] + ended[1] - begun[1],
        )
        return found


def stored(run: Run, index: int, segment: int) -> list[Generation]:
    return run.store.read_stage(index, GENERATIONS, segment)


def updates_of(run: Run) -> int:
    """Optimiser updates, as the last checkpoint counts them."""
    path = newest_checkpoint(run.directory / "checkpoints")
    assert path is not None
    state = torch.load(path, map_location="cpu", weights_only=False)["optimizer_states"][0]["state"]
    return int(next(iter(state.values()))["step"])


# --- the comparison ---------------------------------------------------------------------------------------------------
GROUP_TRAINERS = tuple(
    f"{mode} {name} trl {attention}"
    for mode in ("online", "round")
    for name in ("RLOO", "GRPO")
    for attention in ("eager", "sdpa")
)
ONLINE_DPO = ("online DPO trl eager", "online DPO trl sdpa")
AS_SHIPPED = ("online DPO trl as shipped",)
RATIOS: dict[str, tuple[Sequence[str], str]] = {
    "online RLOO": (GROUP_TRAINERS[:4], "online RLOO lab"),
    "round RLOO": (GROUP_TRAINERS, "round RLOO lab"),
    "online DPO": (ONLINE_DPO, "online DPO lab previous_round"),
    "online DPO, same reference": (ONLINE_DPO, "online DPO lab initial"),
    "online DPO, TRL as shipped": (AS_SHIPPED, "online DPO lab previous_round"),
    "round DPO": (ONLINE_DPO, "round DPO lab previous_round"),
    "round DPO, same reference": (ONLINE_DPO, "round DPO lab initial"),
    "round DPO, TRL as shipped": (AS_SHIPPED, "round DPO lab previous_round"),
}
"""TRL's candidates, of which the fastest counts, over ours. ``same reference``: ours pays for log-probabilities under
the first policy, as TRL does; by default it has those of the policy that sampled for nothing."""


def settle() -> None:
    """Nobody pays for what others left behind."""
    gc.collect()
    gc.freeze()


def contenders(setting: Setting) -> dict[str, Callable[[str], Trace]]:
    """Runs by name: mode, learner, side and setting."""
    found: dict[str, Callable[[str], Trace]] = {}
    for name in GROUP_TRAINERS:
        mode, algorithm, _, attention = name.split()
        trainer, config = (RLOOTrainer, RLOOConfig) if algorithm == "RLOO" else (GRPOTrainer, GRPOConfig)
        every = 1 if mode == "online" else ROUND
        found[name] = functools.partial(
            trl_group_trainer,
            setting,
            trainer=trainer,
            config=config,
            attention=attention,
            updates_per_sampling=every,
        )
    for name in (*ONLINE_DPO, *AS_SHIPPED):
        shipped = name in AS_SHIPPED
        attention = "sdpa" if shipped else name.split()[-1]
        found[name] = functools.partial(trl_online_dpo, setting, attention=attention, as_shipped=shipped)
    for mode, every in (("online", 1), ("round", ROUND)):
        run = functools.partial(lab, setting, updates_per_sampling=every)
        found[f"{mode} RLOO lab"] = functools.partial(run, learner="rloo", work=GROUPS)
        for reference in ("previous_round", "initial"):
            overrides = ("learner.nll_weight=0", f"learner.reference={reference}")
            found[f"{mode} DPO lab {reference}"] = functools.partial(
                run, learner="dpo", work=PAIRS, overrides=overrides
            )
    return found


def check(name: str, trace: Trace, setting: Setting) -> None:
    """Equal work, or no comparison."""
    work = PAIRS if " DPO " in name else GROUPS
    assert abs(trace.updates - setting.steps) <= setting.steps // ROUND, (name, trace)
    assert trace.samples == work.samples, (name, trace)
    longest = setting.task.max_response_tokens
    assert 0.9 * longest * work.samples <= trace.tokens <= longest * work.samples, (name, trace)
    assert math.isfinite(trace.loss), (name, trace)


def ratios(traces: dict[str, list[Trace]], clock: str) -> dict[str, list[float]]:
    """How many times faster the lab is, one value per repeat."""
    found: dict[str, list[float]] = {}
    for name, (theirs, ours) in RATIOS.items():
        if ours not in traces or not all(n in traces for n in theirs):
            continue
        repeats = range(len(traces[ours]))
        best = min(theirs, key=lambda n: statistics.median(getattr(t, clock) for t in traces[n]))
        found[name] = [getattr(traces[best][i], clock) / getattr(traces[ours][i], clock) for i in repeats]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help="updates per run, a multiple of 8")
    parser.add_argument("--warmup", type=int, default=8, help="updates left out, a multiple of 8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="contenders whose name holds this")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.steps % ROUND or options.warmup % ROUND or options.steps < options.warmup + 2 * ROUND:
        parser.error(f"steps and warmup must be multiples of {ROUND}, and steps at least {2 * ROUND} more")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=["judge=stronger"])
    task, judge = build(cfg.task, "task"), build(cfg.judge, "judge")
    policy = build(cfg.policy, "policy").load(task)
    judge.attach(JudgeContext(0, lambda weights: policy, lambda source: source.load(task), None))
    setting = Setting(task, judge, policy, options.steps, options.warmup)
    runs = {name: run for name, run in contenders(setting).items() if options.only in name}
    traces: dict[str, list[Trace]] = {name: [] for name in runs}
    for repeat in range(options.repeats):
        names = list(runs) if repeat % 2 == 0 else list(runs)[::-1]
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                trace = runs[name](folder)
            check(name, trace, setting)
            traces[name].append(trace)
            print(f"{repeat} {name:<32} {trace.wall:.4f} {trace.cpu:.4f}", file=sys.stderr, flush=True)
    report(traces, options.csv)


def report(traces: dict[str, list[Trace]], path: Path | None) -> None:
    columns = ("wall", "cpu", "judging", "samples", "tokens", "trained")
    print(f"{'seconds per update (median)':<34}" + "".join(f"{c:>10}" for c in columns))
    rows = []
    for name, found in traces.items():
        values = [statistics.median(getattr(t, c) for t in found) for c in columns]
        print(f"{name:<34}" + "".join(f"{v:>10.4f}" for v in values[:3]) + "".join(f"{v:>10.1f}" for v in values[3:]))
        rows.append({"name": name, **dict(zip(columns, values, strict=True))})
    print(f"\n{'times faster than TRL':<34}{'median':>10}{'range':>16}{'by CPU time':>14}")
    for name, values in ratios(traces, "wall").items():
        cpu = statistics.median(ratios(traces, "cpu")[name])
        print(f"{name:<34}{statistics.median(values):>10.2f}{min(values):>9.2f}-{max(values):.2f}{cpu:>15.2f}")
        rows.append(
            {
                "name": f"ratio: {name}",
                "wall": statistics.median(values),
                "cpu": cpu,
                "low": min(values),
                "high": max(values),
            }
        )
    if path is not None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["name", *columns, "low", "high"], lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
