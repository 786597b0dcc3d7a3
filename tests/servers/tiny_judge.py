"""A tiny instruct model that has learnt to answer a comparison with A or B (which one: by a coin), and its server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from chat_model import make_chat_model

from rlaif_lab.instructions.template import JudgeTemplate
from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.seeding import rng_for, seed_for
from servers.processes import free_port, serving

TEMPLATE = """
user: |
  {criteria} {prompt}
  {first}
  {second}
  A or B?
labels: [A, B]
"""
CRITERIA = "Which is better?"


def comparison(i: int) -> Comparison:
    rng = rng_for("tiny judge", i)
    a, b, one, two = rng.integers(10, 99, size=4).tolist()
    return Comparison(Prompt(str(i), f"{a}+{b}="), str(one), str(two))


def make_tiny_judge(folder: Path, steps: int = 60, rows: int = 8) -> Path:
    """Saves the model and ``template.yaml`` into ``folder``; some 20 seconds."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_chat_model(folder)
    (folder / "template.yaml").write_text(TEMPLATE)
    template = JudgeTemplate.load(str(folder / "template.yaml"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(steps):
        talks = []
        for i in range(step * rows, (step + 1) * rows):
            answer = "A" if seed_for("coin", i) % 2 else "B"
            messages = template.render(comparison(i), CRITERIA)
            talks.append([*messages, {"role": "assistant", "content": answer}])
        batch = tokenizer(tokenizer.apply_chat_template(talks, tokenize=False), padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        network(**batch, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    network.generation_config.do_sample = True
    network.save_pretrained(folder)
    return folder


@contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    """``transformers serve``, without the hub; yields its base URL. The model's name is its folder."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent / "hub"), "OMP_NUM_THREADS": "1"}
    with serving([*command, *options], port, "/health", log, offline) as url:
        yield url
