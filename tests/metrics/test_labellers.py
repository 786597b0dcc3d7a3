"""Every metric says who judged, and a run says who that was."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif_lab.metrics.catalogue import row_of, rows
from rlaif_lab.metrics.labellers import WORDS, labellers

PEOPLE = {"_target_": "rlaif_lab.judges.people.PeopleJudge", "name": "people"}
ANNOTATOR = {"_target_": "rlaif_lab.judges.annotator.SimulatedAnnotator", "flip": 0.25}
SELF = {"_target_": "rlaif_lab.judges.logprob.ModelJudge", "name": "self"}
TASK = {"_target_": "rlaif_lab.tasks.arithmetic.Addition"}


def budget(human: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"_target_": "rlaif_lab.judges.wrappers.human_budget.HumanBudget", "of": SELF, "human": human, **settings}


def test_every_row_that_is_judged_names_known_roles() -> None:
    for row in rows():
        assert set(row.by) <= set(WORDS), row.name
        assert ("Judged by: " in row.caption()) == bool(row.by)
        if row.needs_gold and not row.name.startswith(("audit/", "quality/", "coverage/")):
            assert "gold" in row.by, row.name


@pytest.mark.parametrize(
    ("metric", "by"),
    [
        ("quality/sampled", ("gold",)),
        ("quality/change", ("measure",)),
        ("heldout_judge/win_rate_vs_round_0", ("role",)),
        ("judge/accuracy", ("judge", "gold")),
        ("human_set/win_rate", ("set_people",)),
        ("ppi/win_rate_vs_round_0", ("people", "evaluator")),
        ("kl/per_sequence", ()),
        ("cost/human_labels", ()),
    ],
)
def test_who_judges_what(metric: str, by: tuple[str, ...]) -> None:
    assert row_of(metric).by == by


def test_a_family_says_which_of_its_roles_a_name_is() -> None:
    name = "heldout_judge/win_rate_vs_round_0"
    assert row_of(name).caption(name).endswith("Judged by: the held-out judge.")
    assert row_of("audit/kappa_frozen").caption("audit/kappa_frozen").endswith("against the bank's labels.")


def test_a_run_says_who_had_which_role_and_that_simulated_people_are() -> None:
    found = labellers({"judge": budget(ANNOTATOR, share=0.2), "task": TASK, "detector": {"measure": "people"}})
    simulated = "simulated people (gold, 25% of preferences flipped)"
    assert found["people"] == found["measure"] == simulated
    assert found["judge"] == found["audit"] == f"AI judge self; {simulated} for 20% of the comparisons"
    assert found["evaluator"] == "AI judge self"
    assert "heldout_judge" not in found and "set_people" not in found


def test_real_people_are_audited_only_where_they_are_asked_to_evaluate() -> None:
    """Else the AI judge is, which is what the run does."""
    asked, not_asked = (
        labellers({"judge": budget(PEOPLE | {"evaluate": evaluate}, share=0.2)}) for evaluate in (True, False)
    )
    assert asked["audit"] == "AI judge self; real people for 20% of the comparisons"
    assert not_asked["audit"] == "AI judge self"
    assert labellers({"judge": budget(PEOPLE, use="evaluate")})["judge"] == "AI judge self"


def test_people_alone_a_shared_set_and_a_task_without_gold() -> None:
    found = labellers({"judge": PEOPLE, "task": {"_target_": "rlaif_lab.tasks.prompts_file.PromptsFile"}})
    assert found["judge"] == found["people"] == "real people" and "gold" not in found
    found = labellers({"judge": SELF, "human_set": {"by": PEOPLE}, "task": TASK})
    assert found["set_people"] == "real people" and "people" not in found and "gold" in found
