"""How fast the loop is, as ratios within one run. Prints a table; times on a shared machine are not for quoting.

    python experiments/speed/round.py [--rounds 4]

1. Where a round's wall time goes, and the share that is neither sampling, judging, training nor evaluation.
2. The same stages with plain `transformers` calls (`generate`, one full forward per response): the ratio.
3. Peak memory of the run.
Uses the cached organisms of the default config, or builds them first.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from rlaif_lab.config import config_dir
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.loop.run import Run
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.sampling.exact import sample

COMPUTING = ("sampling", "judging", "training", "evaluation", "reference")


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def stage_shares(run: Run, wall: float) -> None:
    rows = [json.loads(line) for line in run.store.metrics_file.read_text().splitlines()]
    seconds = {stage: sum(row.get(f"time/{stage}_s") or 0.0 for row in rows) for stage in COMPUTING}
    rounds = sum(row.get("time/round_s") or 0.0 for row in rows)
    rest = rounds - sum(seconds.values())
    print(f"\n{'stage':<12}{'share of the rounds':>20}")
    for stage, value in seconds.items():
        print(f"{stage:<12}{value / rounds:>20.1%}")
    print(f"{'overhead':<12}{rest / rounds:>20.1%}")
    print(f"start-up (imports, config, models, W&B): {wall - rounds:.1f} s, once per run")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def against_plain_transformers(run: Run) -> None:
    model, task, sampling = run.round().parts.policy, run.chosen.task, run.chosen.sampling
    prompts = task.prompts("rounds", 0, 512, 0)
    limit, k = task.max_response_tokens, sampling.k
    encoded = model.tokenizer([p.text for p in prompts], return_tensors="pt", padding=True)
    network = model.network.eval()

    def plain_sampling() -> None:
        with torch.no_grad():
            for rows in torch.arange(len(prompts)).split(256):
                network.generate(
                    input_ids=encoded.input_ids[rows],
                    attention_mask=encoded.attention_mask[rows],
                    do_sample=True,
                    num_return_sequences=k,
                    max_new_tokens=limit,
                    top_k=0,
                )

    generations = sample(model, prompts, sampling, limit, 0)
    ids = model.encode_prompts([p.text for p in prompts])
    packed = pack(ids[:128], [[r.token_ids for r in g.responses] for g in generations[:128]], model.pad_id)
    rows, n, length = packed.response_ids.shape
    full = torch.cat([packed.prompt_ids.repeat_interleave(n, 0), packed.response_ids.view(rows * n, length)], 1)
    mask = torch.cat([packed.prompt_mask.repeat_interleave(n, 0), packed.response_mask.view(rows * n, length)], 1)

    def plain_step() -> None:
        network.zero_grad()
        logits = network(input_ids=full, attention_mask=mask.long(), use_cache=False).logits
        logps = logits[:, :-1].log_softmax(-1).gather(-1, full[:, 1:, None])
        logps[:, -length:].sum().backward()

    def packed_step() -> None:
        network.zero_grad()
        response_logps(network, packed).sum().backward()

    def plain_judging() -> None:
        with torch.no_grad():
            for g, prompt in zip(generations, ids, strict=True):
                for r in g.responses:
                    network(input_ids=torch.tensor([prompt + list(r.token_ids)]), use_cache=False)

    for parameter in network.parameters():
        parameter.requires_grad_(True)
    judge = run.chosen.judge
    pairs = {
        "sampling (vs generate)": (plain_sampling, lambda: sample(model, prompts, sampling, limit, 0)),
        "training step (vs one full sequence per response)": (plain_step, packed_step),
        "judging (vs one response at a time)": (
            plain_judging,
            lambda: judge_generations(judge, generations),
        ),
    }
    print(f"\n{'stage':<52}{'times faster':>14}")
    for name, (plain, ours) in pairs.items():
        print(f"{name:<52}{median_seconds(plain, 3) / median_seconds(ours):>14.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=[f"rounds={arguments.rounds}", "judge=self"])
        run = Run(cfg, Path(folder))
        run.fit()
        stage_shares(run, time.perf_counter() - started)
        against_plain_transformers(run)


if __name__ == "__main__":
    sys.exit(main())
