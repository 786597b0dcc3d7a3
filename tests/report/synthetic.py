"""Run folders as a sweep leaves them, without training: curves that saturate, climb or stay, and rounds with samples.

Qualities follow Q_inf - (Q_inf - Q_0) exp(-t / tau) with noise; the judge's opinion runs ahead of them as far as is
said. The samples are answers to sums, whose gold the task knows, judged by somebody who is wrong at a stated rate.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from helpers import judgement, response

from rlaif_lab.plateau.detector import Detector, metrics, trace
from rlaif_lab.records import Comparison, Generation, Judgement, Prompt
from rlaif_lab.seeding import rng_for
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS
from rlaif_lab.tasks.arithmetic import Addition

TASK = {"_target_": "rlaif_lab.tasks.arithmetic.Addition", "digits": 2}
DETECTOR = Detector(horizon=20)
STAGES = {"sampling": 0.6, "judging": 1.1, "batching": 0.1, "training": 2.2, "evaluation": 1.4}


@dataclass(frozen=True)
class Shape:
    """Where an arm goes. ceiling and tau as in the formula; accuracy: the judge's; pleased: how far its opinion runs
    ahead of the truth in the end."""

    ceiling: float
    tau: float
    accuracy: float
    pleased: float = 0.0


SHAPES = {
    "self": Shape(0.62, 2.0, 0.88, 0.2),
    "stronger": Shape(0.9, 9.0, 0.97, 0.02),
    "random": Shape(0.38, 1.0, 0.5),
    "oracle": Shape(0.95, 6.0, 1.0),
}


def write_study(
    folder: Path, shapes: dict[str, Shape], seeds: Sequence[int], rounds: int, prompts: int = 0, stored_seeds: int = 2
) -> None:
    """One run folder per arm and seed below ``folder``. prompts: per round, with their samples and verdicts in the
    round's files, of the first ``stored_seeds`` seeds; all those rounds ask the same ones."""
    for arm, shape in shapes.items():
        made = folder / "made" if prompts else None
        if made is not None:
            write_round(made, 0, sums(prompts, f"{arm}"), shape.accuracy)
        for seed in seeds:
            run = folder / f"judge={arm},seed={seed}"
            write_run(run, arm, seed, rows(shape, seed, rounds))
            if made is not None and seed in seeds[:stored_seeds]:
                for index in range(rounds):
                    shutil.copytree(made / "round_000", run / f"round_{index:03d}")
        if made is not None:
            shutil.rmtree(made)


def write_run(folder: Path, arm: str, seed: int, content: Sequence[dict[str, Any]], **changes: Any) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(f"- judge={json.dumps(arm)}\n- seed={seed}\n")
    config = {
        "arm": arm,
        "seed": seed,
        "experiment_name": "synthetic",
        "rounds": len(content) - 1,
        "task": TASK,
        "judge": {"name": arm},
        "detector": asdict(DETECTOR),
        "versions": {"python": "3.11.0"},
        "git_commit": "0123abc",
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def rows(shape: Shape, seed: int, rounds: int) -> list[dict[str, Any]]:
    """Every metric that the page shows. The detector is the real one, on changes of 512 prompts with that gain."""
    noise = rng_for("synthetic", seed, shape.ceiling)
    start = 0.38 + 0.01 * noise.normal()
    end = shape.ceiling + 0.012 * noise.normal()
    gains = [(end - start) * (math.exp(-i / shape.tau) - math.exp(-(i + 1) / shape.tau)) for i in range(rounds)]
    detected = trace(DETECTOR, [[np.clip(gain + 0.15 * noise.normal(size=512), -1, 1)] for gain in gains])
    found = []
    for index in range(rounds + 1):
        done = 1.0 - math.exp(-index / shape.tau)
        quality = start + (end - start) * done + 0.006 * noise.normal()
        diversity = 0.2 - 0.1 * done
        informative = (2 * shape.accuracy - 1) * (1 - 0.25 * done * (shape.pleased > 0.1))
        gold = 0.5 + 0.55 * (quality - start)
        believed = gold + shape.pleased * done + 0.008 * noise.normal()
        accuracy = 0.5 + informative / 2
        row: dict[str, Any] = {
            "round": index,
            "quality/sampled": quality,
            "quality/greedy": min(1.0, quality + 0.15),
            "quality/win_rate_vs_round_0": gold,
            "quality/change": gains[index - 1] if index else None,
            "quality/gold_nll": 0.6 - 0.4 * done,
            "judge/win_rate_vs_round_0": believed,
            "judge/win_rate_minus_gold": believed - gold,
            "heldout_judge/win_rate_vs_round_0": gold + 0.02,
            "heldout_judge/win_rate_minus_gold": 0.02,
            "kl/per_sequence": 3.0 * done,
            "entropy/per_sequence": 3.0 - 1.5 * done,
            "audit/accuracy_frozen": accuracy - 0.05,
            "audit/kappa_frozen": 2 * accuracy - 1.1,
            **(metrics(DETECTOR, detected[index - 1]) if index else {}),
        }
        if index in (0, rounds):
            row |= {f"coverage/pass_at_{2**i}": 1 - (1 - quality) ** (0.6 * 2**i) for i in range(7)}
        if index < rounds:
            row |= {
                "judge/accuracy": accuracy,
                "judge/tie_rate": 0.02,
                "judge/invalid_rate": 0.01,
                "judge/refused_rate": 0.0,
                "judge/same_slot_rate": 0.03,
                "gap/diversity_D": diversity,
                "gap/informativeness_I": informative,
                "gap/best_of_2": diversity * informative,
                "gap/update_loss_eps": diversity * informative - 0.03 * (1 - done),
                "pairs/judged": 3000,
                "tokens/judging": 24000,
                "tokens/sampling": 20000,
                "tokens/training": 30000,
                "cost/judging_usd": 0.4,
                "cost/human_minutes": 6.0,
                "text/unique_rate": 0.75 - 0.3 * done,
                "text/mean_length": 5.0,
                **{f"audit/{name}_on_policy": value for name, value in audit(accuracy).items()},
                **{f"time/{stage}_s": seconds for stage, seconds in STAGES.items()},
                "time/round_s": sum(STAGES.values()),
            }
        found.append(row)
    return found


def audit(accuracy: float) -> dict[str, float]:
    bias = {"b_quality": 8 * (accuracy - 0.5), "b_position": 0.1, "b_length": 0.4, "b_self": 0.8}
    return {"kappa": 2 * accuracy - 1, "ece": 0.1, "brier": 0.25 - 0.2 * (accuracy - 0.5), **bias}


# --- samples ------------------------------------------------------------------------------------------------------
def sums(prompts: int, author: str, samples: int = 4) -> list[Generation]:
    """Two-digit sums with answers, half of them right."""
    task = Addition(digits=2)
    noise = rng_for("synthetic samples", author)
    found = []
    for prompt in task.prompts("rounds", 0, prompts, 0):
        right = task.gold_answer(prompt)
        answers = [right if noise.random() < 0.5 else f"{noise.integers(1000):03d}" for _ in range(samples)]
        found.append(Generation(prompt, tuple(response(answer) for answer in answers)))
    return found


def write_round(
    run: Path,
    index: int,
    generations: Sequence[Generation],
    accuracy: float = 1.0,
    graded: bool = True,
    words: str | None = None,
) -> None:
    """The round's files, judged by somebody who prefers the better of two with this probability; the first of two that
    are not ``graded``. words: the judge's own."""
    store = RoundStore(run)
    task = Addition(digits=2) if graded else None
    noise = rng_for("synthetic verdicts", accuracy)
    store.stage(index, GENERATIONS, generations, list, len(generations))
    verdicts = [verdict for g in generations for verdict in judged(task, g, accuracy, noise)]
    verdicts = [replace(verdict, raw=words) for verdict in verdicts]
    store.stage(index, JUDGEMENTS, verdicts, list, max(1, len(verdicts)))


def judged(task: Addition | None, given: Generation, accuracy: float, noise: np.random.Generator) -> list[Judgement]:
    """Every pair of different answers."""
    found = []
    for i, one in enumerate(given.responses):
        for j in range(i + 1, len(given.responses)):
            other = given.responses[j]
            if one.text != other.text:
                ahead = task.quality(given.prompt, one.text) - task.quality(given.prompt, other.text) if task else 0.0
                sure = 0.9 if (ahead >= 0) == (noise.random() < accuracy) else 0.1
                found.append(judgement(Comparison(given.prompt, one.text, other.text), i, j, sure))
    return found


def asked(prompt: str, *answers: str) -> Generation:
    """A prompt of one's own; it is no sum."""
    return Generation(Prompt(f"made up/{prompt}", prompt), tuple(response(answer) for answer in answers))
