"""Answers of a real language model to sums, in pairs of which one is right, and what the model itself thinks of them.

    python experiments/people/sample_answers.py MODEL     # a folder or a GGUF file of SmolLM2-135M-Instruct

Writes ``answers.jsonl`` beside this file: 200 pairs, at most four of one sum. The model goes on with a few solved sums,
without its chat template. The truth is arithmetic's; the AI judge is the same model, by the likelihood of each answer.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.hf import HFModel
from rlaif_lab.records import Comparison, Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.prompts_file import SHIPPED, PromptsFile

PAIRS, BATCH, MOST, SEED, TOKENS = 200, 20, 4, 0, 5
ANSWERS = Path(__file__).parent / "answers.jsonl"
SOLVED = "12 + 15 = 27\n40 + 31 = 71\n28 + 14 = 42\n"


def sums(start: int) -> list[tuple[int, int]]:
    """Return ``BATCH`` sums of two numbers of two digits."""
    drawn = rng_for(SEED, "sums", start).integers(10, 100, (BATCH, 2))
    return [(int(a), int(b)) for a, b in drawn]


def contested(terms: tuple[int, int], generation: Generation) -> Iterator[tuple[Comparison, str]]:
    """Yield the right answer beside each different wrong one, in the order in which they were sampled, and which of
    the two is right."""
    found = (re.match(r" *\d+(?=\n)", response.text) for response in generation.responses)
    texts = list(dict.fromkeys(match[0] for match in found if match))
    right = next((text for text in texts if int(text) == sum(terms)), None)
    for wrong in (text for text in texts if right is not None and int(text) != sum(terms)):
        assert right is not None
        one, other = sorted((right, wrong), key=texts.index)
        yield Comparison(generation.prompt, one, other), "first" if one == right else "second"


def main() -> None:
    task = PromptsFile(str(SHIPPED), TOKENS)
    model = HFModel(sys.argv[1], chat=False).load(task)
    judge = ModelJudge("initial", "mean_logp", batch_size=32)
    judge.attach(JudgeContext(SEED, lambda _: model, lambda _: model, None, None))
    found: list[tuple[Comparison, str]] = []
    asked = 0
    while len(found) < PAIRS:
        terms = sums(asked)
        prompts = [Prompt(f"{a} + {b}", f"{SOLVED}{a} + {b} =") for a, b in terms]
        drawn = sample(model, prompts, SamplingConfig(k=8, batch_size=BATCH), TOKENS, SEED, "answers", asked)
        asked += BATCH
        for pair, generation in zip(terms, drawn, strict=True):
            found += islice(contested(pair, generation), MOST)
        print(f"{asked} sums, {len(found)} pairs", flush=True)
    found = found[:PAIRS]
    rows, agreed = [], 0
    for (pair, right), (shown, turned) in zip(found, both_orders(judge, [pair for pair, _ in found]), strict=True):
        assert shown.prob_first_wins is not None and turned.prob_first_wins is not None
        ai = (shown.prob_first_wins + 1.0 - turned.prob_first_wins) / 2
        agreed += (ai > 0.5) == (right == "first")
        about = {"prompt": f"What is {pair.prompt.id}?", "first": pair.first.strip(), "second": pair.second.strip()}
        rows.append({**about, "right": right, "ai": round(ai, 6)})
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{asked} sums; the model prefers the right answer in {agreed} of {len(rows)} pairs")


if __name__ == "__main__":
    main()
