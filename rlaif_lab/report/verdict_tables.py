"""What is said about the arms as CSV files: verdicts, promises and fits (families of curves), attribution, differences,
across_tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif_lab.plateau.cause import SHARES
from rlaif_lab.plateau.comparisons import Difference
from rlaif_lab.plateau.families import PARAMETERS
from rlaif_lab.report.arms import Study
from rlaif_lab.report.tables import UNDEFINED, blank, interval_columns, write_records
from rlaif_lab.report.verdicts import ArmVerdict, across_tasks

SHAPE_PARAMETERS = tuple(dict.fromkeys(name for names in PARAMETERS.values() for name in names))


def write_verdict_tables(
    folder: Path, study: Study, verdicts: Sequence[ArmVerdict], differences: Sequence[Difference]
) -> None:
    """Write what there is something to say in: no differences.csv for a single arm, say. A file of an earlier report
    that would now be empty is removed."""
    tables: dict[str, list[dict[str, object]]] = {
        "verdicts.csv": [verdict_record(verdict) for verdict in verdicts],
        "promises.csv": [record for verdict in verdicts for record in promise_records(verdict)],
        "fits.csv": [record for verdict in verdicts for record in family_records(verdict)],
        "attribution.csv": [record for verdict in verdicts for record in attribution_records(verdict)],
        "remains.csv": [record for verdict in verdicts for record in remains_records(verdict)],
        "differences.csv": [difference_record(difference) for difference in differences],
        "across_tasks.csv": [
            {"arm": row.arm, "tasks": " ".join(row.tasks), "seeds": row.seeds} | interval_columns("iqm", row.interval)
            for row in across_tasks(study)
        ],
    }
    for name, records in tables.items():
        if records:
            write_records(folder / name, records)
        else:
            (folder / name).unlink(missing_ok=True)


def verdict_record(given: ArmVerdict) -> dict[str, object]:
    """Return the whole verdict on an arm, but for families and attribution in numbers."""
    said, fitted, pgr = given.trend, given.saturation, given.pgr
    record: dict[str, object] = {"arm": given.label, "seeds": given.seeds, "verdict": said.state}
    record |= {name: "" if value is None else value for name, value in (("round", said.round), ("since", said.since))}
    record |= {"reason": said.reason, "measure": said.measure, "gain_since": blank(said.gain)}
    ahead = said.forecast
    record |= {"spread_seen": ahead.spread if ahead else ""}
    record["more_rounds_would_decide"] = "" if ahead is None or ahead.rounds is None else ahead.rounds
    record["seeds_would_decide"] = "" if ahead is None or ahead.seeds is None else ahead.seeds
    for state in ("improving", "plateaued", "degrading", "undecided"):
        record[f"runs_{state}"] = given.votes.get(state, 0) if given.votes else ""
    record |= {"single_rounds": given.verdict.state, "single_rounds_reason": given.verdict.reason}
    record |= {"ceiling_identified": int(fitted.identified), "ceiling_not_identified_because": fitted.reason}
    record |= interval_columns("ceiling", fitted.ceiling) | {"ceiling_condition": fitted.condition}
    record |= interval_columns("remaining_gain", fitted.remaining) | interval_columns("last_gain", fitted.last_gain)
    record |= {"delta": fitted.delta, "remaining_below_delta": int(fitted.exhausted) if fitted.identified else ""}
    record["best_family"] = given.families.best if given.families else ""
    drift = given.null_drift
    record |= {"null_arm": drift.arm if drift else ""}
    record |= interval_columns("null_drift", drift.drift if drift else UNDEFINED)
    record["repeated_prompts"] = given.repeated
    record["hacked"] = int(given.hacked is not None)
    record |= interval_columns("hacked_quality", given.hacked.quality if given.hacked else UNDEFINED)
    record |= interval_columns("hacked_win_rate", given.hacked.win_rate if given.hacked else UNDEFINED)
    record["cause"] = given.cause
    record["why"] = given.why
    record |= interval_columns("pgr", pgr.interval if pgr else UNDEFINED)
    record |= {"pgr_floor": pgr.floor if pgr else "", "pgr_ceiling": pgr.ceiling if pgr else ""}
    return record | {"pgr_seeds": pgr.seeds if pgr else "", "pgr_undefined_because": pgr.reason if pgr else ""}


def promise_records(given: ArmVerdict) -> list[dict[str, object]]:
    """Return one per family of curves: what those of its curves that the data do not exclude promise."""
    return [
        {"arm": given.label, "family": promise.family, "excluded": int(promise.excluded), "misfit": promise.misfit}
        | interval_columns("level", promise.level)
        | interval_columns("remaining_gain", promise.remaining)
        for promise in given.saturation.promises
    ]


def family_records(given: ArmVerdict) -> list[dict[str, object]]:
    """Return one per curve family, the best first; parameters as in rlaif_lab/plateau/families.py."""
    if given.families is None:
        return []
    return [
        {"arm": given.label, "family": error.name, "seeds": given.families.seeds}
        | interval_columns("error", error.error)
        | interval_columns("behind_best", error.behind)
        | {name: error.parameters.get(name, "") for name in SHAPE_PARAMETERS}
        for error in given.families.errors
    ]


def attribution_records(given: ArmVerdict) -> list[dict[str, object]]:
    """Return one per quantity: in the first rounds, in the last, and the change."""
    found = given.attribution
    if found is None:
        return []
    phases = {
        "diversity_D": found.diversity,
        "informativeness_I": found.informativeness,
        "gap_best_of_2": found.gap,
        "update_loss_eps": found.update_loss,
        "gain": found.gain,
    }
    return [
        {"arm": given.label, "cause": given.cause, "quantity": name, "seeds": found.seeds}
        | {"early_rounds": f"{found.early[0]}-{found.early[1]}", "late_rounds": f"{found.late[0]}-{found.late[1]}"}
        | interval_columns("early", phase.early)
        | interval_columns("late", phase.late)
        | interval_columns("change", phase.change)
        for name, phase in phases.items()
    ]


def remains_records(given: ArmVerdict) -> list[dict[str, object]]:
    """Return one per quantity of what is left: the shares, and what a cause is read off."""
    found = given.remains
    if found is None:
        return []
    return [
        {"arm": given.label, "cause": found.cause, "quantity": name, "seeds": found.seeds}
        | interval_columns("value", getattr(found, name))
        for name in (*SHARES, "gain")
    ]


def difference_record(given: Difference) -> dict[str, object]:
    """Return ``first`` minus ``second``."""
    record: dict[str, object] = {"quantity": given.quantity, "first": given.first, "second": given.second}
    record |= {"seeds": given.seeds} | interval_columns("difference", given.interval)
    return record | {"p": blank(given.p), "p_holm": blank(given.p_holm)}


def multiplicity(differences: Sequence[Difference]) -> list[str]:
    """Return a warning where several comparisons are made: some of many 95 % intervals miss."""
    pairs = sum(difference.quantity == "quality_sampled_final" for difference in differences)
    if pairs < 2:
        return []
    return [
        f"Every interval is at 95 % by itself; p values adjusted for the {pairs} comparisons of arms (Holm) are in "
        "differences.csv."
    ]
