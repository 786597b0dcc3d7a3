"""What a model would say next after each of many prompts that begin alike, every shared beginning computed once.

A round's judge prompts are a tree: all share the instructions, those of one task prompt share it as well, and those
that show the same response first share that too. With four responses to a prompt of ordinary length, some three
quarters of the tokens are repetitions. The tree is walked level by level with a key-value cache, all branches of a
level in one batch::

    [ instructions ] -> [ prompt ] x prompts -> [ first response ] x firsts -> [ second response, question ] x all
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.models.passes import established, holds, longest_trial, passes, relative_error, trial_rows
from rlaif_lab.models.plain import row_logits
from rlaif_lab.sampling.decoding import next_logits

TokenIds = Sequence[int]
Path = tuple[Hashable, ...]


@dataclass(frozen=True)
class NextTokens:
    """logps: (N, keep, C), log-probability (nats) of each column's token after the last ``keep`` tokens of every
    sequence. top: (N,), the most likely token at the first of these places. tokens: how many were processed.
    """

    logps: Tensor
    top: Tensor
    tokens: int


def read_next(
    model: LanguageModel,
    sequences: Sequence[TokenIds],
    paths: Sequence[Path],
    columns: Sequence[int],
    keep: int = 1,
    batch_size: int = 12,
    share: bool = True,
) -> NextTokens:
    """Read what follows N sequences, given where each stands in the tree: equal ``paths[i][:d]`` says that they begin
    alike. (How far they do is looked up, so that a wrong path costs time and nothing else.) Paths are of equal length.

    keep: read the next token after this many tokens at the end of each sequence, not only after the last.
    batch_size: sequences computed at once; on a CPU more than these few is slower, since its caches overflow.
    share: False computes every sequence by itself, padded at its end; so are those of a model for which sharing was
        tried and is wrong (recurrent layers, sliding windows, ...).
    """
    columns_at = torch.tensor(list(columns))
    logps = torch.empty(len(sequences), keep, len(columns))
    top = torch.empty(len(sequences), dtype=torch.long)
    if not sequences:
        return NextTokens(logps, top, 0)
    # Batches of whole branches, each a tree of its own; the root, which all share, is computed once.
    batches = _batches(sequences, paths, batch_size)
    shared = _common(sequences, keep) if share else 0
    trees = [_levels([sequences[i] for i in rows], [paths[i] for i in rows], keep, shared) for rows in batches]
    with inference(model.network), out_of_memory("judge.batch_size"):
        # Sharing relies on the network's cache: it is tried, and without it every sequence is computed plainly.
        share = shared > 0 and all(_shares(model, shared + _padded_width(levels)) for levels in trees)
        root = _Root.of(model, sequences[0][:shared]) if share else None
        tokens = shared if share else 0
        for rows, levels in zip(batches, trees, strict=True):
            logits, count = (
                _walk(model, root, levels, keep) if root else _plain(model, [sequences[i] for i in rows], keep)
            )
            # float32 before the softmax: in bfloat16 neighbouring probabilities are equal.
            read = torch.log_softmax(logits.float(), dim=-1).cpu()
            at = torch.tensor(rows)
            # Back to the caller's order.
            logps[at], top[at] = read[..., columns_at], read[:, 0].argmax(-1)
            tokens += count
    return NextTokens(logps, top, tokens)


def _batches(sequences: Sequence[TokenIds], paths: Sequence[Path], size: int) -> list[list[int]]:
    """Return what is computed at once: whole branches together, up to ``size`` sequences, of similar length so that
    there is little padding. Only a branch of more than ``size`` is divided, by its own branches first."""
    branches: dict[Hashable, list[int]] = {}
    # By length, so that sequences of a batch have little padding.
    for i in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        branches.setdefault(paths[i][:1], []).append(i)
    batches: list[list[int]] = [[]]
    for branch in sorted(branches.values(), key=lambda rows: len(sequences[rows[-1]])):
        # Within a branch by path: leaves of one response stay together when a branch is divided.
        order = {path: n for n, path in enumerate(dict.fromkeys(paths[i] for i in branch))}
        rows = sorted(branch, key=lambda i: order[paths[i]])
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            # A new batch rather than a branch in two.
            if batches[-1] and len(batches[-1]) + len(piece) > size:
                batches.append([])
            batches[-1] += piece
    return batches


@dataclass(frozen=True)
class _Root:
    """What all sequences begin with, computed once. cache: its keys and values, one row."""

    length: int
    cache: Any

    @classmethod
    def of(cls, model: LanguageModel, ids: TokenIds) -> _Root:
        row = torch.tensor([list(ids)], device=model.device)
        # Nobody asks for its logits; one is the least that can be computed.
        return cls(len(ids), model.network(input_ids=row, use_cache=True, logits_to_keep=1).past_key_values)


@dataclass(frozen=True)
class _Level:
    """Tokens that each branch adds to its parent. parents: which row of the level above each branch goes on from."""

    segments: list[TokenIds]
    parents: list[int]


def _levels(sequences: Sequence[TokenIds], paths: Sequence[Path], keep: int, root: int) -> list[_Level]:
    """Return the tree of these sequences, above their first ``root`` tokens."""
    depth = len(paths[0])
    ends, row_of = [root] * len(sequences), [0] * len(sequences)
    levels = []
    # One level more than the path has parts: the last one is each sequence's own end.
    for d in range(1, depth + 2):
        members: dict[Hashable, list[int]] = {}
        for i, path in enumerate(paths):
            members.setdefault(i if d > depth else path[:d], []).append(i)
        segments, parents = [], []
        new_ends, new_rows = list(ends), list(row_of)
        # All members of a group begin the same way, so the first stands for the group.
        for row, group in enumerate(members.values()):
            start = ends[group[0]]
            end = len(sequences[group[0]]) if d > depth else _common([sequences[i] for i in group], keep)
            # A wrong path may make a level of no tokens: nothing is shared then, and nothing is wrong.
            end = max(end, start)
            segments.append(sequences[group[0]][start:end])
            parents.append(row_of[group[0]])
            for i in group:
                new_ends[i], new_rows[i] = end, row
        ends, row_of = new_ends, new_rows
        levels.append(_Level(segments, parents))
    return levels


def _padded_width(levels: Sequence[_Level]) -> int:
    return sum(max(map(len, level.segments)) for level in levels)


def _common(sequences: Sequence[TokenIds], keep: int) -> int:
    """Return how many tokens all of them begin with, ``keep`` tokens of each left over."""
    # The smallest and the largest in lexical order share what all share.
    low, high = min(map(list, sequences)), max(map(list, sequences))
    limit = min(map(len, sequences)) - keep
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b or i >= limit), limit)


def _walk(model: LanguageModel, root: _Root, levels: Sequence[_Level], keep: int) -> tuple[Tensor, int]:
    """Return logits after the last ``keep`` tokens of every sequence, (N, keep, V), and the tokens processed."""
    device = model.device
    # A copy: the root's own cache is needed for the next batch.
    cache = copy.deepcopy(root.cache)
    mask = torch.ones(1, root.length, dtype=torch.long, device=device)
    rows = [0]  # of the cache, for each branch of the level that was done last
    count = 0
    logits = None
    for number, level in enumerate(levels):
        rows = [rows[parent] for parent in level.parents]
        width = max(map(len, level.segments))
        # No branch adds anything here: this level costs no pass.
        if width == 0:
            continue
        # A row of the cache for each branch: its parent's, repeated.
        if rows != list(range(len(mask))):
            index = torch.tensor(rows, device=device)
            mask = mask[index]
            cache.batch_select_indices(index)
        # On the left, so that the last token of each row, whose logits are wanted, stands in the same column.
        ids, real = _left_padded(level.segments, model.pad_id)
        ids, real = ids.to(device), real.to(device)
        before = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, real], dim=1)
        output = model.network(
            input_ids=ids,
            attention_mask=mask,
            # Positions count real tokens; those of padding are masked, and 0 is any valid one.
            position_ids=(before + real.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep if number == len(levels) - 1 else 1,
        )
        cache, logits = output.past_key_values, output.logits
        rows = list(range(len(rows)))
        count += int(real.sum())
    assert logits is not None
    return logits[:, -keep:], count


def _plain(model: LanguageModel, sequences: Sequence[TokenIds], keep: int) -> tuple[Tensor, int]:
    """Return the same without sharing."""
    return next_logits(model.network, sequences, keep), sum(map(len, sequences))


def _left_padded(rows: Sequence[TokenIds], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return token ids and their mask (1: real), both (N, longest)."""
    width = max(map(len, rows))
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(real)


def _shares(model: LanguageModel, width: int) -> bool:
    """Return whether the tree's logits are those of plain passes for this model, up to this width (see
    models/passes.py)."""
    return established(model.network, "shared prefixes", width, lambda widest: _try_sharing(model, widest))


def _try_sharing(model: LanguageModel, widest: int) -> bool:
    """Try four sequences of different lengths: two branches of two leaves, padding between all of them."""
    network, longest = model.network, longest_trial(model.network, widest)
    rows = trial_rows(network, 7, longest)
    # Thirds: root, branches and leaves together stay within what is to be trusted.
    third = max(1, longest // 3)
    root, branches = rows[0][:third], [rows[1][:third], rows[2][: max(1, third // 2)]]
    leaves = [row[: max(1, length)] for row, length in zip(rows[3:], (third, third // 2, third - 1, 2), strict=True)]
    sequences = [[*root, *branches[i // 2], *leaf] for i, leaf in enumerate(leaves)]
    levels = [_Level([*branches], [0, 0]), _Level([*leaves], [0, 0, 1, 1])]
    right = row_logits(network, sequences, 0, together=False, keep=1)
    return holds(
        lambda: relative_error(_walk(model, _Root.of(model, root), levels, 1)[0], right),
        passes(network, widest).tolerance,
    )
