"""Examples -> the optimiser steps of a round, with the log-probabilities that a loss needs beside the policy's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlaif_lab.feedback.base import Example
from rlaif_lab.learners.base import Batch, Learner
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.models.precision import computed_dtype
from rlaif_lab.records import Position
from rlaif_lab.seeding import rng_for
from rlaif_lab.training.devices import over_rows


@dataclass(frozen=True)
class Step:
    """One optimiser step: gradients are accumulated over its batches. Without any, the round is over.

    Example: ``Step(3, (batch,))``, a step of the fourth round.
    """

    round_index: int
    batches: tuple[Batch, ...] = ()

    def to(self, device: torch.device) -> Step:
        return Step(self.round_index, tuple(batch.to(device) for batch in self.batches))


@dataclass(frozen=True)
class Batching:
    """batch_size: examples per forward pass. accumulate: batches per optimiser step. passes: over the examples."""

    batch_size: int = 128
    accumulate: int = 1
    passes: int = 1

    def per_step(self) -> int:
        return self.batch_size * self.accumulate

    def order(self, count: int, *identity: int | str) -> list[int]:
        """Return which example when: a permutation for each pass, decided by identity."""
        # A permutation for each pass: a pass sees every example once.
        return [int(i) for n in range(self.passes) for i in rng_for(*identity, n).permutation(count)]

    def steps(self, batches: Sequence[Batch], round_index: int) -> list[Step]:
        return [
            Step(round_index, tuple(batches[i : i + self.accumulate])) for i in range(0, len(batches), self.accumulate)
        ]


@dataclass(frozen=True)
class Models:
    """The weights that a round's training reads. base: what the policy was at first. critic: None without one."""

    policy: LanguageModel
    base: LanguageModel
    critic: Critic | None = None


def prepare(
    at: Position,
    examples: Sequence[Example],
    models: Models,
    *,
    learner: Learner,
    batching: Batching,
    seed: int,
    fresh: bool,
) -> list[Step]:
    """Return the steps of a segment, in an order decided by identity, with what the loss needs beside the policy's own
    log-probabilities.

    Args:
        fresh: the current policy sampled this round, not an earlier one.
    """
    size, policy = batching.batch_size, models.policy
    # Addressed by identity: a resumed segment has the same batches, in the same order.
    order = batching.order(len(examples), seed, "training order", at.index, at.segment)
    batches = make_batches(examples, order, size, policy)
    rows = [[examples[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    # Decoding and the packed forward round apart: in bfloat16 by more than a first step changes.
    coarse = fresh and computed_dtype(policy.network) != torch.float32
    known = [torch.tensor([e.sampled and not (coarse and e.round_index == at.index) for e in row]) for row in rows]
    batches = with_sampled(batches, known, policy)
    # The initial policy never sampled a later round: all of it is computed.
    if learner.needs_reference and learner.reference == "initial":
        batches = with_reference(batches, [True] * len(batches), models.base)
    # The reference is the policy at the start of the round: what was sampled by older weights needs computing.
    elif learner.needs_reference:
        stale = [not fresh or any(e.round_index != at.index for e in row) for row in rows]
        batches = with_reference(batches, stale, policy)
    # Before the first step, so that advantages of a round all rest on one critic.
    if models.critic is not None:
        batches = with_values(batches, models.critic)
    return batching.steps(batches, at.index)


def make_batches(
    examples: Sequence[Example], order: Sequence[int], batch_size: int, policy: LanguageModel
) -> list[Batch]:
    """Return padded batches in this order. Log-probabilities are those recorded while sampling, 0 where none were; the
    reference's are the same until ``with_reference``."""
    prompt_ids = policy.encode_prompts([e.prompt for e in examples])
    batches = []
    for start in range(0, len(order), batch_size):
        # A prompt is read once for all of its n responses.
        rows = [(examples[i], prompt_ids[i]) for i in order[start : start + batch_size]]
        packed = pack([ids for _, ids in rows], [[r.token_ids for r in e.responses] for e, _ in rows], policy.pad_id)
        length = packed.response_ids.shape[2]
        sampled = torch.tensor([[_padded(r.logps, length) for r in e.responses] for e, _ in rows])
        signal = torch.tensor([e.signal for e, _ in rows])
        finished = torch.tensor([[r.finished for r in e.responses] for e, _ in rows])
        # The reference is taken to be what sampled, at no cost, until `with_reference` says otherwise.
        batches.append(Batch(packed, sampled, sampled, signal, finished))
    return batches


def _padded(values: Sequence[float], length: int) -> tuple[float, ...]:
    return (*values, *(0.0,) * (length - len(values)))


def logps_under(model: LanguageModel, batches: Sequence[Batch]) -> list[Tensor]:
    """Return log-probabilities of every batch's tokens under a model: (B, n, R) each, on the CPU."""
    with inference(model.network):
        return [
            over_rows(lambda rows: response_logps(model.network, rows), batch.packed.to(model.device)).cpu()
            for batch in batches
        ]


def with_sampled(batches: Sequence[Batch], recorded: Sequence[Tensor], policy: LanguageModel) -> list[Batch]:
    """Fill in what was not recorded while sampling with the log-probabilities under the current policy.

    recorded: per batch, (B,) bool: whether its ``sampled_logps`` are the sampling weights' own.
    """
    # Only batches with a gap: the others cost no forward pass.
    todo = [i for i, known in enumerate(recorded) if not bool(known.all())]
    filled = list(batches)
    for i, logps in zip(todo, logps_under(policy, [batches[i] for i in todo]), strict=True):
        sampled = torch.where(recorded[i][:, None, None], batches[i].sampled_logps, logps)
        filled[i] = replace(batches[i], sampled_logps=sampled, reference_logps=sampled)
    return filled


def with_reference(batches: Sequence[Batch], stale: Sequence[bool], reference: LanguageModel) -> list[Batch]:
    """Return the reference policy's log-probabilities, computed for the batches that are stale: where the reference is
    not the policy that sampled."""
    todo = [i for i, outdated in enumerate(stale) if outdated]
    filled = list(batches)
    for i, logps in zip(todo, logps_under(reference, [batches[i] for i in todo]), strict=True):
        filled[i] = replace(batches[i], reference_logps=logps)
    return filled


def with_values(batches: Sequence[Batch], critic: Critic) -> list[Batch]:
    """Return the critic's values as it stands, by which advantages are estimated: PPO keeps them fixed while it
    trains."""
    device = next(critic.parameters()).device
    with inference(critic):
        values = [over_rows(critic.values, batch.packed.to(device)).cpu() for batch in batches]
    return [replace(batch, values=v) for batch, v in zip(batches, values, strict=True)]
