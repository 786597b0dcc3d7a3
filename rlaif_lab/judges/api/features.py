"""What an endpoint can do. OpenAI-compatible servers differ, and some ignore in silence what they have not got: nothing
is assumed, everything is seen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

TokenLimit = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class Features:
    """What a request may ask for beyond the plain completion.

    logprobs: log-probabilities of tokens. json: answers that keep to a JSON schema. many: several choices at once.
    seed: a seed to sample with. token_limit: what the endpoint calls the length of an answer. system: a system turn;
        without it, what that says goes in front of the user's.
    """

    logprobs: bool = False
    json: bool = False
    many: bool = False
    seed: bool = True
    token_limit: TokenLimit = "max_tokens"
    system: bool = True

    def without(self, complaint: str) -> Features | None:
        """Return the features left after an error message that names one of them; None when it names none."""
        told = complaint.lower()
        # The parameter's newer name, which OpenAI's reasoning models insist on.
        if self.token_limit == "max_tokens" and re.search("max_tokens|max_completion_tokens", told):
            return replace(self, token_limit="max_completion_tokens")
        if self.system and re.search(r"system.{0,20}(?:role|turn|message|prompt)|role.{0,20}system", told):
            return replace(self, system=False)
        if self.logprobs and "logprobs" in told:
            return replace(self, logprobs=False)
        if self.json and re.search("response_format|json_schema|json schema|structured output", told):
            return replace(self, json=False)
        if self.seed and re.search(r"\bseed\b", told):
            return replace(self, seed=False)
        # A single letter: it has to stand in quotes, or as the subject of a complaint.
        if self.many and re.search(r"""['"`.]n['"`]|\bn (?:must|has|is|should|can|>)|\bn=|multiple choices""", told):
            return replace(self, many=False)
        return None

    def bare(self) -> Features:
        """Return the plainest request, for a complaint that does not say of what."""
        return replace(self, logprobs=False, json=False, many=False, seed=False)

    def noted(self) -> dict[str, Any]:
        noted = asdict(self)
        if self.system:  # as before there was a choice, so that answers are found again
            del noted["system"]
        return noted

    @classmethod
    def of(cls, note: Mapping[str, Any]) -> Features:
        return cls(**note)
