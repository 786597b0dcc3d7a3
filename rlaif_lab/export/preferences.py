"""A run's rounds as data sets in the standard preference format.

    <run>/export/
      preferences.{parquet,jsonl}   the training pairs: prompt, chosen, rejected, scores, provenance
      reward_data.{parquet,jsonl}   every preference the judge gave, those that were not trained on as well
      unpaired.parquet              the responses of those pairs, each with a label: chosen or rejected (for KTO)
      generations.parquet           every response of every round, with the reward it got
      ties.jsonl, failures.jsonl    verdicts that prefer nothing: never a label, kept with the judge's words
      revisions.parquet             rewritten responses (chosen) against the originals (rejected), where a run has them
      demonstrations.parquet        the judge's own answers as prompt and completion, where a run has them

``datasets.load_dataset`` and TRL's trainers read them as they are. A response that the length limit cut off is marked
(``finished``, ``chosen_finished``, ...): the lab teaches no end behind it, and whoever trains on the sets can do the
same.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif_lab.export.provenance import run_config, starting_point
from rlaif_lab.feedback.matrices import preference_matrices, win_rates
from rlaif_lab.records import FAILURES, Generation, Judgement, PreferencePair, Prompt, Revision, Score
from rlaif_lab.store.files import real_path, write_atomically
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import DEMONSTRATIONS, GENERATIONS, JUDGEMENTS, PAIRS, REVISIONS, SCORES, Stage

ExportRow = dict[str, Any]
Columns = Mapping[str, pa.DataType]

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PROVENANCE = {
    "run": pa.string(),
    "arm": pa.string(),
    "judge": pa.string(),
    "seed": pa.int64(),
    "round": pa.int32(),
    "prompt_id": pa.string(),
}
PAIR = {
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "score_chosen": pa.float64(),
    "score_rejected": pa.float64(),
    "prob_chosen_wins": pa.float64(),
    **PROVENANCE,
    "sample_chosen": pa.int32(),
    "sample_rejected": pa.int32(),
    "chosen_finished": pa.bool_(),
    "rejected_finished": pa.bool_(),
    "status": pa.string(),
}
UNPAIRED = {
    "prompt": MESSAGES,
    "completion": MESSAGES,
    "label": pa.bool_(),
    **PROVENANCE,
    "sample": pa.int32(),
    "finished": pa.bool_(),
}
BOTH_ORDERS = {"prob_chosen_wins_shown_first": pa.float64(), "prob_chosen_wins_shown_second": pa.float64()}
VERDICT = {
    "prompt": MESSAGES,
    "first": MESSAGES,
    "second": MESSAGES,
    "status": pa.string(),
    "raw": pa.string(),
    "prob_first_wins_shown_first": pa.float64(),
    "prob_first_wins_shown_second": pa.float64(),
    **PROVENANCE,
    "sample_first": pa.int32(),
    "sample_second": pa.int32(),
    "first_finished": pa.bool_(),
    "second_finished": pa.bool_(),
}
GENERATION = {
    "prompt": MESSAGES,
    "response": pa.string(),
    "score": pa.float64(),
    **PROVENANCE,
    "sample": pa.int32(),
    "finished": pa.bool_(),
    "token_ids": pa.list_(pa.int32()),
    "logps": pa.list_(pa.float32()),
}
REVISION = {
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "steps": pa.list_(pa.struct([("principle", pa.string()), ("critique", pa.string()), ("revision", pa.string())])),
    **PROVENANCE,
    "chosen_finished": pa.bool_(),
    "rejected_finished": pa.bool_(),
}
DEMONSTRATION = {"prompt": MESSAGES, "completion": MESSAGES, **PROVENANCE, "finished": pa.bool_()}


@dataclass(frozen=True)
class Origin:
    """Where every row of an export comes from."""

    run: str
    arm: str
    judge: str
    seed: int


@dataclass(frozen=True)
class StoredRound:
    """All that the store holds of one round (of a round that samples anew while it trains: of one segment); stages
    that the run has not, or not yet, are empty.

    scores: of every response, by (prompt id, sample): the judge's direct score if the run asked for it, else its win
    rate within the group of responses. None where the judge gave no verdict. finished: likewise, whether the policy
    ended it; else the length limit cut it off.
    """

    index: int
    generations: Sequence[Generation]
    judgements: Sequence[Judgement]
    pairs: Sequence[PreferencePair]
    revisions: Sequence[Revision]
    demonstrations: Sequence[Generation]
    scores: Mapping[tuple[str, int], float | None]
    finished: Mapping[tuple[str, int], bool]


def export_preferences(run_directory: Path) -> Path:
    """Write ``run_directory``/export/ anew from the run's stage files, each file whole or not at all; equal stage
    files give equal bytes. Returns the folder.

    A run is conversational, with lists of {role, content} for prompt, chosen and rejected, when its policy read its
    prompts as conversations; else those columns are plain text. Raises ValueError where there is no run or no
    round with generations.
    """
    config = run_config(run_directory)
    rounds = stored_rounds(RoundStore(run_directory))
    origin = Origin(real_path(run_directory).name, config["arm"], config["judge"]["name"], int(config["seed"]))
    policy = starting_point(config["policy"])
    chat = is_conversational(policy, rounds, run_directory / "policy")
    revised = config["pairing"].get("source") == "revisions"
    writer = RowWriter(origin, chat, policy.get("system"), revised)
    folder = run_directory / "export"

    def save(name: str, make: Callable[[StoredRound], Iterator[ExportRow]], columns: Columns, endings: str) -> None:
        rows = [row for r in rounds for row in make(r)]
        if "parquet" in endings:
            write_parquet(folder / f"{name}.parquet", rows, writer.schema(columns))
        if "jsonl" in endings:
            write_jsonl(folder / f"{name}.jsonl", rows)

    save("preferences", writer.preferences, PAIR, "parquet jsonl")
    save("reward_data", writer.reward_data, PAIR | BOTH_ORDERS, "parquet jsonl")
    save("unpaired", writer.unpaired, UNPAIRED, "parquet")
    save("generations", writer.generations, GENERATION, "parquet")
    save("ties", writer.ties, VERDICT, "jsonl")
    save("failures", writer.failures, VERDICT, "jsonl")
    if any(r.revisions for r in rounds):
        save("revisions", writer.revisions, REVISION, "parquet")
    if any(r.demonstrations for r in rounds):
        save("demonstrations", writer.demonstrations, DEMONSTRATION, "parquet")
    return folder


# --- reading a run ------------------------------------------------------------------------------------------------
def stored_rounds(store: RoundStore) -> list[StoredRound]:
    """Return every round that has its generations, in order, segment by segment. ValueError where there is none."""
    found = []
    for index, directory in numbered(store.directory, "round_"):
        for segment in (0, *(number for number, _ in numbered(directory, "sync_"))):
            stored = functools.partial(store.read_stage, index, segment=segment)
            if generations := stored(GENERATIONS):
                found.append(stored_round(index, generations, stored))
    if not found:
        raise ValueError(f"{str(store.directory)!r} holds no round with generations yet, so there is nothing to export")
    return found


def stored_round(index: int, generations: list[Generation], stored: Callable[[Stage[Any]], list[Any]]) -> StoredRound:
    judgements = stored(JUDGEMENTS)
    return StoredRound(
        index,
        generations,
        judgements,
        pairs=stored(PAIRS),
        revisions=stored(REVISIONS),
        demonstrations=stored(DEMONSTRATIONS),
        scores=scores_of(generations, judgements, stored(SCORES)),
        finished={(g.prompt.id, i): said.finished for g in generations for i, said in enumerate(g.responses)},
    )


def numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    """Return the folders named by prefix and number, by number."""
    found = ((path.name.removeprefix(prefix), path) for path in folder.glob(f"{prefix}*") if path.is_dir())
    return sorted((int(number), path) for number, path in found if number.isdecimal())


def scores_of(
    generations: Sequence[Generation], judgements: Sequence[Judgement], direct: Sequence[Score]
) -> dict[tuple[str, int], float | None]:
    """Return (prompt id, sample) -> direct score, or win rate where the run has no direct scores."""
    names = [(g.prompt.id, sample) for g in generations for sample in range(len(g.responses))]
    if direct:
        return {name: score.value for name, score in zip(names, direct, strict=True)}
    rates = win_rates(preference_matrices(generations, judgements)).reshape(-1).tolist()
    # A rate that is undefined, nan, equals nothing, itself included.
    return {name: rate if rate == rate else None for name, rate in zip(names, rates, strict=True)}


def is_conversational(config: Mapping[str, Any], rounds: Sequence[StoredRound], folder: Path) -> bool:
    """Return whether the policy read its prompts as conversations: by its config if that says so, else when they have
    turns or it has a chat template, in which it is shown a plain prompt as a single user turn."""
    if isinstance(config.get("chat"), bool):
        return bool(config["chat"])
    if any(g.prompt.turns for r in rounds for g in r.generations):
        return True
    # By its version transformers keeps a template in either file.
    settings = folder / "tokenizer_config.json"
    in_settings = settings.is_file() and bool(json.loads(settings.read_bytes()).get("chat_template"))
    return in_settings or (folder / "chat_template.jinja").is_file()


# --- rows -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RowWriter:
    """Records -> rows. conversational: prompts and responses as lists of messages instead of text. system: what the
    policy was told first, in a conversation that does not say so itself. pairs_are_revisions: the run trained on
    revisions against originals, not on what the judge chose."""

    origin: Origin
    conversational: bool
    system: str | None = None
    pairs_are_revisions: bool = False

    def preferences(self, r: StoredRound) -> Iterator[ExportRow]:
        """Return the training pairs."""
        return self._revised_pairs(r) if self.pairs_are_revisions else self._judged_pairs(r)

    def _revised_pairs(self, r: StoredRound) -> Iterator[ExportRow]:
        """Yield a row per revision that changed something; no judge compared them, so they have no probability."""
        for row in self.revisions(r):
            if row["chosen"] != row["rejected"]:
                yield {name: row.get(name) for name in PAIR} | {"status": "revised"}

    def _judged_pairs(self, r: StoredRound) -> Iterator[ExportRow]:
        texts = {g.prompt.id: [response.text for response in g.responses] for g in r.generations}
        for pair in r.pairs:
            said = texts[pair.prompt.id]
            yield self._pair(
                r,
                pair.prompt,
                (pair.sample_chosen, said[pair.sample_chosen]),
                (pair.sample_rejected, said[pair.sample_rejected]),
                pair.prob_chosen_wins,
            )

    def reward_data(self, r: StoredRound) -> Iterator[ExportRow]:
        """Return one row per judgement that prefers one of the two."""
        for j in r.judgements:
            if j.status != "ok":
                continue
            assert j.prob_first_wins is not None
            assert j.prob_first_wins_shown_first is not None and j.prob_first_wins_shown_second is not None
            first, second = (j.sample_first, j.comparison.first), (j.sample_second, j.comparison.second)
            if j.prob_first_wins > 0.5:
                row = self._pair(r, j.comparison.prompt, first, second, j.prob_first_wins)
                in_slot_one, in_slot_two = j.prob_first_wins_shown_first, j.prob_first_wins_shown_second
            else:  # the second won; it was in slot one when the first was in slot two
                row = self._pair(r, j.comparison.prompt, second, first, 1.0 - j.prob_first_wins)
                in_slot_one, in_slot_two = 1.0 - j.prob_first_wins_shown_second, 1.0 - j.prob_first_wins_shown_first
            yield row | {"prob_chosen_wins_shown_first": in_slot_one, "prob_chosen_wins_shown_second": in_slot_two}

    def unpaired(self, r: StoredRound) -> Iterator[ExportRow]:
        """Return the responses of the training pairs, each once for every label that it has."""
        seen: set[tuple[Any, ...]] = set()
        for row in self.preferences(r):
            for side, label in (("chosen", True), ("rejected", False)):
                found = {
                    "prompt": row["prompt"],
                    "completion": row[side],
                    "label": label,
                    **{name: row[name] for name in PROVENANCE},
                    "sample": row[f"sample_{side}"],
                    "finished": row[f"{side}_finished"],
                }
                # The text too: revisions do not have the number of a sample.
                key = (row["prompt_id"], str(row[side]), found["sample"], label)
                if key not in seen:
                    seen.add(key)
                    yield found

    def ties(self, r: StoredRound) -> Iterator[ExportRow]:
        return self._verdicts(r, ("tie",))

    def failures(self, r: StoredRound) -> Iterator[ExportRow]:
        return self._verdicts(r, FAILURES)

    def _verdicts(self, r: StoredRound, statuses: Sequence[str]) -> Iterator[ExportRow]:
        """Return the judgements with one of these statuses, as they are."""
        for j in r.judgements:
            if j.status in statuses:
                yield {
                    "prompt": self._prompt(j.comparison.prompt),
                    "first": self._response(j.comparison.first),
                    "second": self._response(j.comparison.second),
                    "status": j.status,
                    "raw": j.raw,
                    "prob_first_wins_shown_first": j.prob_first_wins_shown_first,
                    "prob_first_wins_shown_second": j.prob_first_wins_shown_second,
                    **self._provenance(r, j.comparison.prompt),
                    "sample_first": j.sample_first,
                    "sample_second": j.sample_second,
                    "first_finished": r.finished[j.comparison.prompt.id, j.sample_first],
                    "second_finished": r.finished[j.comparison.prompt.id, j.sample_second],
                }

    def generations(self, r: StoredRound) -> Iterator[ExportRow]:
        for g in r.generations:
            for sample, response in enumerate(g.responses):
                yield {
                    "prompt": self._prompt(g.prompt),
                    "response": response.text,
                    "score": r.scores[g.prompt.id, sample],
                    **self._provenance(r, g.prompt),
                    "sample": sample,
                    "finished": response.finished,
                    "token_ids": response.token_ids,
                    "logps": response.logps,
                }

    def revisions(self, r: StoredRound) -> Iterator[ExportRow]:
        for revision in r.revisions:
            yield {
                "prompt": self._prompt(revision.prompt),
                "chosen": self._response(revision.revised.text),
                "rejected": self._response(revision.original.text),
                "steps": [{"principle": p, "critique": c, "revision": t} for p, c, t in revision.steps],
                **self._provenance(r, revision.prompt),
                "chosen_finished": revision.revised.finished,
                "rejected_finished": revision.original.finished,
            }

    def demonstrations(self, r: StoredRound) -> Iterator[ExportRow]:
        for g in r.demonstrations:
            for response in g.responses:
                yield {
                    "prompt": self._prompt(g.prompt),
                    "completion": self._response(response.text),
                    **self._provenance(r, g.prompt),
                    "finished": response.finished,
                }

    def schema(self, columns: Columns) -> pa.Schema:
        """Return the columns and their types. Text is a list of messages only in a conversational export."""
        if self.conversational:
            return pa.schema(list(columns.items()))
        return pa.schema([(name, pa.string() if kind == MESSAGES else kind) for name, kind in columns.items()])

    def _pair(
        self, r: StoredRound, prompt: Prompt, chosen: tuple[int, str], rejected: tuple[int, str], probability: float
    ) -> ExportRow:
        """Return one row of the pairs. chosen, rejected: (sample, text)."""
        return {
            "prompt": self._prompt(prompt),
            "chosen": self._response(chosen[1]),
            "rejected": self._response(rejected[1]),
            "score_chosen": r.scores[prompt.id, chosen[0]],
            "score_rejected": r.scores[prompt.id, rejected[0]],
            "prob_chosen_wins": probability,
            **self._provenance(r, prompt),
            "sample_chosen": chosen[0],
            "sample_rejected": rejected[0],
            "chosen_finished": r.finished[prompt.id, chosen[0]],
            "rejected_finished": r.finished[prompt.id, rejected[0]],
            "status": "ok",  # what is tied or failed becomes no pair
        }

    def _provenance(self, r: StoredRound, prompt: Prompt) -> ExportRow:
        return asdict(self.origin) | {"round": r.index, "prompt_id": prompt.id}

    def _prompt(self, prompt: Prompt) -> Any:
        if not self.conversational:
            return prompt.text
        turns = prompt.turns or (("user", prompt.text),)
        if self.system and turns[0][0] != "system":
            turns = (("system", self.system), *turns)
        return [{"role": role, "content": said} for role, said in turns]

    def _response(self, text: str) -> Any:
        return [{"role": "assistant", "content": text}] if self.conversational else text


# --- files ----------------------------------------------------------------------------------------------------------
def write_parquet(path: Path, rows: Sequence[ExportRow], schema: pa.Schema) -> None:
    # In memory first, so that the file is there whole or not at all.
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        if rows:  # a row group without rows is one that ``datasets`` cannot read
            writer.write_table(pa.Table.from_pylist(list(rows), schema))
    write_atomically(path, sink.getvalue().to_pybytes())


def write_jsonl(path: Path, rows: Sequence[ExportRow]) -> None:
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    # A line may hold U+2028 and the like, which are not line ends in JSON Lines; only \n is.
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
