"""Runs for people at a notebook: everything as lists of records, ready for a table or a plot.

`read_sweep` opens many runs from their folders and `read_wandb` from W&B, as what `rlaif-report` shows; `read_run`
opens one run's folder, round by round. Nothing is computed here that the report or the loop does not compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_lab.audit.judged import on_policy
from rlaif_lab.audit.measures import reliability
from rlaif_lab.export.provenance import run_config
from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.feedback.matrices import preference_matrices, win_rates
from rlaif_lab.learners.base import Learner
from rlaif_lab.metrics.quality import gold_qualities
from rlaif_lab.metrics.round import gap_metrics
from rlaif_lab.records import Floats, Generation, Judgement, PreferencePair, Revision
from rlaif_lab.report.arms import study
from rlaif_lab.report.load import Runs, load, run_folders
from rlaif_lab.report.sections.view import figure_of
from rlaif_lab.report.tables import Estimate
from rlaif_lab.report.verdict_tables import attribution_records
from rlaif_lab.report.viewing import viewed
from rlaif_lab.store.files import real_path
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.strangers import make
from rlaif_lab.store.tables import DEMONSTRATIONS, GENERATIONS, JUDGEMENTS, PAIRS, REVISIONS
from rlaif_lab.tasks.base import Task
from rlaif_lab.tasks.reading import readable_text, right_answer
from rlaif_lab.tracking.run_summary import RESULTS
from rlaif_lab.tracking.wandb_files import REPORT, WandbRun, as_runs, offline_runs
from rlaif_lab.tracking.wandb_online import online_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]
"""A row of a table: column -> value, None where undefined."""


@dataclass(frozen=True)
class Round:
    """One round as the run stored it, its first segment where it sampled several times.

    prob_beats: (N, k, k), as in feedback/matrices.py. qualities: (N, k) gold, nan throughout for a task without.
    metrics: its row of metrics.jsonl. examples: what the learner drew from it.
    """

    index: int
    generations: Sequence[Generation]
    judgements: Sequence[Judgement]
    pairs: Sequence[PreferencePair]
    prob_beats: Floats
    qualities: Floats
    metrics: Record
    examples: Sequence[Example]
    task: Task

    def responses(self, prompts: int = 3) -> list[Record]:
        """Return the samples of the first prompts: what was written, how likely it was to the policy, how the judge and
        gold see it. log_probability: nats, of the whole response; win_rate: against the prompt's other samples."""
        rates = win_rates(self.prob_beats)
        return [
            {
                "prompt": readable_text(self.task, g.prompt.text),
                "sample": i,
                "response": readable_text(self.task, r.text),
                "right answer": right_answer(self.task, g.prompt),
                "tokens": len(r.token_ids),
                "log_probability": float(sum(r.logps)),
                "win_rate": _known(rates[n, i]),
                "gold": _known(self.qualities[n, i]),
            }
            for n, g in enumerate(self.generations[:prompts])
            for i, r in enumerate(g.responses)
        ]

    def verdicts(self, prompts: int = 3) -> list[Record]:
        """Return the comparisons of the first prompts: in either order, averaged, and whether gold agrees."""
        rows = {g.prompt.id: n for n, g in enumerate(self.generations[:prompts])}
        found = []
        for j in self.judgements:
            n = rows.get(j.comparison.prompt.id)
            if n is None:
                continue
            # Above 0 where gold prefers the first; nan for a task without gold.
            better = self.qualities[n, j.sample_first] - self.qualities[n, j.sample_second]
            found.append(
                {
                    "prompt": readable_text(self.task, j.comparison.prompt.text),
                    "first": readable_text(self.task, j.comparison.first),
                    "second": readable_text(self.task, j.comparison.second),
                    "right answer": right_answer(self.task, j.comparison.prompt),
                    "first wins, shown first": j.prob_first_wins_shown_first,
                    "first wins, shown second": j.prob_first_wins_shown_second,
                    "first wins": j.prob_first_wins,
                    "status": j.status,
                    "gold says": "n/a" if np.isnan(better) else ("first", "equal", "second")[1 - int(np.sign(better))],
                }
            )
        return found

    def preference_pairs(self, count: int = 6) -> list[Record]:
        """Return the first training pairs, with the gold quality of either side."""
        rows = {g.prompt.id: n for n, g in enumerate(self.generations)}
        found = []
        for pair in self.pairs[:count]:
            n = rows[pair.prompt.id]
            texts = [r.text for r in self.generations[n].responses]
            found.append(
                {
                    "prompt": readable_text(self.task, pair.prompt.text),
                    "chosen": readable_text(self.task, texts[pair.sample_chosen]),
                    "rejected": readable_text(self.task, texts[pair.sample_rejected]),
                    "right answer": right_answer(self.task, pair.prompt),
                    "probability": pair.prob_chosen_wins,
                    "gold of chosen": _known(self.qualities[n, pair.sample_chosen]),
                    "gold of rejected": _known(self.qualities[n, pair.sample_rejected]),
                }
            )
        return found

    def training_signal(self, count: int = 2) -> list[Record]:
        """Return the first examples of the learner: each response with the number it is trained by (a reward, a weight,
        a probability: the learner says)."""
        return [
            {
                "prompt": readable_text(self.task, e.prompt.text),
                "response": readable_text(self.task, r.text),
                "signal": signal,
            }
            for e in self.examples[:count]
            for r, signal in zip(e.responses, e.signal, strict=True)
        ]

    def gap(self) -> list[Record]:
        """Return D, I, their product and the judge's accuracy, computed here from the stored samples and verdicts,
        beside what the run logged. Of a round with several segments the two differ: only the first is read."""
        found = gap_metrics(self.qualities, self.prob_beats)
        return [
            {"metric": name, "from the files": _known(value), "in metrics.jsonl": self.metrics.get(name)}
            for name, value in found.items()
        ]

    def calibration(self) -> list[Record]:
        """Return bins of equal mass: the probability that the judge stated, and how often it was right."""
        bins = reliability(on_policy(self.judgements, self.generations, self.qualities))
        return [{"stated": b.probability, "right": b.frequency, "comparisons": b.count} for b in bins]

    def metrics_under(self, *prefixes: str) -> list[Record]:
        """Return the round's metrics whose names start so."""
        return [{"metric": k, "value": v} for k, v in self.metrics.items() if k.startswith(prefixes)]


class SweepResults:
    """The arms of one or several experiments, over their seeds, as the report sees them.

    runs: what they are made of. name: what they were read from. baseline: the arm that the others are compared with;
    self by default.
    """

    def __init__(self, runs: Runs, name: str, baseline: str | None = None) -> None:
        self.view = viewed(study(runs, name), baseline)

    def arms(self) -> list[Record]:
        """Return one per arm, the best first: true quality in round 0 and at the end, and the gain, each with the
        limits of its 95 % interval over seeds (None with one seed); the paired difference to the baseline."""
        return [
            {
                "arm": row.label,
                "seeds": row.seeds,
                "rounds": row.rounds,
                **_interval("round 0", row.initial_sampled),
                **_interval("final", row.final_sampled),
                **_interval("gain", row.gain_sampled),
                **_interval(f"minus {self.view.baseline}", row.difference),
            }
            for row in self.view.rows
        ]

    def verdicts(self) -> list[Record]:
        """Return one per arm: whether it stopped, when, where its ceiling is (or why none is identified), and why."""
        return [
            {
                "arm": said.label,
                "verdict": said.state,
                "round": said.round,
                "ceiling": _known(said.saturation.ceiling.mean),
                "low": _known(said.saturation.ceiling.low),
                "high": _known(said.saturation.ceiling.high),
                "no ceiling because": said.saturation.reason,
                "why": said.why,
            }
            for said in self.view.verdicts
        ]

    def differences(self, quantity: str = "quality_sampled_final") -> list[Record]:
        """Return every pair of arms, paired by seed. quantity: as in differences.csv."""
        return [
            {
                "first": found.first,
                "minus": found.second,
                "difference": found.interval.mean,
                "low": _known(found.interval.low),
                "high": _known(found.interval.high),
                "seeds": found.seeds,
                "p, adjusted": _known(found.p_holm),
            }
            for found in self.view.compared
            if found.quantity == quantity
        ]

    def why(self) -> list[Record]:
        """Return gain = D x I - eps of each arm: in its first rounds, in its last, and the change."""
        return [
            {"arm": record["arm"], "cause": record["cause"], "quantity": record["quantity"]}
            | {name: record[name] for name in ("early_rounds", "early", "late_rounds", "late")}
            | {name: record[name] for name in ("change", "change_low", "change_high")}
            for said in self.view.verdicts
            for record in attribution_records(said)
        ]

    def curve(self, metric: str) -> list[Record]:
        """Return a long table: one record per arm, seed and round."""
        return [
            {"arm": arm.label, "seed": run.seed, "round": index, metric: _known(run.value(metric, index))}
            for arm in self.view.study.arms
            for run in arm.runs
            for index in sorted(run.rows)
        ]

    def metrics(self) -> list[str]:
        """Return the names that ``curve`` knows, sorted."""
        return sorted({name for run in self.view.study.runs for row in run.rows.values() for name in row})

    def figure(self, name: str) -> Figure:
        """Return a figure of the report. ValueError for one that there is not, or that has nothing to show."""
        if name not in self.view.groups:
            raise ValueError(f"no figure {name!r}; there is {', '.join(self.view.groups)}")
        return figure_of(self.view, name)

    def problems(self) -> list[Record]:
        """Return the runs that are not, or not wholly, in the numbers, and why."""
        return [{"run": problem.name, "reason": problem.reason} for problem in self.view.study.problems]


class RunFolder:
    """A run's folder. config: resolved, as it ran. rows: metrics.jsonl, one record per round.

    Task and learner are made from the folder's config if they are the lab's own, or of a package that you trust
    (``RLAIF_LAB_TRUST=package``)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = run_config(directory)
        self.store = RoundStore(directory)
        self.rows: list[Record] = self.store.rows()
        self.task = make(self.config.get("task"), Task, "task")  # type: ignore[type-abstract]
        self.learner = make(self.config.get("learner"), Learner, "learner")  # type: ignore[type-abstract]

    def round(self, index: int) -> Round:
        """Return a round's records. ValueError where the round was not run, or not to its end: the last one is
        evaluated only."""
        generations: list[Generation] = self.store.read_stage(index, GENERATIONS)
        if not generations:
            whole = [row["round"] for row in self.rows if self.store.read_stage(row["round"], GENERATIONS)]
            raise ValueError(f"round {index} of {str(self.directory)!r} has no samples; there is {whole}")
        judgements: list[Judgement] = self.store.read_stage(index, JUDGEMENTS)
        pairs: list[PreferencePair] = self.store.read_stage(index, PAIRS)
        prob_beats = preference_matrices(generations, judgements)
        return Round(
            index=index,
            generations=generations,
            judgements=judgements,
            pairs=pairs,
            prob_beats=prob_beats,
            qualities=gold_qualities(self.task, generations),
            task=self.task,
            metrics=next((row for row in self.rows if row["round"] == index), {}),
            examples=self._examples(index, generations, prob_beats, pairs),
        )

    def _examples(
        self, index: int, generations: list[Generation], prob_beats: Floats, pairs: list[PreferencePair]
    ) -> list[Example]:
        """Return the examples; none where the reward is not in the files: a reward model's, or a judge's scores."""
        if self.learner.reward in ("score", "reward_model"):
            return []
        revisions: list[Revision] = self.store.read_stage(index, REVISIONS)
        demonstrations: list[Generation] = self.store.read_stage(index, DEMONSTRATIONS)
        collected = {"pairs": pairs, "revisions": revisions, "demonstrations": demonstrations}
        revised = "pairs" in self.learner.needs and self.config["pairing"]["source"] == "revisions"
        return self.learner.examples(Feedback(index, generations, prob_beats, collected, revised))

    def curve(self, *metrics: str) -> list[Record]:
        """Return one record per round with these metrics."""
        return [{"round": row["round"], **{name: row.get(name) for name in metrics}} for row in self.rows]


def read_sweep(directory: str | Path, baseline: str | None = None) -> SweepResults:
    """Return all runs in a folder, at any depth. ValueError, one sentence, where there is none."""
    directory = real_path(Path(directory))
    return SweepResults(load(directory), directory.name, baseline)


def read_wandb(source: str | Path, baseline: str | None = None) -> SweepResults:
    """Return the same from W&B. source: a folder with offline runs at any depth, or ``entity/project`` or
    ``entity/project/group`` online."""
    return SweepResults(as_runs(wandb_runs(source)), str(source), baseline)


def wandb_runs(source: str | Path) -> list[WandbRun]:
    """Return the runs themselves, those of job type report among them. source: as in ``read_wandb``."""
    if Path(source).is_dir():
        return offline_runs(Path(source))
    entity, _, rest = str(source).partition("/")
    project, _, group = rest.partition("/")
    if not project or "/" in group:
        raise ValueError(f"neither a folder, nor entity/project or entity/project/group of W&B: {str(source)!r}")
    return online_runs(f"{entity}/{project}", group or None)


def results(runs: Sequence[WandbRun]) -> list[Record]:
    """Return what each run came to, from its summary; not of those of job type report."""
    return [
        {"group": run.group, "arm": run.job_type, "run": run.name, **{name: run.summary.get(name) for name in RESULTS}}
        for run in runs
        if run.job_type != REPORT
    ]


def table(runs: Sequence[WandbRun], name: str) -> list[Record]:
    """Return the rows of a logged table, of all runs that have it. Online, tables stay at W&B and there are none."""
    return [{"arm": run.job_type, "run": run.name, **row} for run in runs for row in run.tables.get(name, ())]


def contents(runs: Sequence[WandbRun]) -> list[Record]:
    """Return the names of the tables and media of each run."""
    return [
        {"arm": run.job_type, "run": run.name, "tables": ", ".join(run.tables), "media": ", ".join(run.media)}
        for run in runs
    ]


def read_run(directory: str | Path) -> RunFolder:
    """Return the folder of one run; of a sweep's folder, its first run by name. ValueError, one sentence, where there
    is none."""
    directory = Path(directory)
    if directory.is_dir() and not (directory / "config.json").is_file():
        # A run that was killed in its first round has a config, but no rows.
        directory = next((f for f in sorted(run_folders(directory)) if (f / "metrics.jsonl").is_file()), directory)
    return RunFolder(directory)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(name: str, given: Estimate | None) -> Record:
    """Return the mean and limits as three columns."""
    low, high = (given.interval.low, given.interval.high) if given else (np.nan, np.nan)
    mean = given.interval.mean if given else np.nan
    return {name: _known(mean), f"{name}, low": _known(low), f"{name}, high": _known(high)}
