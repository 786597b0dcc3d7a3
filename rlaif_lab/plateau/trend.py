"""Does the loop still gain at least delta a round? The trend, tested on whole rounds, at any stopping time.

The e-detector (detector.py) asks what the training of a single round gained, and prompts are its unit. This module asks
another question: whether the loop, which swings from round to round, has stopped. Its unit is the gain of one round of
one seed, and its noise is whatever moves that gain: the swings of training, and the error of evaluation.

For every window of rounds that ends now there is a one-sided t test by likelihood ratio. The null hypothesis is a mean
gain of delta or more with an unknown spread; the alternatives are gains that lie 0.25, 0.5 or 1 spreads below delta,
in equal parts. The spread is integrated out under the right Haar prior, so that the ratio is an e-process (Lai 1976;
Wang and Ramdas 2310.03722): by Ville's inequality it passes T / alpha at any time with a probability of at most
alpha / T. Of the T rounds in which a window can begin each has that share of alpha, so that an alarm of any window at
any time within the horizon T has a probability of at most alpha. The window with most evidence says since when.

The proof is for independent Gaussian gains. Real ones are neither, so the spread that enters is the largest of these:

- of single rounds, as if they were independent;
- the same, widened for the correlation between neighbouring rounds where that can be positive: by
  (1 + r) / (1 - r), r the estimated correlation plus its standard error. Mean-reverting rounds are not narrowed;
- of the seeds' own means over the window, times the square root of its rounds, so that seeds that differ count as few;
- of the rounds' means over the seeds, times the square root of the seeds, so that swings which seeds share count once;
- half the variance (`EARLIER`) that the seeds showed within the rounds so far, for swings that are rare and large;
- what the evaluation's own error makes of a gain, where it is known, and never below `LEAST_SPREAD`.

A window must also hold `LEAST_ROUNDS` rounds; its later half, and its last rounds, must lie on the same side of delta.
All of this only takes alarms away. `experiments/statements/trend.py` counts false alarms under swings of many kinds.
The seeds have to be independent: with ten seeds that share half of their variance from round to round the bound does
not hold.

Mirrors of the test bet against "gains at most delta" (improving) and against "does not lose" (degrading).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rlaif_lab.plateau.detector import STATES, Detector, State
from rlaif_lab.records import Floats

TrendMeasure = Literal["gold", "heldout_judge", "people"]
LEVELS: dict[TrendMeasure, str] = {
    "gold": "quality/sampled",
    "heldout_judge": "heldout_judge/win_rate_vs_round_0",
    "people": "human/win_rate_vs_round_0",
}
"""The metric that a round's level is. Its standard error, where one is logged, has the same name and ``_stderr``."""
CHANGE = "quality/change"
"""The gain itself, on prompts that both policies answered: far less noisy than the difference of two levels. It is of
gold quality, of the held-out judge or of people, as ``detector.measure`` says."""

EFFECTS = (0.25, 0.5, 1.0)
"""Distances from delta that are bet on, in spreads of a round's gain."""
LEAST_ROUNDS = 3
"""In a window: one or two rounds show no trend, however many seeds there are."""
LEAST_SPREAD = 1e-3
"""Of a round's gain: what is equal by rounding, or by coarse evaluation, is not known exactly."""
EARLIER = 0.5
"""Share of the seeds' variance within rounds, over all rounds so far, that a window's may not fall below: a few rounds
without a large swing do not show that there are none."""
STRONGEST = 0.9
"""Largest correlation of neighbouring rounds that is allowed for."""
_NODES = np.linspace(-9.0, 9.0, 91)


# --- one test -------------------------------------------------------------------------------------------------------
def log_ratio(count: Floats, cosine: Floats) -> Floats:
    """Return the logarithm of the mixed likelihood ratio of a mean below 0 against a mean of 0, spread unknown.

    Args:
        count: Number of units n, at least 2; any shape.
        cosine: m / sqrt(m^2 + v) of their mean m and variance v (over n), in [-1, 1]; the same shape.

    Returns:
        Log evidence, the same shape: falling in ``cosine``.
    """
    n, c = np.broadcast_arrays(np.asarray(count, dtype=np.float64), np.asarray(cosine, dtype=np.float64))
    logs = []
    for effect in EFFECTS:
        # E exp(-a W), W ~ chi with n degrees of freedom, by quadrature about the mode of the integrand.
        a = effect * np.sqrt(n) * c
        # The mode of w^(n-1) exp(-w^2/2 - a w), and its width there, by the second derivative of the logarithm.
        mode = (-a + np.sqrt(a**2 + 4.0 * (n - 1.0))) / 2.0
        width = 1.0 / np.sqrt((n - 1.0) / mode**2 + 1.0)
        # Nine widths to either side: what lies beyond is below rounding.
        w = mode[..., None] + width[..., None] * _NODES
        # A number on which log can be taken; what is not above 0 has no density.
        inside = np.where(w > 0.0, w, 1.0)
        log_density = (n[..., None] - 1.0) * np.log(inside) - inside**2 / 2.0 - a[..., None] * inside
        log_density = np.where(w > 0.0, log_density, -np.inf)
        integral = _log_sum(log_density) + np.log(width * (_NODES[1] - _NODES[0]))
        # Less the chi density's normaliser, and the alternative's own exponent n effect^2 / 2.
        logs.append(integral - _log_chi(n) - n * effect**2 / 2.0)
    # In equal parts: the mean of the alternatives' ratios.
    return _log_sum(np.stack(logs, -1)) - math.log(len(EFFECTS))


def _log_sum(logs: Floats) -> Floats:
    top = logs.max(-1)
    # Less the largest: no term overflows.
    result: Floats = top + np.log(np.exp(logs - top[..., None]).sum(-1))
    return result


def _log_chi(n: Floats) -> Floats:
    """Return the logarithm of the integral of w^(n-1) exp(-w^2/2) over w > 0."""
    from scipy.special import gammaln  # slow to import

    result: Floats = (n / 2.0 - 1.0) * math.log(2.0) + gammaln(n / 2.0)
    return result


@functools.cache
def critical_cosines(most: int, threshold: float) -> Floats:
    """Return, for 0, 1, ..., ``most`` units, the cosine at and below which their evidence reaches ``threshold``; -inf
    where none does, as with fewer than 2."""
    counts = np.arange(2.0, max(most, 2) + 1.0)
    wanted = math.log(threshold)
    low, high = np.full(len(counts), -1.0), np.zeros(len(counts))
    # Even the strongest sample of so few units does not reach it.
    never = log_ratio(counts, low) < wanted
    # Bisection: evidence falls in the cosine. Fifty halvings are more than a double holds.
    for _ in range(50):
        middle = (low + high) / 2.0
        reached = log_ratio(counts, middle) >= wanted
        low, high = np.where(reached, middle, low), np.where(reached, high, middle)
    return np.concatenate([[-math.inf, -math.inf], np.where(never, -math.inf, low)])


# --- from levels to gains -------------------------------------------------------------------------------------------
def gains(levels: Floats) -> Floats:
    """Return what each round gained.

    Args:
        levels: Level after round 0, 1, ..., R: (..., R + 1), nan where it was not measured.

    Returns:
        (..., R): the level minus the last one measured before, per round in between, in the round where the gap ends;
        nan in other rounds. A gap is one unit, however long.
    """
    found = np.full((*levels.shape[:-1], levels.shape[-1] - 1), np.nan)
    last, age = levels[..., 0].copy(), np.zeros(levels.shape[:-1])
    for index in range(1, levels.shape[-1]):
        now = levels[..., index]
        age = age + 1.0
        # A gain over a gap is spread over its rounds, and counted once.
        found[..., index - 1] = (now - last) / age
        known = np.isfinite(now)
        last, age = np.where(known, now, last), np.where(known, 0.0, age)
    return found


# --- windows ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Window:
    """The rounds start + 1, ..., end of all seeds; arrays have the shape of the batch.

    count: units. mean: their mean gain; later: that of the later half of the rounds; latest: of the last LEAST_ROUNDS.
    variance: of one unit, the largest of the module's list.
    """

    start: int
    end: int
    count: Floats
    mean: Floats
    later: Floats
    latest: Floats
    variance: Floats


class Sums:
    """Running sums over rounds, from which any window is had at once.

    Args:
        found: Gains (..., seeds, R), nan where unknown.
        floor: Variance of a unit that evaluation alone causes, as `evaluation_variance` gives it: (..., R).
    """

    def __init__(self, found: Floats, floor: Floats | None = None) -> None:
        known = np.isfinite(found)
        # Unknown gains add nothing to sums, and are not counted.
        value = np.where(known, found, 0.0)
        # Neighbours that are both known: pairs for the correlation.
        pair = known[..., 1:] & known[..., :-1]
        self.rounds = found.shape[-1]
        self.seeds = found.shape[-2]
        self.count = _running(known.astype(np.float64))
        self.total = _running(value)
        self.square = _running((value**2).sum(-2))
        self.pairs = _running(pair.sum(-2).astype(np.float64))
        self.first = _running((value[..., :-1] * pair).sum(-2))
        self.second = _running((value[..., 1:] * pair).sum(-2))
        self.product = _running((value[..., 1:] * value[..., :-1] * pair).sum(-2))
        self.steps = _running((np.diff(value) ** 2 * pair).sum(-2))
        per_round, at_once = value.sum(-2), known.sum(-2)
        # Rounds without any gain: the divisor does not matter.
        safe = np.maximum(at_once, 1)
        self.round_count = _running((at_once > 0).astype(np.float64))
        self.round_mean = _running(per_round / safe)
        self.round_square = _running((per_round / safe) ** 2)
        # Deviations within a round: between seeds, whatever the round did to all of them.
        apart = np.where(known, value - (per_round / safe)[..., None, :], 0.0)
        self.apart, self.apart_count = _running((apart**2).sum(-2)), _running(np.maximum(at_once - 1.0, 0.0))
        self.floor = None if floor is None else _running(np.broadcast_to(floor, (*found.shape[:-2], self.rounds)))

    def window(self, start: int, end: int) -> Window:
        """Return the window of the rounds after ``start`` up to ``end``."""
        by_seed = self.count[..., end] - self.count[..., start]
        total_by_seed = self.total[..., end] - self.total[..., start]
        count = by_seed.sum(-1)
        safe = np.maximum(count, 1.0)
        mean = total_by_seed.sum(-1) / safe
        # Rounding may lead below 0.
        variance = np.maximum((self.square[..., end] - self.square[..., start]) / safe - mean**2, 0.0)
        worst = variance * self._widening(start, end, mean, variance)
        if self.seeds > 1:
            taking_part = by_seed > 0
            seeds = np.maximum(taking_part.sum(-1).astype(np.float64), 2.0)
            # Each seed's own mean over the window, less the window's.
            means = np.where(taking_part, total_by_seed / np.maximum(by_seed, 1.0) - mean[..., None], 0.0)
            # Times units per seed: from the variance of seeds' means to that of a unit.
            worst = np.maximum(worst, (means**2).sum(-1) / (seeds - 1.0) * safe / seeds)
            rounds = np.maximum(self.round_count[..., end] - self.round_count[..., start], 2.0)
            centre = (self.round_mean[..., end] - self.round_mean[..., start]) / rounds
            together = (self.round_square[..., end] - self.round_square[..., start]) / rounds - centre**2
            # Likewise from the variance of rounds' means: swings that all seeds share count once.
            worst = np.maximum(worst, together * rounds / (rounds - 1.0) * safe / rounds)
            # Over all rounds so far, not the window's alone.
            worst = np.maximum(worst, EARLIER * self.apart[..., end] / np.maximum(self.apart_count[..., end], 1.0))
        worst = np.maximum(worst, LEAST_SPREAD**2)
        if self.floor is not None:
            # Per round of the window: evaluation's error does not shrink with more rounds in it.
            worst = np.maximum(worst, (self.floor[..., end] - self.floor[..., start]) / (end - start))
        middle = (start + end) // 2
        later_count = np.maximum((self.count[..., end] - self.count[..., middle]).sum(-1), 1.0)
        later = (self.total[..., end] - self.total[..., middle]).sum(-1) / later_count
        newest = max(0, end - LEAST_ROUNDS)
        newest_count = np.maximum((self.count[..., end] - self.count[..., newest]).sum(-1), 1.0)
        latest = (self.total[..., end] - self.total[..., newest]).sum(-1) / newest_count
        return Window(start, end, count, mean=mean, later=later, latest=latest, variance=worst)

    def _widening(self, start: int, end: int, mean: Floats, variance: Floats) -> Floats:
        """Return by how much correlated rounds widen the variance of a mean; at least 1. Pairs of neighbours lie within
        the window: the first is of rounds start + 1 and start + 2."""
        low, high = start, max(start, end - 1)
        pairs = self.pairs[..., high] - self.pairs[..., low]
        safe = np.maximum(pairs, 1.0)
        ends = (self.first + self.second)[..., high] - (self.first + self.second)[..., low]
        covariance = (self.product[..., high] - self.product[..., low] - mean * ends) / safe + mean**2
        tiny = np.maximum(variance, LEAST_SPREAD**2)
        # Plus its standard error: a correlation that is not known to be small is taken to be large.
        correlation = np.clip(covariance / tiny + 1.0 / np.sqrt(safe), 0.0, STRONGEST)
        return (1.0 + correlation) / (1.0 - correlation)


def _running(values: Floats) -> Floats:
    """Return sums over the last axis up to each round, beginning with 0."""
    zero = np.zeros((*values.shape[:-1], 1))
    return np.concatenate([zero, np.cumsum(values, axis=-1)], axis=-1)


def evaluation_variance(stderr: Floats) -> Floats:
    """Return the variance of a gain that evaluation alone causes, (..., R), from the standard errors of the gains,
    (..., seeds, R), nan where unknown."""
    known = np.isfinite(stderr)
    total = (np.where(known, stderr, 0.0) ** 2).sum(-2)
    result: Floats = total / np.maximum(known.sum(-2), 1)
    return result


def sides(window: Window, state: State, delta: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the test's cosine, below 0 where the window speaks for ``state``, and whether its
    later half and its last rounds do too."""
    if state == "plateaued":
        excess, agree = window.mean - delta, (window.later < delta) & (window.latest < delta)
    elif state == "improving":
        excess, agree = delta - window.mean, (window.later > delta) & (window.latest > delta)
    else:
        excess, agree = window.mean, (window.later < 0.0) & (window.latest < 0.0)
    # m / sqrt(m^2 + v): the t statistic on a bounded scale, whatever the number of units.
    return excess / np.sqrt(excess**2 + window.variance), agree


def raised(found: Floats, settings: Detector, state: State, floor: Floats | None = None) -> npt.NDArray[np.bool_]:
    """Return in which rounds some window that ends there raises the alarm, for a batch of arms: (..., R).

    Args:
        found: Gains (..., seeds, R).
        settings: delta, alpha and horizon.
        state: Whose alarm.
        floor: See `Sums`.
    """
    sums, threshold = Sums(found, floor), settings.threshold(state)
    # Once for all windows: evidence is monotone in the cosine, so a comparison does.
    critical = critical_cosines(sums.seeds * sums.rounds, threshold)
    alarms = np.zeros((*found.shape[:-2], sums.rounds), dtype=np.bool_)
    for end in range(LEAST_ROUNDS, sums.rounds + 1):
        for start in range(end - LEAST_ROUNDS + 1):
            window = sums.window(start, end)
            cosine, later = sides(window, state, settings.delta)
            # `window.count`: units, which may be fewer than rounds times seeds.
            alarms[..., end - 1] |= later & (cosine <= critical[window.count.astype(int)])
    return alarms


# --- what an arm has come to ------------------------------------------------------------------------------------------
TrendState = Literal["improving", "plateaued", "degrading", "undecided"]
MOST_ROUNDS, MOST_SEEDS = 200, 100
"""Beyond which a forecast says that no number would do."""


@dataclass(frozen=True)
class Process:
    """One of the three tests after rounds 1, 2, ..., R.

    evidence: log of the largest likelihood ratio of any window that ends there. since: where that window begins.
    alarms: rounds in which it reached ``threshold``.
    """

    evidence: tuple[float, ...]
    since: tuple[int, ...]
    alarms: tuple[int, ...]
    threshold: float


@dataclass(frozen=True)
class Forecast:
    """What would decide, if the last rounds went on as they were.

    gain: mean gain of the last rounds. spread: standard deviation of a round of a seed. state:
    what it would come to. rounds: further rounds of the same seeds; seeds: seeds over the same rounds; each None where
    not even MOST_ROUNDS or MOST_SEEDS would do.
    """

    gain: float
    spread: float
    state: State
    rounds: int | None
    seeds: int | None


@dataclass(frozen=True)
class Trend:
    """The verdict on an arm of one or more seeds, from what its rounds gained.

    state: see `trend`. round: of the first alarm of the unbroken verdict; since: the round after which the window that
    speaks for it begins; both None if undecided. gain: mean gain per round since then, of the last rounds if undecided.
    reason: one clause. processes: by state. forecast: of an undecided arm with rounds enough to tell a spread.
    """

    state: TrendState
    round: int | None
    since: int | None
    gain: float
    reason: str
    processes: Mapping[State, Process]
    forecast: Forecast | None
    seeds: int
    rounds: int
    delta: float
    measure: TrendMeasure


def trend(found: Floats, settings: Detector, *, stderr: Floats | None = None, measure: TrendMeasure = "gold") -> Trend:
    """Return the verdict after the last round.

    Plateaued and degrading hold from their alarm until another one, as long as the mean gain since does not say
    otherwise; improving holds in the rounds that raise it, for that an arm once improved says nothing about now. Where
    one round raises several, degrading comes before plateaued before improving.

    Args:
        found: Gains of rounds 1, ..., R: (seeds, R), nan where not measured.
        settings: delta, alpha and horizon. Rounds beyond the horizon are not looked at.
        stderr: Standard errors of the gains by evaluation, the same shape; nan or None where unknown.
        measure: What the gains are of; only said, not used.
    """
    # Beyond the horizon alpha is spent: those rounds are not looked at.
    found = np.atleast_2d(np.asarray(found, dtype=np.float64))[:, : settings.horizon]
    last = found.shape[-1]
    floor = None if stderr is None else evaluation_variance(np.atleast_2d(stderr)[:, : settings.horizon])
    sums = Sums(found, floor)
    processes = _processes(sums, settings)
    state: TrendState = "undecided"
    first = since = improved = None
    for index in range(1, last + 1):
        said = [one for one in reversed(STATES) if index in processes[one].alarms]
        # The most serious first.
        said.sort(key=("degrading", "plateaued", "improving").index)
        if said:
            if said[0] != state:
                first = index
            state, since = said[0], processes[said[0]].since[index - 1]
            improved = index if state == "improving" else improved
        # "Improving" concerns the rounds that raise it: about later ones nothing is known.
        elif state == "improving":
            state, first, since = "undecided", None, None
        # A plateau, or a fall, holds as long as the mean since does not contradict it.
        elif since is not None:
            mean = float(sums.window(since, index).mean)
            if not mean < (settings.delta if state == "plateaued" else 0.0):
                state, first, since = "undecided", None, None
    # At least one round more than a window needs.
    recent = min(last, max(LEAST_ROUNDS + 1, math.ceil(last / 4)))
    window = sums.window(last - recent if since is None else since, last) if last else None
    gain = float(window.mean) if window is not None and window.count > 0 else math.nan
    forecast = _forecast(sums, window, settings) if state == "undecided" and window is not None else None
    reason = _reason(state, gain, first, since=since, delta=settings.delta, improved=improved)
    return Trend(
        state,
        first,
        since,
        gain=gain,
        reason=reason,
        processes=processes,
        forecast=forecast,
        seeds=sums.seeds,
        rounds=last,
        delta=settings.delta,
        measure=measure,
    )


def _processes(sums: Sums, settings: Detector) -> dict[State, Process]:
    evidence: dict[State, list[float]] = {state: [] for state in STATES}
    since: dict[State, list[int]] = {state: [] for state in STATES}
    for end in range(1, sums.rounds + 1):
        windows = [sums.window(start, end) for start in range(end - LEAST_ROUNDS + 1)]
        windows = [window for window in windows if window.count >= 2]
        for state in STATES:
            best, begins = -math.inf, end
            looked = [(window, *sides(window, state, settings.delta)) for window in windows]
            # Windows that speak for the state at all; the others' evidence is below 1.
            looked = [(window, cosine, later) for window, cosine, later in looked if later and cosine < 0.0]
            if looked:
                counts = np.array([float(window.count) for window, _, _ in looked])
                logs = log_ratio(counts, np.array([float(cosine) for _, cosine, _ in looked]))
                # The window with most evidence says since when.
                best, begins = float(logs.max()), looked[int(logs.argmax())][0].start
            evidence[state].append(best)
            since[state].append(begins)
    found = {}
    for state in STATES:
        threshold = settings.threshold(state)
        alarms = tuple(i for i, log in enumerate(evidence[state], start=1) if log >= math.log(threshold))
        found[state] = Process(tuple(evidence[state]), tuple(since[state]), alarms, threshold)
    return found


def _forecast(sums: Sums, window: Window, settings: Detector) -> Forecast | None:
    rounds, count = window.end - window.start, float(window.count)
    if rounds < LEAST_ROUNDS or count < LEAST_ROUNDS:
        return None
    gain, spread = float(window.mean), math.sqrt(_seen_variance(sums))
    state: State = "plateaued" if gain < settings.delta else "improving"
    # As if the last rounds' gain and spread went on: what more of the same would show.
    cosine = -abs(gain - settings.delta) / math.hypot(gain - settings.delta, spread)
    wanted = math.log(settings.threshold(state))

    def first(counts: Floats) -> int | None:
        enough = np.flatnonzero(log_ratio(counts, np.full(len(counts), cosine)) >= wanted)
        return int(enough[0]) + 1 if len(enough) else None

    # So many units more per round as now.
    more_rounds = first(count + count / rounds * np.arange(1.0, MOST_ROUNDS + 1.0))
    in_all = first(count / sums.seeds * np.arange(1.0, MOST_SEEDS + 1.0))
    # More seeds than there are: those there are have not decided it.
    return Forecast(gain, spread, state, more_rounds, in_all if in_all is None else max(in_all, sums.seeds + 1))


def _seen_variance(sums: Sums) -> float:
    """Return the variance of a round of a seed over the later half of the rounds, at least six: between the seeds
    within a round where there are several, else from round to round, so that a bend of the curve is no spread."""
    end = sums.rounds
    start = min(end // 2, max(0, end - 6))
    degrees = float(sums.apart_count[..., end] - sums.apart_count[..., start])
    if degrees >= 2.0:
        found = float(sums.apart[..., end] - sums.apart[..., start]) / degrees
    else:
        pairs = float(sums.pairs[..., end - 1] - sums.pairs[..., start])
        # Half of the mean squared step: independent rounds differ by twice their variance.
        found = float(sums.steps[..., end - 1] - sums.steps[..., start]) / max(2.0 * pairs, 1.0)
    return max(found, LEAST_SPREAD**2)


def _reason(
    state: TrendState, gain: float, first: int | None, since: int | None, delta: float, improved: int | None
) -> str:
    if state == "undecided":
        if improved is not None:
            return f"it improved until round {improved}; nothing is shown of the rounds since"
        return "no alarm in any round"
    what = {
        "plateaued": f"the mean gain per round is below delta = {delta:g}",
        "improving": f"the mean gain per round is above delta = {delta:g}",
        "degrading": "the mean gain per round is below 0",
    }[state]
    return f"{what} after round {since} ({gain:+.3f}; alarm in round {first})"


def untested(reason: str, measure: TrendMeasure = "gold") -> Trend:
    """Return the verdict on an arm that there is nothing to test of."""
    return Trend(
        "undecided",
        None,
        None,
        gain=math.nan,
        reason=reason,
        processes={},
        forecast=None,
        seeds=0,
        rounds=0,
        delta=math.nan,
        measure=measure,
    )


def outlook(given: Trend) -> str:
    """Return what would decide an undecided arm, as a clause; "" for one that is decided."""
    if given.state != "undecided" or not given.processes:
        return ""
    ahead = given.forecast
    if ahead is None:
        rounds = "1 round is" if given.rounds == 1 else f"{given.rounds} rounds are"
        return f"{rounds} too few to estimate their spread"
    at = f"if the last rounds' gain goes on ({ahead.gain:+.3f} a round), at the spread seen ({ahead.spread:.3f})"
    ways = []
    if ahead.rounds is not None:
        ways.append(f"about {ahead.rounds} more round{'' if ahead.rounds == 1 else 's'} of the same seeds")
    if ahead.seeds is not None:
        ways.append(f"about {ahead.seeds} seeds over the same rounds")
    if not ways:
        return f"neither {MOST_ROUNDS} more rounds nor {MOST_SEEDS} seeds would decide {at}"
    return f"{' or '.join(ways)} would decide ({ahead.state}) {at}"


NAMES: dict[State, tuple[str, str]] = {
    "plateaued": ("trend/plateau_evidence", "trend/plateau_alarm"),
    "improving": ("trend/improving_evidence", "trend/improving_alarm"),
    "degrading": ("trend/degrading_evidence", "trend/degrading_alarm"),
}


def trend_metrics(given: Trend) -> dict[str, float]:
    """Return ``trend/*`` of a run's row: each test's evidence, whether it is an alarm, and where that begins."""
    if not given.processes:
        return {}
    found = {}
    for state, process in given.processes.items():
        log = process.evidence[-1] if process.evidence else -math.inf
        evidence, alarm = NAMES[state]
        # As in the detector: large enough for any threshold.
        found[evidence] = math.exp(min(log, 500.0))
        found[alarm] = float(given.rounds in process.alarms)
    return found | {
        "trend/plateau_threshold": given.processes["plateaued"].threshold,
        "trend/mirror_threshold": given.processes["improving"].threshold,
        "trend/gain": given.gain,
    }


def measured(
    seeds: Sequence[Mapping[int, Mapping[str, float]]], measure: TrendMeasure, changes: bool
) -> tuple[Floats, Floats]:
    """Return the gains of rounds 1 .. R and their standard errors, both (seeds, R), nan where unknown.

    Args:
        seeds: Round -> metric -> value, nan or missing where undefined; of each seed.
        measure: Whose opinion.
        changes: Whether the logged changes are of this measure; where every seed has some they are the gains, else
            differences of the levels are.
    """
    if changes:
        found = _stacked(seeds, CHANGE)[:, 1:]
        # Changes where every seed has some: on shared prompts they are far less noisy than levels' differences.
        if np.isfinite(found).any(-1).all() and len(found):
            return found, _stacked(seeds, f"{CHANGE}_stderr")[:, 1:]
    levels, errors = _stacked(seeds, LEVELS[measure]), _stacked(seeds, f"{LEVELS[measure]}_stderr")
    # Two independent evaluations: their variances add up.
    return gains(levels), np.sqrt(errors[:, 1:] ** 2 + errors[:, :-1] ** 2)


def _stacked(seeds: Sequence[Mapping[int, Mapping[str, float]]], metric: str) -> Floats:
    last = max((max(rows, default=0) for rows in seeds), default=0)
    found = np.full((len(seeds), last + 1), np.nan)
    for values, rows in zip(found, seeds, strict=True):
        for index, row in rows.items():
            values[index] = row.get(metric, math.nan)
    return found
