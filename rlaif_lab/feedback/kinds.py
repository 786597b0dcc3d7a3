"""Which kinds of feedback a run collects, found by the names that its learner gives."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from rlaif_lab.config import did_you_mean
from rlaif_lab.feedback.base import FeedbackKind
from rlaif_lab.feedback.pairing import Pairing

JUDGEMENTS = "judgements"
"""What every run has and no file here makes: the judge's verdicts on the samples."""


def kind_named(name: str) -> FeedbackKind:
    """Return the kind of that name, which is a file in this folder, or a class path (``my_lab.votes.Votes``).

    Raises:
        ValueError: there is none.
    """
    # A name with a dot is a class path, of a package of the user's; any other is a file in this folder.
    module_name, _, class_name = name.rpartition(".") if "." in name else (f"rlaif_lab.feedback.{name}", "", "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        known = ("pairs", "scores", "rewards", "revisions", "demonstrations")
        raise ValueError(
            f"no kind of feedback {name!r}{did_you_mean(name, known)}; there is {', '.join((JUDGEMENTS, *known))}, "
            f"or a class path ({error})"
        ) from None
    kinds = [
        value
        for value in vars(module).values()
        # Defined in the module itself: base classes and helpers that it imports are not kinds of its own.
        if isinstance(value, type) and issubclass(value, FeedbackKind) and value.__module__ == module_name
    ]
    wanted = [kind for kind in kinds if kind.__name__ == class_name or getattr(kind, "name", None) == name]
    if not wanted:
        raise ValueError(f"{module_name} has no kind of feedback {name!r}; it has {[k.__name__ for k in kinds]}")
    return wanted[0]()


def kinds_for(names: Sequence[str], pairing: Pairing) -> tuple[FeedbackKind, ...]:
    """Return what a run collects for a learner that trains on the feedback of these names: pairs always, and revisions
    where the pairs are made of them."""
    # A dictionary for its order, and since a name may be given twice. Pairs always: their number is logged.
    wanted = dict.fromkeys(("pairs", *names))
    if pairs_are_revisions(names, pairing):
        wanted["revisions"] = None
    # What every run has is made by no kind.
    wanted.pop(JUDGEMENTS, None)
    return tuple(kind_named(name) for name in wanted)


def pairs_are_revisions(names: Sequence[str], pairing: Pairing) -> bool:
    """Tell whether a learner on pairs is given rewritten answers against originals, not what the judge chose."""
    return "pairs" in names and pairing.source == "revisions"
