"""Imitation of one's own second thoughts."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.learners.sft import SFT


@dataclass(kw_only=True, eq=False)
class RevisionSFT(SFT):
    """SFT on responses that the policy rewrote after criticising them (the supervised phase of Constitutional AI, Bai
    et al. 2212.08073)."""

    name: str = "revision_sft"

    needs = ("revisions",)

    def examples(self, feedback: Feedback) -> list[Example]:
        return [
            Example(r.prompt, (r.revised,), (1.0,), feedback.round_index, sampled=False) for r in feedback.revisions
        ]
