"""The records of each stage as tables, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from rlaif_lab.records import Comparison, Generation, Judgement, PreferencePair, Prompt, Response, Revision, Score

T = TypeVar("T")


@dataclass(frozen=True)
class Stage(Generic[T]):
    """How a stage's records become a table and back.

    sampled: one record an item, drawn from the policy, so that several ranks may share the drawing out; any other stage
    is computed by rank 0.
    """

    name: str
    encode: Callable[[Sequence[T]], pa.Table]
    decode: Callable[[pa.Table], list[T]]
    sampled: bool = False


def _to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)


def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _prompt_columns(prompts: Sequence[Prompt]) -> dict[str, pa.Array]:
    return {
        "prompt_id": pa.array([p.id for p in prompts], pa.string()),
        "prompt": pa.array([p.text for p in prompts], pa.string()),
        # Turns are missing in most prompts: null, not an empty list.
        "turns": pa.array([_to_json(p.turns) if p.turns else None for p in prompts], pa.string()),
    }


def _decode_prompts(table: pa.Table) -> list[Prompt]:
    """Return one per row; equal ones are one object."""
    known: dict[str, Prompt] = {}
    columns = (table[name].to_pylist() for name in ("prompt_id", "prompt", "turns"))
    for prompt_id, text, turns in zip(*columns, strict=True):
        if prompt_id not in known:
            known[prompt_id] = Prompt(prompt_id, text, tuple((role, said) for role, said in _from_json(turns) or ()))
    # One object for equal prompts: otherwise each of millions of rows would hold a copy of the text.
    return [known[prompt_id] for prompt_id in table["prompt_id"].to_pylist()]


def _response_columns(responses: Sequence[Response], prefix: str = "") -> dict[str, pa.Array]:
    return {
        f"{prefix}response": pa.array([r.text for r in responses], pa.string()),
        f"{prefix}token_ids": pa.array([r.token_ids for r in responses], pa.list_(pa.int32())),
        # float32, as they are computed; token ids fit into 32 bits.
        f"{prefix}logps": pa.array([r.logps for r in responses], pa.list_(pa.float32())),
        f"{prefix}finished": pa.array([r.finished for r in responses], pa.bool_()),
    }


def _decode_responses(table: pa.Table, prefix: str = "") -> list[Response]:
    names = (f"{prefix}{name}" for name in ("response", "token_ids", "logps", "finished"))
    columns = (table[name].to_pylist() for name in names)
    return [Response(t, tuple(ids), tuple(logps), end) for t, ids, logps, end in zip(*columns, strict=True)]


def _encode_generations(generations: Sequence[Generation]) -> pa.Table:
    # A row is a response; a generation is put together from those of its prompt.
    prompts = [g.prompt for g in generations for _ in g.responses]
    samples = pa.array([i for g in generations for i in range(len(g.responses))], pa.int32())
    responses = [r for g in generations for r in g.responses]
    return pa.table({**_prompt_columns(prompts), "sample": samples, **_response_columns(responses)})


def _decode_generations(table: pa.Table) -> list[Generation]:
    # Dictionaries keep the order of insertion, and so the order of the prompts.
    groups: dict[Prompt, list[Response]] = {}
    for prompt, response in zip(_decode_prompts(table), _decode_responses(table), strict=True):
        groups.setdefault(prompt, []).append(response)
    return [Generation(prompt, tuple(responses)) for prompt, responses in groups.items()]


def _encode_judgements(judgements: Sequence[Judgement]) -> pa.Table:
    columns = {
        **_prompt_columns([j.comparison.prompt for j in judgements]),
        "first": pa.array([j.comparison.first for j in judgements], pa.string()),
        "second": pa.array([j.comparison.second for j in judgements], pa.string()),
        "details": pa.array([_to_json(j.details) for j in judgements], pa.string()),
    }
    for name, kind in JUDGEMENT_COLUMNS.items():
        columns[name] = pa.array([getattr(j, name) for j in judgements], kind)
    return pa.table(columns)


JUDGEMENT_COLUMNS = {
    "sample_first": pa.int32(),
    "sample_second": pa.int32(),
    "prob_first_wins": pa.float64(),
    "prob_first_wins_shown_first": pa.float64(),
    "prob_first_wins_shown_second": pa.float64(),
    "status": pa.string(),
    "latency_s": pa.float64(),
    "tokens": pa.int32(),
    "raw": pa.string(),
    "cost_usd": pa.float64(),
}


def _decode_judgements(table: pa.Table) -> list[Judgement]:
    texts = zip(*(table[name].to_pylist() for name in ("first", "second", "details")), strict=True)
    values = zip(*(table[name].to_pylist() for name in JUDGEMENT_COLUMNS), strict=True)
    return [
        Judgement(
            comparison=Comparison(prompt, first, second),
            details=_from_json(details),
            **dict(zip(JUDGEMENT_COLUMNS, row, strict=True)),
        )
        for prompt, (first, second, details), row in zip(_decode_prompts(table), texts, values, strict=True)
    ]


def _encode_pairs(pairs: Sequence[PreferencePair]) -> pa.Table:
    return pa.table(
        {
            **_prompt_columns([p.prompt for p in pairs]),
            "sample_chosen": pa.array([p.sample_chosen for p in pairs], pa.int32()),
            "sample_rejected": pa.array([p.sample_rejected for p in pairs], pa.int32()),
            "prob_chosen_wins": pa.array([p.prob_chosen_wins for p in pairs], pa.float64()),
        }
    )


def _decode_pairs(table: pa.Table) -> list[PreferencePair]:
    columns = (table[name].to_pylist() for name in ("sample_chosen", "sample_rejected", "prob_chosen_wins"))
    return [PreferencePair(prompt, *row) for prompt, *row in zip(_decode_prompts(table), *columns, strict=True)]


def _encode_scores(scores: Sequence[Score]) -> pa.Table:
    columns = {
        name: pa.array([getattr(s, name) for s in scores], kind)
        for name, kind in (
            ("value", pa.float64()),
            ("status", pa.string()),
            ("latency_s", pa.float64()),
            ("tokens", pa.int32()),
            ("raw", pa.string()),
            ("cost_usd", pa.float64()),
        )
    }
    return pa.table({**columns, "details": pa.array([_to_json(s.details) for s in scores], pa.string())})


def _decode_scores(table: pa.Table) -> list[Score]:
    return [Score(**{**row, "details": _from_json(row["details"])}) for row in table.to_pylist()]


def _encode_revisions(revisions: Sequence[Revision]) -> pa.Table:
    return pa.table(
        {
            **_prompt_columns([r.prompt for r in revisions]),
            **_response_columns([r.original for r in revisions], "original_"),
            "steps": pa.array([_to_json(r.steps) for r in revisions], pa.string()),
            **_response_columns([r.revised for r in revisions], "revised_"),
        }
    )


def _decode_revisions(table: pa.Table) -> list[Revision]:
    columns = zip(
        _decode_prompts(table),
        _decode_responses(table, "original_"),
        table["steps"].to_pylist(),
        _decode_responses(table, "revised_"),
        strict=True,
    )
    return [
        Revision(prompt, original, tuple((p, c, t) for p, c, t in _from_json(steps)), revised)
        for prompt, original, steps, revised in columns
    ]


GENERATIONS = Stage("generations", _encode_generations, _decode_generations, sampled=True)


JUDGEMENTS = Stage("judgements", _encode_judgements, _decode_judgements)


PAIRS = Stage("pairs", _encode_pairs, _decode_pairs)


SCORES = Stage("scores", _encode_scores, _decode_scores)
"""The judge's direct score of every response, in the order of the generations and their samples."""


DEMONSTRATIONS = Stage("demonstrations", _encode_generations, _decode_generations)
"""The judge's own answers to the round's prompts, for a learner that is distilled from them."""


REVISIONS = Stage("revisions", _encode_revisions, _decode_revisions, sampled=True)


EVALUATED = Stage("evaluated", _encode_generations, _decode_generations, sampled=True)
"""The policy's samples on this round's evaluation prompts."""


AHEAD = Stage("ahead", _encode_generations, _decode_generations, sampled=True)
"""The policy's samples on the *next* round's evaluation prompts: before the training that lies between."""


COVERAGE = Stage("coverage", _encode_generations, _decode_generations, sampled=True)
"""Many samples of a few evaluation prompts, in round 0 and after the last."""


BASELINE = Stage("baseline", _encode_generations, _decode_generations, sampled=True)
"""The untrained policy's answers to this round's evaluation prompts, one each."""


HUMAN_SET = Stage("human_set", _encode_generations, _decode_generations, sampled=True)
"""The policy's answers to the prompts that people measure all arms of a sweep by, one each."""
