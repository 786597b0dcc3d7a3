"""What a run will take, from its config alone: memory in GB and minutes for each stage, before any weights load.

Memory counts what is certain (weights, gradients, AdamW's moments, cached keys) and what a step holds at its largest
(logits, activations). Time is 2 N T floating point operations for T tokens that are read or written by a model of N
parameters, 4 N T + 2 N' T where N' of them are trained, at a rate that is measured here or assumed of a GPU; a step of
decoding takes at least what reading all weights takes. Every response is taken to be as long as it may be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.judges.prompted.base import LocalJudge
from rlaif_lab.loop.parts import Chosen
from rlaif_lab.metrics.cost import forward_flops, training_flops
from rlaif_lab.models.size import Size, size_of

if TYPE_CHECKING:
    from rlaif_lab.judges.base import Judge
    from rlaif_lab.models.sources import ModelSource

GB = 1e9
TEMPLATE = 150
"""Tokens that a judge's instructions are taken to have, beside the prompt and the two responses."""


@dataclass(frozen=True)
class Speed:
    """flops: per second, of large matrix products. bytes: per second, read from memory. what: where that is from."""

    flops: float
    bytes: float
    what: str


H100 = Speed(4e14, 3e12, "an H100 at 40 % of its peak (400 TFLOP/s in bfloat16, 3.0 TB/s)")


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of a response, at most; and how many of each a round has."""

    prompt: int
    response: int
    prompts: int
    k: int
    evaluated: int
    samples: int
    measured: int


@dataclass(frozen=True)
class Estimate:
    """memory: bytes by what holds them. seconds: of a round, by stage. assumptions: what they rest on."""

    memory: Mapping[str, float]
    seconds: Mapping[str, float]
    rounds: int
    assumptions: tuple[str, ...]

    def __str__(self) -> str:
        total = sum(self.memory.values())
        lines = ["memory, at its largest (GB)"]
        lines += [f"  {what:36}{size / GB:9.2f}" for what, size in self.memory.items()]
        lines += [f"  {'together':36}{total / GB:9.2f}", "time (minutes a round)"]
        lines += [f"  {what:36}{seconds / 60:9.2f}" for what, seconds in self.seconds.items()]
        each = sum(self.seconds.values())
        lines += [f"  {'together':36}{each / 60:9.2f}", f"  {f'{self.rounds} rounds':36}{each * self.rounds / 60:9.1f}"]
        return "\n".join([*lines, "assumed", *(f"  {text}" for text in self.assumptions)])


def estimate(cfg: DictConfig, chosen: Chosen, speed: Speed | None = None) -> Estimate:
    """Return what the run of a config takes. speed: of the device; None: measured here, or assumed of a GPU."""
    policy = size_of(chosen.policy, chosen.task)
    judges = {role: judging_size(judge, chosen, policy) for role, judge in chosen.judges.items()}
    lengths = lengths_of(cfg, chosen)
    on_gpu = chosen.trainer.accelerator == "gpu"
    # A CPU is measured, a GPU's speed assumed: an estimate opens no GPU, and may concern another machine.
    speed = speed or (H100 if on_gpu else speed_here(policy.itemsize))
    pairs = "pairs" in chosen.learner.kinds()
    # A learner that is given pairs reads only the chosen and the rejected response, any other all k.
    n = 2 if pairs else lengths.k
    # A judge that is the policy itself, under whatever name, takes no memory of its own.
    memory = weights_and_optimiser(policy) | {
        f"{role}'s own weights": size.parameters * size.itemsize
        for role, (size, own) in judges.items()
        if size is not None and own
    }
    rows = rows_at_once(chosen.sampling.batch_size, lengths)
    memory["cached keys and values"] = cache_bytes(policy, rows, lengths)
    memory["logits"] = logits_bytes(policy, rows)
    memory["activations of a training step"] = activation_bytes(policy, chosen.trainer.batch_size, n, lengths)
    seconds = round_seconds(policy, lengths, speed, n=n, passes=chosen.trainer.passes)
    assumptions = [
        f"speed: {speed.what}",
        f"prompts of {lengths.prompt} tokens, the longest of some; responses of {lengths.response}, the most allowed",
        f"{n} responses to a prompt in a training step, {'one pair' if pairs else 'all of them'} of each prompt",
        "not in: temporary copies, fragmentation, libraries (about 1 GB), and the start (organisms, warm start, bank)",
    ]
    for role, judge in chosen.judges.items():
        size = judges[role][0]
        if size is None:
            assumptions.append(
                f"{role} {judge.name}: no model of this machine, or one that wraps others: no time for it"
            )
            continue
        seconds[f"judging ({role})"] = judging_seconds(judge, size, lengths, speed, trains=role == "judge")
    return Estimate(memory, seconds, cfg.rounds, tuple(assumptions))


# --- from a config ----------------------------------------------------------------------------------------------------
def judging_size(judge: Judge, chosen: Chosen, policy: Size) -> tuple[Size | None, bool]:
    """Return the size of a judge's model, and whether it has weights of its own; None for judges without one."""
    if not isinstance(judge, (ModelJudge, LocalJudge)):
        return None, False
    source: ModelSource | str = judge.weights
    if isinstance(source, str):
        return policy, False
    # By content, not by name: `make_round` loads one copy of equal weights.
    own = source.identity(chosen.task) != chosen.policy.identity(chosen.task)
    return size_of(source, chosen.task), own


def lengths_of(cfg: DictConfig, chosen: Chosen) -> Lengths:
    """Return how many prompts and tokens a round has; the prompts' own length is that of the longest of 16."""
    from rlaif_lab.models.fine_tuned import FineTuned
    from rlaif_lab.models.hf import HFModel
    from rlaif_lab.models.language_model import LanguageModel

    task, source = chosen.task, chosen.policy
    tokenizer = source.load_tokenizer(task)
    of = source.of if isinstance(source, FineTuned) else source
    told = {}
    if isinstance(of, HFModel):
        # A source that is fine-tuned first reads prompts as its starting model does.
        told = {"chat": of.chats(tokenizer), "system": of.system, "chat_options": dict(of.chat_options)}
    reader = LanguageModel(None, tokenizer, source.name, **told)  # type: ignore[arg-type]
    # The longest of a few stands for the round: encoding all prompts would take longer than the estimate should.
    some = task.prompts("rounds", 0, min(16, task.available("rounds")), cfg.seed)
    longest = max(map(len, reader.encode_prompts(some)))
    measured = cfg.evaluation.measured or cfg.evaluation.prompts
    return Lengths(
        prompt=longest,
        response=chosen.sampling.max_new_tokens or task.max_response_tokens,
        prompts=cfg.prompts_per_round,
        k=chosen.sampling.k,
        evaluated=cfg.evaluation.prompts,
        samples=cfg.evaluation.samples,
        measured=min(measured, cfg.evaluation.prompts),
    )


def rows_at_once(batch_size: int, lengths: Lengths) -> int:
    """Return how many responses are sampled together at most."""
    # As the sampler does it: all k responses of a prompt in one batch.
    training = max(1, batch_size // lengths.k) * lengths.k
    return max(1, min(training, lengths.prompts * lengths.k))


# --- memory -----------------------------------------------------------------------------------------------------------
def weights_and_optimiser(policy: Size) -> dict[str, float]:
    """Return bytes of what is held throughout. An adapter is float32 on weights that policy and base share; AdamW keeps
    two numbers for each that is trained, and its gradient is a third."""
    of_trained = 4 if policy.adapter else policy.itemsize
    extra = policy.trained * of_trained if policy.adapter else policy.parameters * policy.itemsize
    return {
        "policy": policy.parameters * policy.itemsize,
        "adapter" if policy.adapter else "frozen first policy": extra,
        "gradients": policy.trained * of_trained,
        "optimiser (AdamW)": 2 * policy.trained * of_trained,
    }


def cache_bytes(size: Size, rows: int, lengths: Lengths) -> float:
    """Return bytes of keys and values of all rows at the end of their responses."""
    return size.layers * size.keys * size.itemsize * rows * (lengths.prompt + lengths.response)


def logits_bytes(size: Size, rows: int) -> float:
    """Return bytes of one step's logits while a token is drawn (the logits, in float32 and as log-probabilities and
    probabilities; and these and their sums in float64), or, if that is more, of a chunk of a loss's, there and back."""
    from rlaif_lab.models.packed import LOGITS_AT_ONCE

    drawing = rows * size.vocabulary * (size.itemsize + 3 * 4 + 2 * 8)
    return max(drawing, 3 * 4 * LOGITS_AT_ONCE)


def activation_bytes(size: Size, batch_size: int, n: int, lengths: Lengths) -> float:
    """Return bytes of what the backward pass needs of the forward pass: per token and layer some 8 vectors of the
    body's width, 4 of the MLP's and the keys and values twice; where they are computed again, one vector for each layer
    and all of one layer."""
    tokens = min(batch_size, lengths.prompts) * (lengths.prompt + n * lengths.response)
    layer = 8 * size.width + 4 * size.inner + 2 * size.keys
    # With checkpointing each layer keeps its input, and one layer at a time is recomputed whole.
    kept = size.layers * size.width + layer if size.checkpointing else size.layers * layer
    return tokens * kept * size.itemsize


# --- time -------------------------------------------------------------------------------------------------------------
def sampling_seconds(size: Size, lengths: Lengths, speed: Speed, *, prompts: int, k: int) -> float:
    """Return seconds for k responses to each prompt: the prompts once, then token by token for all rows."""
    rows = prompts * k
    reading = forward_flops(size.parameters, prompts * lengths.prompt) / speed.flops
    # Decoding a token is bound by arithmetic or, with few rows, by reading all weights once: the longer time counts.
    step = max(forward_flops(size.parameters, rows) / speed.flops, size.parameters * size.itemsize / speed.bytes)
    return reading + lengths.response * step


def round_seconds(size: Size, lengths: Lengths, speed: Speed, *, n: int, passes: int) -> dict[str, float]:
    """Return seconds of a round's stages but for judging: what is sampled to train on and to evaluate (before and after
    each training), what is measured beside (the most likely answers, the base's, KL and the likelihood of right
    answers) and training."""
    sampled = sampling_seconds(size, lengths, speed, prompts=lengths.prompts, k=lengths.k)
    # Twice: the policy that training made, and the one before it on the same prompts (AHEAD).
    evaluated = 2 * sampling_seconds(size, lengths, speed, prompts=lengths.evaluated, k=lengths.samples)
    one_each = 2 * sampling_seconds(size, lengths, speed, prompts=lengths.measured, k=1)
    # Three passes: of the policy and of the base for the KL, and the right answers' likelihood.
    read = 3 * lengths.measured * (lengths.prompt + lengths.response)
    tokens = passes * lengths.prompts * (lengths.prompt + n * lengths.response)
    return {
        "sampling": sampled,
        "evaluation's samples": evaluated,
        "measured beside": one_each + forward_flops(size.parameters, read) / speed.flops,
        "training": training_flops(size.parameters, size.trained, tokens) / speed.flops,
    }


def judging_seconds(judge: Judge, size: Size, lengths: Lengths, speed: Speed, *, trains: bool) -> float:
    """Return seconds of a judge that reads likelihoods (every prompt once with all its responses), or that is shown all
    pairs in both orders; and of its opinion on the policy of now and of round 0."""
    # A held-out judge sees no training pairs, only the evaluation.
    responses = lengths.k if trains else 0
    if isinstance(judge, ModelJudge):
        tokens = (lengths.prompts if trains else 0) * (lengths.prompt + responses * lengths.response)
        tokens += lengths.measured * (lengths.prompt + 2 * lengths.response)
    else:
        # Each pair is shown in both orders.
        asked = 2 * (lengths.prompts * math.comb(responses, 2) + lengths.measured)
        tokens = asked * (lengths.prompt + 2 * lengths.response + TEMPLATE)
    return forward_flops(size.parameters, tokens) / speed.flops


def speed_here(itemsize: int) -> Speed:
    """Return what this processor does on one thread, from half a second of multiplying matrices and copying memory."""
    import torch

    # In the dtype that the weights would have: bfloat16 is far slower on most CPUs.
    dtype = torch.float32 if itemsize == 4 else torch.bfloat16
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, width = 256, 1024
        a, b = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
        # The quickest of several: other processes can only slow it down.
        product = min(_seconds(lambda: a @ b) for _ in range(5))
        block = torch.ones(2**24)  # float32: adding bfloat16 up is slower than reading it
        copied = min(_seconds(block.sum) for _ in range(3))
    finally:
        torch.set_num_threads(threads)
    # Two operations for each product that is added up; a model's passes are taken to reach half of that speed.
    flops = 2 * rows * width * width / product / 2
    read = block.numel() * block.element_size() / copied
    what = f"this processor on one thread, {flops / 1e9:.0f} GFLOP/s (half of what it multiplies matrices at)"
    return Speed(flops, read, f"{what} and {read / 1e9:.0f} GB/s")


def _seconds(action: object) -> float:
    assert callable(action)
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
