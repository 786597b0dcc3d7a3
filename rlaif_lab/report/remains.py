"""What is left of a run's quality, and why, from the samples and verdicts that it stored.

Of the last rounds all are read, up to `MOST_LAST`; of those before a few, evenly. In each the same number of prompts is
looked at, chosen by their identity, so that large runs take seconds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlaif_lab.plateau.cause import Left, SeedLeft, of_seed, what_is_left
from rlaif_lab.plateau.verdict import recent
from rlaif_lab.records import Prompt
from rlaif_lab.report.load import Run
from rlaif_lab.report.samples import Gold, spread
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.checksums import DamagedError, read_checked
from rlaif_lab.tasks.base import Task

MOST_LAST, MOST_BEFORE, MOST_PROMPTS = 6, 6, 192


def seed_left(run: Run, gold: Gold) -> SeedLeft | None:
    """Return what is left of a run; None without gold or stored rounds, or where one is damaged."""
    task = gold.task(run)
    if run.path is None or task is None or not task.has_gold:
        return None
    # In the last round nothing is judged: it is evaluated only.
    stored = [i for i in range(run.last_round) if (run.path / f"round_{i:03d}" / "judgements.parquet").is_file()]
    if not stored:
        return None
    count = min(recent(run.last_round), len(stored))
    last = spread(stored[-count:], MOST_LAST)
    before = spread(stored[:-count], MOST_BEFORE)
    try:
        rounds = [round_left(run.path / f"round_{i:03d}", task, gold) for i in [*before, *last]]
    except DamagedError as error:
        gold.note(f"What is left of {run.name} is not known: {error}")
        return None
    except Exception as error:  # Arrow's, and whatever comes of a table of something else
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        gold.note(f"What is left of {run.name} is not known: a stored round is damaged ({reason}).")
        return None
    begun, ended = (run.value("quality/sampled", i) for i in (run.last_round - count, run.last_round))
    return of_seed(rounds, len(last), (ended - begun) / count)


def misconceived(task: Task, prompt: Prompt, samples: Sequence[Mapping[str, object]]) -> list[float] | None:
    """Return each sample's quality under the task's misconception; None for a task that has none."""
    if type(task).misconceived_quality is Task.misconceived_quality:
        return None
    return [task.misconceived_quality(prompt, str(row["response"])) for row in samples]


def round_left(folder: Path, task: Task, gold: Gold) -> list[Left]:
    """Return what is left of each prompt of a round that is looked at."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def read(name: str, columns: Sequence[str]) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(folder / f"{name}.parquet")), columns=list(columns))

    def rows(table: pa.Table) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = table.filter(pc.is_in(table["prompt_id"], pa.array(ids))).to_pylist()
        return listed

    written = read("generations", ("prompt_id", "prompt", "sample", "response"))
    names = [str(name) for name in pc.unique(written["prompt_id"]).to_pylist()]
    # By identity: the same prompts for every run and in every report.
    ids = sorted(names, key=lambda name: seed_for("what is left", name))[:MOST_PROMPTS]
    generated: dict[str, list[dict[str, object]]] = defaultdict(list)
    for row in rows(written):
        generated[str(row["prompt_id"])].append(row)
    verdicts: dict[str, list[tuple[int, int, float | None]]] = defaultdict(list)
    for row in rows(read("judgements", ("prompt_id", "sample_first", "sample_second", "prob_first_wins"))):
        one, other, probability = (row[name] for name in ("sample_first", "sample_second", "prob_first_wins"))
        assert isinstance(one, int)
        assert isinstance(other, int)
        verdicts[str(row["prompt_id"])].append((one, other, probability if isinstance(probability, float) else None))
    found = []
    for name in ids:
        samples = sorted(generated[name], key=lambda row: int(str(row["sample"])))
        prompt = Prompt(name, str(samples[0]["prompt"]))
        quality = [gold.quality(task, prompt, str(row["response"])) for row in samples]
        known = [value for value in quality if value is not None and math.isfinite(value)]
        # Where gold cannot grade a sample, nothing is known of what is left.
        if len(known) == len(quality):
            found.append(what_is_left(known, verdicts[name], misconceived(task, prompt, samples)))
    return found
