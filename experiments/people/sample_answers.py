"""Answers of a real language model to sums, in pairs of which one is right, and what the model itself thinks of them.

    python experiments/people/sample_answers.py MODEL     # a folder or a GGUF file of Qwen2.5-Coder-0.5B-Instruct

Writes ``answers.jsonl`` beside this file: 200 pairs, at most four of one sum. The truth is the task's; the AI judge is
the same model, by the likelihood of each answer (``judge=self``, ``reads: mean_logp``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.hf import HFModel
from rlaif_lab.records import Comparison, Generation
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.reasoning_gym import ReasoningGym

PAIRS, BATCH, MOST, SEED = 200, 8, 4, 0
ANSWERS = Path(__file__).parent / "answers.jsonl"
PARAMS = {"min_terms": 3, "max_terms": 3, "min_digits": 2, "max_digits": 2}


def contested(task: ReasoningGym, generation: Generation) -> Iterator[Comparison]:
    """Yield the right answer beside each different wrong one, the one that was sampled first as the first."""
    prompt = generation.prompt
    texts = list(dict.fromkeys(response.text.strip() for response in generation.responses))
    right = [text for text in texts if task.quality(prompt, text) == 1.0]
    for wrong in (text for text in texts if right and text and task.quality(prompt, text) < 1.0):
        one, other = sorted((right[0], wrong), key=texts.index)
        yield Comparison(prompt, one, other)


def main() -> None:
    task = ReasoningGym("chain_sum", 6, params=PARAMS, suffix=" Reply with the number only.", answer="last_number")
    model = HFModel(sys.argv[1], dtype="bfloat16", system="Calculate.").load(task)
    judge = ModelJudge("initial", "mean_logp", batch_size=16)
    judge.attach(JudgeContext(SEED, lambda _: model, lambda _: model, None, None))
    found: list[Comparison] = []
    asked = 0
    while len(found) < PAIRS:
        prompts = task.prompts("evaluation", asked, BATCH, SEED)
        config = SamplingConfig(k=8, batch_size=BATCH)
        drawn = sample(model, prompts, config, task.max_response_tokens, SEED, "answers", asked)
        asked += BATCH
        for generation in drawn:
            found += islice(contested(task, generation), MOST)
        print(f"{asked} prompts, {len(found)} pairs", flush=True)
    found = found[:PAIRS]
    rows = []
    for pair, (shown, turned) in zip(found, both_orders(judge, found), strict=True):
        assert shown.prob_first_wins is not None and turned.prob_first_wins is not None
        ai = (shown.prob_first_wins + 1.0 - turned.prob_first_wins) / 2
        right = "first" if task.quality(pair.prompt, pair.first) == 1.0 else "second"
        rows.append(
            {"id": pair.prompt.id, "prompt": pair.prompt.text, "first": pair.first, "second": pair.second}
            | {"right": right, "ai": round(ai, 6)}
        )
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    agreed = sum((row["ai"] > 0.5) == (row["right"] == "first") for row in rows)
    print(f"{asked} sums; the model prefers the right answer in {agreed} of {len(rows)} pairs")


if __name__ == "__main__":
    main()
