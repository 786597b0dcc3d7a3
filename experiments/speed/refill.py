"""What it gains that rows which have ended make room for the next prompts, on responses of ragged lengths.

    python experiments/speed/refill.py [--model SmolLM2-135M-Instruct] [--repeats 2] [--csv FILE]

Without --model: a random model of the shape of Qwen2.5-0.5B. Twelve prompts of 8 to 40 tokens, two samples each of up
to 32 tokens, eight rows at a time; every 24th token of the vocabulary ends a response, so that lengths are ragged
whatever the model says. Seconds of the processor (one thread), with and without refill in turns, the least of each; the
tokens must be the same.
"""

from __future__ import annotations

import argparse
import csv
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation, Prompt
from rlaif_lab.sampling import decoding
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.arithmetic import Addition

CONFIG = SamplingConfig(k=2, batch_size=8)
LIMIT, ENDS, PROMPTS = 32, 24, 12


class NoRefill(decoding.CachedDecoder):
    """The same without refill: a batch goes on until its longest response ends."""

    refills = False


def loaded(path: str | None, tokenizer_of: str) -> LanguageModel:
    """Return a model, in float32; random of half a billion weights without a path."""
    model = HFModel(path=path or tokenizer_of, dtype="float32", chat=False).load(Addition())
    if path is None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        config = Qwen2Config(  # that of Qwen2.5-0.5B
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
        torch.manual_seed(0)
        model = replace(model, network=Qwen2ForCausalLM(config).eval(), name="random 0.5B")
    vocabulary = model.network.get_input_embeddings().num_embeddings
    model.__dict__["eos_ids"] = tuple(range(0, vocabulary, ENDS))  # in the place of the property's value
    return model


def prompts() -> list[Prompt]:
    """Return prompts of ragged lengths."""
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "and",
        "runs",
        "along",
        "the",
        "river",
    ]
    texts = [" ".join((words * 4)[i : i + 8 + 7 * i % 33]) for i in range(PROMPTS)]
    return [Prompt(f"prompt {i}", text) for i, text in enumerate(texts)]


def timed(model: LanguageModel, decoder: Any) -> tuple[float, list[Generation]]:
    """Return the seconds, and what was sampled, with this class of decoders."""
    fastest = decoding.fastest
    decoding.fastest = lambda network, width: decoder
    try:
        begun = time.process_time()
        found = sample(model, prompts(), CONFIG, LIMIT, 0, "refill")
        return time.process_time() - begun, found
    finally:
        decoding.fastest = fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a hub name; without it a random one is made")
    parser.add_argument("--tokenizer-of", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="for the random model")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="file to append the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = loaded(arguments.model, arguments.tokenizer_of)
    sides = {"without": NoRefill, "with": decoding.CachedDecoder}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, list[tuple[int, ...]]] = {}
    for repeat in range(arguments.repeats):
        for name in sorted(sides, reverse=bool(repeat % 2)):
            spent, found = timed(model, sides[name])
            seconds[name].append(spent)
            said[name] = [response.token_ids for generation in found for response in generation.responses]
            print(f"{name} refill: {spent:.1f} s", flush=True)
    equal = sum(one == other for one, other in zip(said["with"], said["without"], strict=True))
    lengths = [len(ids) for ids in said["with"]]
    slow, fast = min(seconds["without"]), min(seconds["with"])
    row = [
        (arguments.model and Path(arguments.model).name) or model.name,
        f"{sum(lengths) / len(lengths):.1f}",
        max(lengths),
        f"{slow:.1f}",
        f"{fast:.1f}",
        f"{slow / fast:.2f}",
        f"{equal} of {len(lengths)}",
    ]
    header = ["model", "mean length", "longest", "without", "with", "times faster", "responses equal"]
    print(*zip(header, row, strict=True), sep="\n")
    if arguments.csv:
        begun = not arguments.csv.exists()
        with arguments.csv.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([*([header] if begun else []), row])


if __name__ == "__main__":
    main()
