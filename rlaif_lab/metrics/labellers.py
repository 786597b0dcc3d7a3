"""Who judged: the roles by which metrics are judged, and who has which role in a run.

A metric's row in the catalogue names roles, which are the same for all runs; a run's config says who they are. Where
people are meant it says whether they are real or simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Role = Literal["gold", "judge", "role", "evaluator", "audit", "measure", "people", "set_people"]
WORDS: Mapping[Role, str] = {
    "gold": "gold",
    "judge": "the training judge",
    "role": "the training judge or the held-out judge, as its name says",
    "evaluator": "the AI judge that evaluates",
    "audit": "the training judge against gold (on-policy), the audited judge against the bank's labels (frozen)",
    "measure": "whoever `detector.measure` names",
    "people": "people",
    "set_people": "the people of the shared set",
}
"""Each role in words; who it is in a run is what `labellers` returns."""

CONTROLS = ("RandomJudge", "ReversedJudge")
SIMULATED = "simulated people"
SEE_GOLD = ("OracleJudge", "NoisyOracleJudge", "ClassErrorJudge")


def in_words(roles: Iterable[Role], metric: str = "") -> str:
    """Return roles in words; "" for none. metric: a logged name, which says which of two a role is."""
    return " and ".join(_word(role, metric) for role in roles)


def _word(role: Role, metric: str) -> str:
    family = metric.partition("/")[0]
    if role == "role" and family in ("judge", "heldout_judge"):
        return WORDS["judge"] if family == "judge" else "the held-out judge"
    if role == "audit" and "frozen" in metric:
        return "the audited judge, against the bank's labels"
    if role == "audit" and metric.endswith("_on_policy"):
        return "the training judge, against gold"
    return WORDS[role]


def labellers(config: Mapping[str, Any]) -> dict[str, str]:
    """Return who has which role in the run of this config, by role; roles that nobody has are left out."""
    judge = _part(config, "judge")
    found = {"judge": labeller(judge), "evaluator": labeller(judge), "audit": labeller(judge)}
    if _has_gold(config):
        found["gold"] = "gold of the task: its own grader"
    heldout = _part(config, "heldout_judge")
    if heldout:
        found["heldout_judge"] = labeller(heldout)
    human = _part(judge, "human")
    if human:
        found["evaluator"] = labeller(_part(judge, "of"))
        audits = judge.get("use") != "evaluate" and (not is_real(human) or human.get("evaluate"))
        found["audit"] = found["judge"] if audits else found["evaluator"]
        found["people"] = labeller(human)
    elif stands_for_people(judge):
        found["people"] = found["judge"]
    by = _part(_part(config, "human_set"), "by")
    if by:
        found["set_people"] = labeller(by)
    measure = _part(config, "detector").get("measure")
    if measure in found:
        found["measure"] = found[measure]
    return found


def labeller(judge: Mapping[str, Any]) -> str:
    """Return who a judge is, from its config: gold, an AI judge, real people, simulated people, or a control."""
    kind = str(judge.get("_target_", "")).rpartition(".")[2]
    name = judge.get("name") or kind or "unknown"
    if kind == "PeopleJudge":
        return "real people"
    if kind == "SimulatedAnnotator":
        return f"{SIMULATED} (gold, {float(judge.get('flip', 0.1)):.0%} of preferences flipped)"
    if kind == "HumanBudget":
        of, human = labeller(_part(judge, "of")), labeller(_part(judge, "human"))
        share = float(judge.get("share", 0.1))
        return of if judge.get("use") == "evaluate" else f"{of}; {human} for {share:.0%} of the comparisons"
    if kind in SEE_GOLD:
        return f"judge {name}, which sees gold"
    if kind in CONTROLS:
        return f"judge {name}, a control"
    inner = _part(judge, "of")
    if inner and stands_for_people(inner):
        return f"{labeller(inner)}, through {name}"
    return f"AI judge {name}"


def is_simulated(labeller: str | None) -> bool:
    """Return whether who is named so is simulated people."""
    return labeller is not None and labeller.startswith(SIMULATED)


def stands_for_people(judge: Mapping[str, Any]) -> bool:
    """Return whether a judge is people, real or simulated, from its config."""
    return is_real(judge) or str(judge.get("_target_", "")).endswith(".SimulatedAnnotator")


def is_real(judge: Mapping[str, Any]) -> bool:
    """Return whether a judge is real people."""
    return str(judge.get("_target_", "")).endswith(".PeopleJudge")


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _has_gold(config: Mapping[str, Any]) -> bool:
    return not str(_part(config, "task").get("_target_", "")).endswith(".PromptsFile")
