"""One round of a self-improvement loop, from top to bottom, with the library's pieces and nothing else.

    python recipes/one_round.py

A tiny policy that adds carelessly answers some prompts, a more careful model judges the answers two by two, and DPO
trains the policy on what the judge prefers. No config, no trainer, no files: those are what the lab adds
(rlaif_lab/loop/round.py is the same path with all of its choices). It takes some ten seconds on one CPU core.
"""

from __future__ import annotations

import torch

from rlaif_lab.feedback.base import Feedback
from rlaif_lab.feedback.matrices import preference_matrices
from rlaif_lab.feedback.pairing import Pairing, make_pairs
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.metrics.quality import gold_qualities
from rlaif_lab.metrics.round import gap_metrics
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.packed import response_logps
from rlaif_lab.models.sources import Organism
from rlaif_lab.records import Position, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.training.batches import Batching, Models, prepare

SEED, ROUND = 0, 0
PROMPTS, HELD_OUT = 512, 256
SAMPLING = SamplingConfig(k=4)
LEARNING_RATE = 3e-4


def main() -> tuple[float, float]:
    """Play one round. Return the policy's true quality on held-out prompts before it and after it."""
    torch.set_num_threads(1)

    # The task knows the right answers ("gold"). They measure; neither the judge nor the training sees them.
    task, engine = Addition(digits=3), Exact()

    # Two copies of the policy: the one that is trained, in train mode, and what it was at first, frozen.
    careless = Organism(name="policy", skill={"slip": 0.5, "misconception": 0.7}, split="policy_pretraining")
    policy, base = careless.load_trainable(task, SEED)

    # The judge learnt from other problems than the policy. It compares by how likely it finds either answer.
    careful = Organism(name="judge", skill={"slip": 0.1, "misconception": 0.05}, split="judge_pretraining", seed=1)
    judge = ModelJudge(careful)
    judge.attach(JudgeContext(SEED, policy=lambda weights: base, load=lambda source: source.load(task), gold=None))

    held_out = task.prompts("evaluation", 0, HELD_OUT, SEED)

    def quality(prompts: list[Prompt]) -> float:
        """Mean gold quality of samples at temperature 1. The same draws serve the policy before and after."""
        sampled = engine.generate(policy, prompts, SAMPLING, task.max_response_tokens, (SEED, "evaluation", ROUND))
        return float(gold_qualities(task, sampled).mean())

    before = quality(held_out)

    # prompts -> generations: k answers to each prompt, with the log-probability of every token.
    prompts = task.prompts("rounds", 0, PROMPTS, SEED)
    generations = engine.generate(policy, prompts, SAMPLING, task.max_response_tokens, (SEED, "rounds", ROUND))

    # generations -> judgements: every pair of different answers, in both orders, averaged.
    judgements = judge_generations(judge, generations)

    # judgements -> pairs: of each prompt, the answer that wins most against the one that wins least.
    beats = preference_matrices(generations, judgements)
    pairs = make_pairs(generations, beats, Pairing(), SEED, ROUND)

    # pairs -> training: batches in an order decided by the seed, and one optimiser step for each.
    learner = DPO()
    examples = learner.examples(Feedback(ROUND, generations, beats, {"pairs": pairs}))
    steps = prepare(
        Position(ROUND),
        examples,
        Models(policy, base),
        learner=learner,
        batching=Batching(batch_size=32),
        seed=SEED,
        fresh=True,
    )
    optimizer = torch.optim.AdamW(policy.network.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for number, step in enumerate(steps, start=1):
        for batch in step.batches:
            loss, logged = learner.loss(response_logps(policy.network, batch.packed), batch)
            (loss / len(step.batches)).backward()
        torch.nn.utils.clip_grad_norm_(policy.network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if number in (1, len(steps)):
            print(f"step {number:3d}: loss {float(loss.detach()):.3f}, margin {float(logged['reward_margin']):+.3f}")

    # training -> metrics: how well the judge told good from bad, and what came of it.
    accuracy = gap_metrics(gold_qualities(task, generations), beats)["judge/accuracy"]
    after = quality(held_out)
    print(f"{len(judgements)} judgements, right on {accuracy:.1%} of those where gold differs; {len(pairs)} pairs")
    print(f"true quality on held-out prompts: {before:.3f} before, {after:.3f} after")
    return before, after


if __name__ == "__main__":
    main()
