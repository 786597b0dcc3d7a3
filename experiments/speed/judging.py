"""How much sharing prefixes and batching save a prompted judge, and a cache a repeated run. Ratios within one run.

    python experiments/speed/judging.py --model FOLDER_OR_GGUF_OR_HUB_ID [--prompts 8] [--samples 4] [--tokens 48]

The model answers shipped open prompts, k samples each, and judges all pairs of them in both orders: one comparison at a
time with plain `transformers` calls (chat template, one forward pass), once as it is usually written and once with the
logits of the last place only, and through `judge_generations`. Verdicts have to agree to 1e-4, or there is no table.
Times are of the processor, which other jobs on the machine disturb less than the clock. Without --model: a tiny chat
model with random weights, made in place.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

import rlaif_lab
from rlaif_lab.judges.asking import both_orders, comparisons_of, judge_generations
from rlaif_lab.judges.prompted.constitution import ConstitutionJudge
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.judges.wrappers.cached import CachedJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Generation, Prompt, Verdict
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample

Orders = list[tuple[Verdict, Verdict]]


def load(path: str | None) -> LanguageModel:
    if path is not None:
        return HFModel(path, name=Path(path).name).load(cast(Any, None))  # no task decides anything here
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from chat_model import make_chat_model

    with tempfile.TemporaryDirectory() as folder:
        made = make_chat_model(Path(folder), width=256, layers=6, vocabulary=2000)
        return HFModel(str(made), name="tiny chat model").load(cast(Any, None))


def open_prompts(count: int) -> list[Prompt]:
    file = Path(rlaif_lab.__file__).parent / "data" / "open_prompts.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [Prompt(row["id"], row["prompt"]) for row in rows[:: len(rows) // count][:count]]


def pairs_of(generations: Sequence[Generation]) -> list[Comparison]:
    return [
        Comparison(g.prompt, g.responses[i].text, g.responses[j].text)
        for g in generations
        for i, j in comparisons_of(g)
    ]


def one_at_a_time(
    judge: PromptedJudge, model: LanguageModel, comparisons: Sequence[Comparison], **options: int
) -> list[float]:
    """Probability that the first wins, by nothing but transformers."""
    tokenizer = model.tokenizer
    a, b = (tokenizer(f"Verdict: {label}", add_special_tokens=False)["input_ids"][-1] for label in "AB")
    found = []
    for comparison in comparisons:
        principle = None
        if isinstance(judge, ConstitutionJudge):
            (drawn,) = judge.principles_for(comparison)
            principle = drawn.compare
        messages = judge.template.render(comparison, judge.criteria, principle)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(f"{text}Verdict:", add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model.network(input_ids=ids, **options).logits[0, -1].double()
        found.append(float(torch.sigmoid(logits[a] - logits[b])))
    return found


def seconds(work: Any) -> tuple[float, float, Any]:
    """Processor seconds, seconds by the clock, and the result."""
    cpu, clock = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - clock, result


def judged(judge: PromptedJudge, model: LanguageModel, generations: Sequence[Generation]) -> Orders:
    """One line of the table, and the verdicts."""
    comparisons = pairs_of(generations)
    both = [*comparisons, *(c.swapped() for c in comparisons)]
    judge.verdicts(comparisons[:2])
    ours, _, orders = seconds(lambda: both_orders(judge, comparisons))
    usual, _, expected = seconds(lambda: one_at_a_time(judge, model, both))
    lean, _, _ = seconds(lambda: one_at_a_time(judge, model, both, use_cache=False, logits_to_keep=1))
    found = [v.prob_first_wins for v in (*(first for first, _ in orders), *(second for _, second in orders))]
    difference = max(abs(p - q) for p, q in zip(found, expected, strict=True))
    assert difference < 1e-4, f"verdicts differ by up to {difference}"
    tokens = sum(v.tokens for order in orders for v in order)
    print(
        f"{judge.name:<14}{len(found):>9}{tokens:>8}{ours:>8.1f} s{usual:>8.1f} s{usual / ours:>6.2f} x"
        f"{lean:>8.1f} s{lean / ours:>6.2f} x{difference:>12.1e}",
        flush=True,
    )
    return orders


def cached(judge: PromptedJudge, context: JudgeContext, generations: Sequence[Generation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(2):  # a new judge each time, as in a new run
            again = CachedJudge(judge, f"{folder}/verdicts.sqlite")
            again.attach(context)
            cpu, _, judgements = seconds(lambda again=again: judge_generations(again, generations))
            times.append(cpu)
    print(
        f"\ncached: {times[0]:.1f} s, again {times[1]:.3f} s for {len(judgements)} pairs: {times[0] / times[1]:.0f} x"
    )


def positions(orders: Orders) -> None:
    """What the verdicts of this model are made of."""
    first = [v.prob_first_wins for order in orders for v in order]
    same_slot = sum((a.prob_first_wins > 0.5) == (b.prob_first_wins > 0.5) for a, b in orders)
    mass = [v.details["mass"] for order in orders for v in order]
    print(f"\nthe first shown wins {sum(p > 0.5 for p in first)} of {len(first)} presentations, ", end="")
    print(f"with a mean probability of {sum(first) / len(first):.3f};")
    print(f"the same slot wins both orders of {same_slot} of {len(orders)} pairs; ", end="")
    print(f"a label is said with a mean probability of {sum(mass) / len(mass):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load(arguments.model)
    context = JudgeContext(0, lambda weights: model, lambda source: model, None)
    config = SamplingConfig(k=arguments.samples, temperature=0.8, batch_size=32)
    generations = sample(model, open_prompts(arguments.prompts), config, arguments.tokens, "judging speed")
    lengths = [len(r.token_ids) for g in generations for r in g.responses]
    length = sum(lengths) / len(lengths)
    print(f"{model.name}: {arguments.prompts} prompts x {arguments.samples} samples of {length:.0f} tokens\n")
    print(
        f"{'judge':<14}{'verdicts':>9}{'tokens':>8}{'ours':>10}{'one by one':>18}{'last logits':>18}{'difference':>12}",
        flush=True,
    )
    prompted, constitution = PromptedJudge("live", minimum_mass=0.0), ConstitutionJudge("live", minimum_mass=0.0)
    for judge in (prompted, constitution):
        judge.attach(context)
    orders = judged(prompted, model, generations)
    judged(constitution, model, generations)
    positions(orders)
    cached(prompted, context, generations)


if __name__ == "__main__":
    main()
