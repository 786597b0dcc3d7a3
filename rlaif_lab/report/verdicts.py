"""Everything that is said about an arm: verdict, ceiling, why, and how it compares.

Pure but for `changes`, which reads the per-prompt changes of the runs that have them. Tables, page and W&B read the
record made here; what each number means stands with its type in rlaif_lab/plateau/.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_lab.metrics.labellers import is_simulated, labellers
from rlaif_lab.plateau import detector
from rlaif_lab.plateau.attribution import Attribution, Factors, attribution
from rlaif_lab.plateau.cause import Remains, SeedLeft, remains
from rlaif_lab.plateau.comparisons import (
    Difference,
    GapRecovered,
    all_differences,
    gap_recovered,
    stratified_bootstrap,
)
from rlaif_lab.plateau.detector import FRESH, STATES, Detector
from rlaif_lab.plateau.families import Families, Seen, compare
from rlaif_lab.plateau.hacked import Hacked, hacked
from rlaif_lab.plateau.saturation import Curve, Saturation, saturation
from rlaif_lab.plateau.trend import Trend, TrendMeasure, measured, outlook, trend, untested
from rlaif_lab.plateau.verdict import NO_DETECTOR, Logged, TraceVerdict, averaged, pooled, verdict
from rlaif_lab.records import Floats
from rlaif_lab.report.arms import Arm, Study, baseline_for
from rlaif_lab.report.load import Run
from rlaif_lab.report.null_drift import NullDrift, null_drift
from rlaif_lab.report.remains import seed_left
from rlaif_lab.report.samples import Gold
from rlaif_lab.statistics.intervals import Interval, paired_difference

QUALITY, GREEDY, KL = "quality/sampled", "quality/greedy", "kl/per_sequence"
WIN_RATE = "judge/win_rate_vs_round_0"
MEASURED: dict[TrendMeasure, str] = {"heldout_judge": "held-out judge's win rate", "people": "people's win rate"}
"""What a trend rests on where there is no gold quality."""
REPEATED = "detector/repeated_prompts"
CEILING = "oracle"
"""Name of the arm that stands for PGR = 1."""
PROCESS_NAMES: dict[detector.State, str] = {"plateaued": "plateau", "improving": "improving", "degrading": "degrading"}
"""As in ``detector/*_evidence``."""


@dataclass(frozen=True)
class ArmVerdict:
    """One arm, over its whole runs.

    label: the arm's. seeds: runs that are whole (to their last round, or stopped on a plateau).
    trend: whether it still gains delta a round; state, round and headline are its. votes: what the trend of each run by
    itself comes to -> number of runs. verdict: what the e-detector says about single rounds, with its traces.
    saturation: the ceiling, or why there is none.
    families: None below 2 seeds. attribution: D, I and eps, None without gold. remains: what is left and why, None
    without gold, or where no run stored its samples and verdicts. pgr: None for floor and ceiling themselves, and where
    either is missing. hacked: what shows that the judge is over-optimised; None where nothing does. null_drift:
    what the null arm moves a round. repeated: largest share of a round's evaluation prompts that had been asked before.
    simulated: whether those who stand for people are simulated.
    """

    label: str
    seeds: int
    trend: Trend
    votes: Mapping[str, int]
    verdict: TraceVerdict
    saturation: Saturation
    families: Families | None
    attribution: Attribution | None
    remains: Remains | None
    pgr: GapRecovered | None
    hacked: Hacked | None = None
    null_drift: NullDrift | None = None
    repeated: float = 0.0
    simulated: bool = False

    @property
    def state(self) -> str:
        return self.trend.state

    @property
    def round(self) -> int | None:
        return self.trend.round

    @property
    def headline(self) -> str:
        """Return the verdict in a few words, such as ``plateaued at round 12, ceiling 0.615 (0.600 to 0.630)``."""
        text = f"{self.state} ({self.trend.reason})"
        if self.state == "plateaued":
            text = f"plateaued at round {self.round}"
        elif self.round is not None:
            text = f"{self.state} (alarm in round {self.round})"
        if self.trend.measure != "gold":
            who = "simulated " if self.simulated and self.trend.measure == "people" else ""
            text += f", by the {who}{MEASURED[self.trend.measure]}"
        if self.saturation.identified:
            text += f", ceiling {limits(self.saturation.ceiling)}"
        if self.repeated > FRESH:
            text += f", with alpha void: up to {self.repeated:.0%} of a round's evaluation prompts were asked before"
        return text if self.hacked is None else f"{text}; {self.hacked.sentence}"

    @property
    def short(self) -> str:
        """Return the verdict for a column: ``plateaued at 12``."""
        text = self.state if self.round is None else f"{self.state} at {self.round}"
        return text if self.hacked is None else f"{text}, hacked"

    @property
    def outlook(self) -> str:
        """Return what would decide an undecided arm, and what more rounds would bring, or why that is not known."""
        undecided = outlook(self.trend)
        drift = self.null_drift.sentence(self.saturation.delta) if self.null_drift else ""
        return "; ".join(filter(None, (undecided, self.prospect, drift)))

    @property
    def prospect(self) -> str:
        """Return what more rounds would bring, or why that is not known: a clause or two."""
        fitted = self.saturation
        if not fitted.identified:
            gain = (
                f"; the last rounds gain {limits(fitted.last_gain, '+.4f')} each"
                if math.isfinite(fitted.last_gain.mean)
                else ""
            )
            return f"ceiling not identified: {fitted.reason}{gain}"
        shown = "every curve not excluded promises less" if fitted.exhausted else "not shown to be less"
        return (
            f"the ceiling holds {fitted.condition}; still to come: {limits(fitted.remaining, '+.4f')}, {shown} than "
            f"delta = {fitted.delta:g}"
        )

    @property
    def cause(self) -> str:
        return self.remains.cause if self.remains else "unknown"

    @property
    def why(self) -> str:
        """Return why it does not improve, or how far that is known: a sentence."""
        if self.remains:
            return self.remains.sentence
        if self.attribution:
            return f"cause not known without gold's view of the stored samples; {self.attribution.sentence}"
        return "not known: what is left needs gold quality in every round"


def limits(interval: Interval, form: str = ".3f") -> str:
    """Return ``0.615 (0.600 to 0.630)``."""
    text = f"{interval.mean:{form}}"
    return text if math.isnan(interval.low) else f"{text} ({interval.low:{form}} to {interval.high:{form}})"


def arm_verdicts(
    study: Study,
    baseline: str = "self",
    floor: str | None = None,
    *,
    delta: float | None = None,
    null: str | None = None,
) -> list[ArmVerdict]:
    """Return one per arm, in the order of ``study.arms``.

    delta: gain per round, in place of the runs' own. floor: the arm that PGR counts from, name or label; the baseline
    by default. Its ceiling is the arm ``oracle``. null: the arm whose drift is told beside delta, ``random`` by
    default. ValueError for a changes.json that cannot be understood.
    """
    found, gold = [], Gold()
    for arm in study.arms:
        least, most = baseline_for(arm, study.arms, floor or baseline), baseline_for(arm, study.arms, CEILING)
        pgr = None
        if least and most and least is not most:
            floor_end, ceiling_end = ((end.label, final(end, QUALITY)) for end in (least, most))
            pgr = gap_recovered(final(arm, QUALITY), floor_end, ceiling_end)
        found.append(replace(_arm_verdict(arm, pgr, delta, gold), null_drift=null_drift(arm, study.arms, null)))
    return found


def run_verdict(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, float | None]], path: Path | None = None
) -> ArmVerdict:
    """Return the same of a single run that has come to its end, from its config and the rows of metrics.jsonl.

    path: its folder, if what is left is to be read from its stored rounds.
    """
    by_round = {
        int(row["round"] or 0): {key: math.nan if value is None else float(value) for key, value in row.items()}
        for row in rows
    }
    last = max(by_round, default=0)
    run = Run(
        "run", str(config["arm"]), int(config["seed"]), rounds=last, config=dict(config), rows=by_round, path=path
    )
    return _arm_verdict(Arm(run.arm, {}, [run]), None, None, Gold())


def _arm_verdict(arm: Arm, pgr: GapRecovered | None, delta: float | None, gold: Gold) -> ArmVerdict:
    settings = detector_settings(arm.runs[0])
    if settings is not None and delta is not None:
        settings = replace(settings, delta=delta)
    found, votes = arm_trend(arm, settings)
    curves = {run.seed: curve for run in arm.complete if (curve := quality_curve(run))}
    kl = {run.seed: seen.kl for run in arm.complete if (seen := _seen(run)) and seen.kl is not None}
    families = compare({run.seed: seen for run in arm.complete if (seen := _seen(run))})
    threshold = (settings or Detector()).delta
    moved = hacked({run.seed: (_moved(run, QUALITY), _moved(run, WIN_RATE)) for run in arm.complete})
    return ArmVerdict(
        label=arm.label,
        seeds=len(arm.complete),
        trend=found,
        votes=votes,
        verdict=arm_detection(arm, settings),
        saturation=saturation(curves, threshold, _doubt(found, families), kl),
        families=families,
        attribution=attribution({run.seed: _factors(run) for run in arm.complete}),
        remains=remains(_left(arm, gold), found.state, threshold, hacked=moved is not None),
        pgr=pgr,
        hacked=moved,
        repeated=max((_repeated(run) for run in arm.complete), default=0.0),
        simulated=is_simulated(labellers(arm.runs[0].config).get("people")),
    )


def _doubt(said: Trend, families: Families | None) -> str:
    """Return what speaks against a ceiling, whatever curves can be fitted; "" for nothing."""
    if said.state == "degrading":
        return "quality is falling"
    if families is None:
        return ""
    turned = "quality has turned: the over-optimisation hump predicts a seed left out best"
    return turned if families.turned else ""


def _left(arm: Arm, gold: Gold) -> dict[int, SeedLeft]:
    return {run.seed: left for run in arm.complete if (left := seed_left(run, gold))}


# --- from runs to arrays ----------------------------------------------------------------------------------------------
def quality_curve(run: Run) -> Curve | None:
    """Return the true sampled quality in the rounds that have it; None where none has."""
    values = {index: run.value(QUALITY, index) for index in sorted(run.rows)}
    known = {index: value for index, value in values.items() if math.isfinite(value)}
    return Curve(np.array(list(known), dtype=float), np.array(list(known.values()))) if known else None


def _seen(run: Run) -> Seen | None:
    curve = quality_curve(run)
    if curve is None:
        return None
    kl = np.array([run.value(KL, int(index)) for index in curve.rounds])
    return Seen(curve.rounds, curve.quality, kl if np.isfinite(kl).all() else None)


def _factors(run: Run) -> Factors:
    names = ("gap/diversity_D", "gap/best_of_2", "gap/update_loss_eps")
    return Factors(*(np.array([run.value(name, index) for index in range(run.last_round)]) for name in names))


def _repeated(run: Run) -> float:
    known = [row.get(REPEATED, math.nan) for row in run.rows.values()]
    return max((value for value in known if value == value), default=0.0)


def _moved(run: Run, metric: str) -> float:
    return run.value(metric, run.last_round) - run.value(metric, 0)


def final(arm: Arm, metric: str) -> dict[int, float]:
    """Return seed -> value after all training, of whole runs, where it is defined."""
    values = {run.seed: run.value(metric, run.last_round) for run in arm.complete}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


# --- the trend ------------------------------------------------------------------------------------------------------
def arm_trend(arm: Arm, settings: Detector | None) -> tuple[Trend, dict[str, int]]:
    """Return the verdict on all whole runs together, and how often each by itself comes to which.

    It is of what ``detector.measure`` names; where no run has that, of the held-out judge's win rate, else of people's.
    """
    runs = arm.complete
    if settings is None:
        return untested(NO_DETECTOR), {}
    if not runs:
        return untested("no whole run"), {}
    rows = [run.rows for run in runs]
    measures: tuple[TrendMeasure, ...] = (settings.measure, "gold", "heldout_judge", "people")
    # What the run is set to comes first; each once.
    for measure in dict.fromkeys(measures):
        # The logged changes are of the measure that the run is set to, and no other's.
        found, stderr = measured(rows, measure, changes=measure == settings.measure)
        if np.isfinite(found).any():
            votes: dict[str, int] = defaultdict(int)
            for index in range(len(runs)):
                alone = trend(found[[index]], settings, stderr=stderr[[index]], measure=measure)
                votes[alone.state] += 1
            return trend(found, settings, stderr=stderr, measure=measure), dict(votes)
    return untested("no quality and no win rate in two rounds"), {}


# --- the detector -----------------------------------------------------------------------------------------------------
def detector_settings(run: Run) -> Detector | None:
    """Return the settings as configured; None for a run without a detector, or from before there was one."""
    given = run.config.get("detector")
    if not isinstance(given, dict):
        return None
    # Settings of another version are passed over.
    known = {field.name for field in fields(Detector)}
    return Detector(**{key: value for key, value in given.items() if key in known})


def arm_detection(arm: Arm, settings: Detector | None) -> TraceVerdict:
    """Return what the e-detector says of all whole runs together: from their prompts' changes where every run has
    them, else from what they logged."""
    runs = arm.complete
    logs = [logged(run) for run in runs]
    if settings is None or not runs or not all(logs):
        return verdict({}, 0)
    last = max(run.last_round for run in runs)
    changed = [seed for run in runs if (seed := changes(run))]
    return verdict(averaged(logs) if len(changed) < len(runs) else pooled(settings, changed), last)


def logged(run: Run) -> dict[detector.State, Logged]:
    """Return the run's own detector, by process; empty where it logged none."""
    rounds = range(1, run.last_round + 1)
    found: dict[detector.State, Logged] = {}
    for state in STATES:
        name = PROCESS_NAMES[state]
        evidence = tuple(run.value(f"detector/{name}_evidence", index) for index in rounds)
        alarms = tuple(run.value(f"detector/{name}_alarm", index) == 1.0 for index in rounds)
        kind = "plateau" if state == "plateaued" else "mirror"
        thresholds = [run.value(f"detector/{kind}_threshold", index) for index in rounds]
        known = [threshold for threshold in thresholds if math.isfinite(threshold)]
        if not known or not any(math.isfinite(value) for value in evidence):
            return {}
        found[state] = Logged(evidence, alarms, known[-1])
    return found


def changes(run: Run) -> dict[int, Floats] | None:
    """Return round -> each prompt's change in quality, from round_*/changes.json; None unless every round from 1 on has
    it."""
    found: dict[int, Floats] = {}
    for index in range(1, run.last_round + 1):
        if run.path is None:
            if index not in run.changes:
                return None
            found[index] = np.array(run.changes[index], dtype=np.float64)
            continue
        path = run.path / f"round_{index:03d}" / "changes.json"
        try:
            listed = json.loads(path.read_bytes())["changes"]
            # A list of lists must fail, not become a table.
            found[index] = np.array(listed if isinstance(listed, list) else None, dtype=np.float64).reshape(len(listed))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a JSON object with a list of numbers, 'changes' ({error!r})") from None
    return found


# --- arms against arms ------------------------------------------------------------------------------------------------
def differences(study: Study, verdicts: Sequence[ArmVerdict]) -> list[Difference]:
    """Return every pair of arms in final quality (sampled and greedy), and in what they gained."""

    def gained(arm: Arm) -> dict[int, float]:
        end = final(arm, QUALITY)
        begun = {run.seed: run.value(QUALITY, 0) for run in arm.complete if run.seed in end}
        return dict(zip(end, paired_difference(end, begun), strict=True))

    arms = {arm.label: arm for arm in study.arms}
    return [
        *all_differences("quality_sampled_final", {label: final(arm, QUALITY) for label, arm in arms.items()}),
        *all_differences("quality_greedy_final", {label: final(arm, GREEDY) for label, arm in arms.items()}),
        *all_differences("quality_sampled_gain", {label: gained(arm) for label, arm in arms.items()}),
    ]


@dataclass(frozen=True)
class AcrossTasks:
    """Final sampled quality of one arm over several tasks: interquartile mean with its stratified bootstrap interval,
    over the ``seeds`` that it ran on every one of them."""

    arm: str
    tasks: tuple[str, ...]
    seeds: int
    interval: Interval


def across_tasks(study: Study) -> list[AcrossTasks]:
    """Return one for each arm that differs from others of its name by its task; empty for a study of one task."""
    groups: dict[str, dict[str, dict[int, float]]] = defaultdict(dict)
    for arm in study.arms:
        rest = {key: value for key, value in arm.distinction.items() if not key.startswith("task.")}
        task = arm.settings.get("task.name", "")
        values = final(arm, QUALITY)
        if task and values:
            groups[Arm(arm.name, rest, arm.runs).label][task] = values
    found = []
    for label, by_task in groups.items():
        seeds = sorted(set.intersection(*(set(values) for values in by_task.values())))
        if len(by_task) > 1 and len(seeds) > 1:
            scores = [np.array([values[seed] for seed in seeds]) for values in by_task.values()]
            found.append(AcrossTasks(label, tuple(by_task), len(seeds), stratified_bootstrap(scores)))
    return found
