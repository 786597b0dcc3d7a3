"""Recompute every claim and every table of the experiments' READMEs from their CSV files.

    python experiments/check_claims.py             # print each claim with its numbers; exit code 1 if one does not hold
    python experiments/check_claims.py --write     # write the tables anew into the READMEs

A claim is an entry of ``experiments/NAME/claims.yaml``: the sentence, whether it was planned before the run, and one
test:

    above | below: NUMBER   the one-sided t-test rejects the other side; planned ones share 0.05 by Holm's method
    within: MARGIN          equivalent to 0: both one-sided t-tests reject at 0.05 (the 90 % interval lies inside)
    undecided: MDE          the 95 % interval holds 0; of such studies 80 % would have found a difference of MDE
    is: NUMBER              the mean is this number, to the digits written (a description, not a test)

of a quantity ``of``: a metric in a round of an arm, less that of another arm (``minus_arm``, paired by seed) or of
another round (``minus_round``), of all seeds or of those named (``seeds``); or the rank correlation over arms of two
such means (``x``, ``y``, ``arms``). The unit is the seed (in studies with blocks: the block), and a quantity has one
value for each.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from rlaif_lab.statistics.intervals import Interval, t_interval

HERE = Path(__file__).parent
ALPHA = 0.05
POWER = 0.8
TESTS = ("above", "below", "within", "undecided", "is")

Cells = dict[tuple[str, int, int], dict[str, str]]
"""(arm, seed, round) -> the row of results.csv."""


@dataclass(frozen=True)
class Claim:
    """One sentence and its test. quantity: what it is about, as in the file. target: the test's number."""

    says: str
    planned: bool
    test: str
    target: float
    digits: int
    quantity: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What the CSV says of a claim. p: one-sided, nan where the claim is no one-sided test."""

    claim: Claim
    interval: Interval
    n: int
    p: float
    holds: bool
    detail: str


# --- reading ----------------------------------------------------------------------------------------------------------
def read_results(path: Path) -> Cells:
    """Return the rows of a results.csv by arm, seed and round."""
    with path.open(newline="") as file:
        return {(row["arm"], int(row["seed"]), int(row["round"])): row for row in csv.DictReader(file)}


def read_claims(path: Path) -> tuple[list[Claim], dict[str, Any]]:
    """Return the claims and the tables of a claims.yaml.

    Raises:
        ValueError: if an entry lacks its sentence, its test or what it is about.
    """
    content = yaml.safe_load(path.read_text())
    return [_claim(entry, f"{path}, claim {i}") for i, entry in enumerate(content["claims"], start=1)], content.get(
        "tables", {}
    )


def _claim(entry: Mapping[str, Any], where: str) -> Claim:
    tests = [name for name in TESTS if name in entry]
    unknown = set(entry) - {"says", "planned", "of", *TESTS}
    if len(tests) != 1 or unknown or not {"says", "planned", "of"} <= set(entry):
        raise ValueError(f"{where}: needs says, planned, of and one of {', '.join(TESTS)}; got {sorted(entry)}")
    text = str(entry[tests[0]])
    return Claim(
        says=entry["says"],
        planned=bool(entry["planned"]),
        test=tests[0],
        target=float(text),
        digits=len(text.partition(".")[2]),
        quantity=entry["of"],
    )


# --- quantities -------------------------------------------------------------------------------------------------------
def values(cells: Cells, quantity: Mapping[str, Any]) -> dict[int, float]:
    """Return the quantity of each seed that has it.

    Raises:
        ValueError: if no seed has it, since a claim about nothing would always hold.
    """
    unknown = set(quantity) - {"metric", "arm", "round", "minus_arm", "minus_round", "seeds"}
    if unknown:
        raise ValueError(f"a quantity has no {', '.join(sorted(unknown))}; got {dict(quantity)}")
    metric, arm, at = quantity["metric"], quantity["arm"], quantity.get("round", "last")
    found = _of_arm(cells, metric, arm, at)
    if "minus_arm" in quantity:
        found = _less(found, _of_arm(cells, metric, quantity["minus_arm"], at))
    if "minus_round" in quantity:
        before = _of_arm(cells, metric, arm, quantity["minus_round"])
        if "minus_arm" in quantity:
            before = _less(before, _of_arm(cells, metric, quantity["minus_arm"], quantity["minus_round"]))
        found = _less(found, before)
    if "seeds" in quantity:
        found = {seed: found[seed] for seed in quantity["seeds"] if seed in found}
    if not found:
        raise ValueError(f"no seed has {dict(quantity)}")
    return found


def _less(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - second[seed] for seed, value in first.items() if seed in second}


def _of_arm(cells: Cells, metric: str, arm: str, at: int | str) -> dict[int, float]:
    """Values by seed; ``last``: of the last round that the arm has the metric in; ``mean``: over all that have it."""
    rounds = [index for (a, _, index), row in cells.items() if a == arm and row.get(metric)]
    if not rounds:
        return {}
    if at == "mean":
        by_seed: dict[int, list[float]] = {}
        for (a, seed, _), row in cells.items():
            if a == arm and row.get(metric):
                by_seed.setdefault(seed, []).append(float(row[metric]))
        return {seed: math.fsum(found) / len(found) for seed, found in by_seed.items()}
    wanted = max(rounds) if at == "last" else int(at)
    return {
        seed: float(row[metric])
        for (a, seed, index), row in cells.items()
        if a == arm and index == wanted and row.get(metric)
    }


# --- tests ------------------------------------------------------------------------------------------------------------
def examine(claims: Sequence[Claim], cells: Cells) -> list[Finding]:
    """Return what the numbers say of each claim; planned one-sided claims and equivalences share ALPHA by Holm."""
    raw = [_examine(claim, cells) for claim in claims]
    planned = [i for i, f in enumerate(raw) if f.claim.planned and not math.isnan(f.p)]
    limits = dict.fromkeys(range(len(raw)), ALPHA)
    rejected = True
    for rank, i in enumerate(sorted(planned, key=lambda i: raw[i].p)):
        limits[i] = ALPHA / (len(planned) - rank)
        rejected = rejected and raw[i].p <= limits[i]
        if not rejected:
            limits[i] = 0.0
    return [f if math.isnan(f.p) else _judged(f, limits[i]) for i, f in enumerate(raw)]


def _judged(finding: Finding, limit: float) -> Finding:
    return Finding(
        claim=finding.claim,
        interval=finding.interval,
        n=finding.n,
        p=finding.p,
        holds=finding.p <= limit,
        detail=f"p = {finding.p:.2g}",
    )


def _examine(claim: Claim, cells: Cells) -> Finding:
    if "arms" in claim.quantity:
        return _rank_correlation(claim, cells)
    found = list(values(cells, claim.quantity).values())
    interval, n = t_interval(found), len(found)
    se = stats.tstd(found) / math.sqrt(n) if n > 1 else math.nan
    p, holds, detail = math.nan, False, ""
    if claim.test == "is":
        holds = round(abs(interval.mean - claim.target), 10) <= 0.5 * 10.0**-claim.digits
        detail = "a description"
    elif claim.test in ("above", "below"):
        sign = 1.0 if claim.test == "above" else -1.0
        p = _one_sided(sign * (interval.mean - claim.target), se, n)
    elif claim.test == "within":
        p = max(_one_sided(claim.target - interval.mean, se, n), _one_sided(claim.target + interval.mean, se, n))
    else:
        mde = minimum_detectable(se, n)
        holds = interval.low <= 0.0 <= interval.high and abs(mde - claim.target) <= 0.5 * 10.0**-claim.digits
        detail = f"minimum detectable {mde:.3f}"
    return Finding(claim=claim, interval=interval, n=n, p=p, holds=holds, detail=detail)


def _one_sided(distance: float, se: float, n: int) -> float:
    """p of the t-test that the mean lies this far on the claimed side; 0 spread decides by sign."""
    if n < 2:
        return 1.0
    if se == 0.0:
        return 0.0 if distance > 0.0 else 1.0
    return float(stats.t.sf(distance / se, n - 1))


def minimum_detectable(se: float, n: int) -> float:
    """Return the difference that a two-sided t-test at ALPHA of n values finds with probability POWER.

    By the usual sum of quantiles, (t(1 - ALPHA/2) + t(POWER)) standard errors, in the unit of the values.
    """
    return float((stats.t.ppf(1.0 - ALPHA / 2.0, n - 1) + stats.t.ppf(POWER, n - 1)) * se)


def _rank_correlation(claim: Claim, cells: Cells) -> Finding:
    """Spearman's rank correlation over arms of two quantities' means. Its p-value is not used: n is a few arms."""
    q = claim.quantity
    means = [
        [t_interval(list(values(cells, {**q[axis], "arm": arm}).values())).mean for arm in q["arms"]]
        for axis in ("x", "y")
    ]
    rho = float(stats.spearmanr(*means).statistic)
    holds = claim.test == "is" and round(abs(rho - claim.target), 10) <= 0.5 * 10.0**-claim.digits
    nan = math.nan
    return Finding(
        claim=claim, interval=Interval(rho, nan, nan), n=len(q["arms"]), p=nan, holds=holds, detail="rank correlation"
    )


# --- tables -----------------------------------------------------------------------------------------------------------
def table(spec: Mapping[str, Any], cells: Cells) -> str:
    """Return a Markdown table: one row per arm, one column per quantity, mean +- half of the 95 % interval."""
    head = [spec.get("title", "arm"), *(column["title"] for column in spec["columns"])]
    lines = [head, ["---"] * len(head)]
    for arm in spec["rows"]:
        lines.append([arm, *(_cell({**column, "arm": arm}, cells) for column in spec["columns"])])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(column: Mapping[str, Any], cells: Cells) -> str:
    quantity = {key: value for key, value in column.items() if key not in ("title", "digits")}
    if quantity.get("minus_arm") == quantity["arm"]:
        return "-"
    try:
        interval = t_interval(list(values(cells, quantity).values()))
    except ValueError:
        return "n/a"
    signed = "minus_arm" in quantity or "minus_round" in quantity
    digits = int(column.get("digits", 3))
    text = f"{interval.mean:{'+' if signed else ''}.{digits}f}"
    if math.isnan(interval.low):
        return text
    half = interval.high - interval.mean
    return f"{text} ± {half:.{digits}f}" if half >= 0.5 * 10.0**-digits else text


MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(?:(?!<!--).)*?(?:(?<=\n)|\n)(<!-- end of table -->)", re.S)


def with_tables(text: str, tables: Mapping[str, Any], cells_of: Mapping[str, Cells]) -> str:
    """Return a README with each marked table made anew from the numbers."""

    def made(match: re.Match[str]) -> str:
        spec = tables[match[2]]
        return match[1] + table(spec, cells_of[spec.get("file", "results.csv")]) + "\n" + match[3]

    return MARKED.sub(made, text)


# --- the command ------------------------------------------------------------------------------------------------------
def studies() -> Iterator[Path]:
    """Yield each experiment's folder that has claims."""
    yield from sorted(path.parent for path in HERE.glob("*/claims.yaml"))


def examined(folder: Path) -> tuple[list[Finding], str, str]:
    """Return a study's findings, its README as it is, and its README with the tables made anew."""
    claims, tables = read_claims(folder / "claims.yaml")
    cells_of = {path.name: read_results(path) for path in folder.glob("results*.csv")}
    readme = (folder / "README.md").read_text()
    return examine(claims, cells_of["results.csv"]), readme, with_tables(readme, tables, cells_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables anew into the READMEs")
    options = parser.parse_args()
    wrong = 0
    for folder in studies():
        findings, readme, anew = examined(folder)
        print(f"\n{folder.name}")
        for f in findings:
            kind = "planned" if f.claim.planned else "exploratory"
            spread = "" if math.isnan(f.interval.low) else f" ({f.interval.low:+.3f} to {f.interval.high:+.3f})"
            print(f"  {'holds' if f.holds else 'FAILS'}  {f.claim.says}")
            print(f"         {f.interval.mean:+.3f}{spread}, n = {f.n}, {kind}, {f.detail}")
        wrong += sum(not f.holds for f in findings)
        if options.write:
            (folder / "README.md").write_text(anew)
        elif anew != readme:
            wrong += 1
            print("  FAILS  a table differs from the CSV: python experiments/check_claims.py --write")
    print(f"\n{'all claims hold' if not wrong else f'{wrong} do not hold'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
