"""What a reward model learns from: judged pairs, and the same pairs grouped by their prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_lab.records import Generation, Judgement, Prompt, Response
from rlaif_lab.seeding import seed_for

Answer = tuple[str, bool]
"""A response as a reward model sees it: its text, and whether it was finished."""


@dataclass(frozen=True)
class RewardExample:
    """One comparison with a winner. prob_chosen_wins: in (0.5, 1], as judged."""

    prompt: Prompt
    chosen: Response
    rejected: Response
    prob_chosen_wins: float
    round_index: int


@dataclass(frozen=True)
class Group:
    """All of a prompt's pairs. answers: its different responses. pairs: (chosen, rejected, prob_chosen_wins), the
    first two as positions in ``answers``."""

    prompt: Prompt
    answers: tuple[Answer, ...]
    pairs: tuple[tuple[int, int, float], ...]


def examples_from(
    round_index: int, generations: Sequence[Generation], judgements: Sequence[Judgement]
) -> list[RewardExample]:
    """Return one per judgement that prefers one of the two: no ties, no failures."""
    responses = {g.prompt.id: g.responses for g in generations}
    examples = []
    for j in judgements:
        # A tie teaches nothing, and a failure says nothing.
        if j.prob_first_wins is None or j.prob_first_wins == 0.5:
            continue
        prompt = j.comparison.prompt
        first, second = (responses[prompt.id][sample] for sample in (j.sample_first, j.sample_second))
        if j.prob_first_wins > 0.5:
            examples.append(RewardExample(prompt, first, second, j.prob_first_wins, round_index))
        else:
            examples.append(RewardExample(prompt, second, first, 1.0 - j.prob_first_wins, round_index))
    return examples


def grouped(examples: Sequence[RewardExample]) -> list[Group]:
    """Return the examples by round and prompt, in order of appearance."""
    groups: dict[tuple[int, str], list[RewardExample]] = {}
    for example in examples:
        # By round too: answers of different rounds were never compared with each other.
        groups.setdefault((example.round_index, example.prompt.id), []).append(example)
    return [_group(members) for members in groups.values()]


def _group(examples: Sequence[RewardExample]) -> Group:
    position: dict[Answer, int] = {}
    pairs = []
    for example in examples:
        # With whether it was finished: one that was cut off is another answer.
        chosen, rejected = (
            position.setdefault((r.text, r.finished), len(position)) for r in (example.chosen, example.rejected)
        )
        pairs.append((chosen, rejected, example.prob_chosen_wins))
    return Group(examples[0].prompt, tuple(position), tuple(pairs))


def split_by_prompt(groups: Sequence[Group], share: float, seed: int) -> tuple[list[Group], list[Group]]:
    """Return (training, held out). A hash of the prompt decides, so a prompt is on the same side in every round."""
    # The prompt's identity decides: what is held out in one round is trained on in none.
    held_out = [seed_for(seed, "reward validation", g.prompt.id) / 2**63 < share for g in groups]
    return (
        [g for g, out in zip(groups, held_out, strict=True) if not out],
        [g for g, out in zip(groups, held_out, strict=True) if out],
    )
