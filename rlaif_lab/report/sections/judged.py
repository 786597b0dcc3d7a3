"""Who judged: which role that captions name was whose, arm by arm."""

from __future__ import annotations

from html import escape

from rlaif_lab.metrics.labellers import labellers
from rlaif_lab.report.sections.view import View, arm_header, number_table

ROLES = {
    "judge": "training judge",
    "evaluator": "AI judge that evaluates",
    "audit": "judge that is audited",
    "heldout_judge": "held-out judge",
    "people": "people",
    "set_people": "people of the shared set",
    "gold": "gold",
    "measure": "what detector and trend measure by",
}


def judged(view: View) -> str:
    """Return the section. Roles that are the training judge's in every arm, and those that nobody has, are left out."""
    found = [(arm.label, labellers(arm.runs[0].config)) for arm in view.arms]
    shown = [
        role
        for role in ROLES
        if any(role in who for _, who in found)
        and (role == "judge" or any(who.get(role) not in (None, who["judge"]) for _, who in found))
    ]
    rows = [
        arm_header(view, label) + "".join(f"<td>{escape(who.get(role, 'nobody'))}</td>" for role in shown)
        for label, who in found
    ]
    return (
        '<h2 id="judged">Who judged</h2><p>Captions name roles; these are who had them. What is not judged is counted. '
        "Where people are simulated it says so.</p>" + number_table(["arm", *(ROLES[role] for role in shown)], rows)
    )
