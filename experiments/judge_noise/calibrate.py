"""Which share of misconceived prompts makes the judge as accurate as which rate of flips, on the pairs of round 0?

    python experiments/judge_noise/calibrate.py [--prompts 2048] [--seed 0]

Accuracy is ``judge/accuracy``: over pairs of unequal gold quality, a tie counting one half. Flips set it directly, 1 -
flip. A misconception can only err where the task has one and one of the two answers is what it makes of the problem, so
that its accuracy has a floor; and where it calls both answers wrong it errs by a tie, which is half an error.
"""

from __future__ import annotations

import argparse

import numpy as np

from rlaif_lab.feedback.matrices import preference_matrices
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.judges.oracle import NoisyOracleJudge
from rlaif_lab.metrics.gap import pairwise_gap
from rlaif_lab.metrics.quality import gold_qualities
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.sources import Organism
from rlaif_lab.records import Floats, Generation
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.arithmetic import Addition

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
FLIPS = (0.1, 0.2, 0.3)


def accuracy(task: Addition, generations: list[Generation], qualities: Floats, seed: int, **errors: float) -> float:
    judge = NoisyOracleJudge(**errors)
    judge.attach(JudgeContext(seed, None, None, task))  # type: ignore[arg-type]
    return pairwise_gap(qualities, preference_matrices(generations, judge_generations(judge, generations))).accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = Addition()
    policy = Organism(skill={"slip": 0.5, "misconception": 0.7}, split="policy_pretraining").load(task)
    prompts = task.prompts("rounds", 0, options.prompts, options.seed)
    limit = task.max_response_tokens
    generations = sample(policy, prompts, SamplingConfig(k=4), limit, options.seed, "rounds", 0)
    qualities = gold_qualities(task, generations)
    misled = np.array(
        [[task.misconceived_quality(g.prompt, r.text) for r in g.responses] for g in generations]
    )  # (N, k), 1 where it is what the misconception makes of the problem
    concerned = np.mean([task.misconceived_quality(p, task.gold_answer(p)) == 0 for p in prompts])
    print(f"{options.prompts} prompts, seed {options.seed}: sampled quality {qualities.mean():.3f}")
    print(f"the misconception changes the answer of {concerned:.3f} of the problems")
    print(f"{misled.mean():.3f} of answers are right under it")
    print("\nmisconception   accuracy   the same as flip")
    for share in SHARES:
        a = accuracy(task, generations, qualities, options.seed, misconception=share)
        print(f"{share:13.2f}   {a:8.3f}   {1 - a:.3f}")
    floor = accuracy(task, generations, qualities, options.seed, misconception=1.0)
    print("\n         flip   accuracy   misconception of that accuracy")
    for flip in (*(round(x * (1 - floor), 3) for x in (0.25, 0.5, 1.0)), *FLIPS):
        a = accuracy(task, generations, qualities, options.seed, flip=flip)
        share = round(flip / (1 - floor), 2)  # errors come in proportion to the share
        print(f"{flip:13.3f}   {a:8.3f}   {f'{share:.2f}' if share <= 1 else f'none: the floor is {floor:.3f}'}")


if __name__ == "__main__":
    main()
