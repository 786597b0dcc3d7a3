"""A bank's labels as a task, for the judges that are given gold (oracle, noisy oracle)."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.base import Split, Task


class BankGold(Task):
    """Quality 1 for the better response of a pair, 0 for the worse, 0.5 for both of a tie. It has no prompts."""

    name = "labels of the bank"
    max_response_tokens = 1

    def __init__(self, pairs: Sequence[LabelledPair]) -> None:
        self.known: dict[tuple[str, str], float] = {}
        for pair in pairs:
            comparison, first = pair.comparison, pair.prob_first_is_better
            for text, quality in ((comparison.first, first), (comparison.second, 1.0 - first)):
                key = (comparison.prompt.id, text)
                # A text may occur in several pairs: the best that is said about it holds.
                self.known[key] = max(quality, self.known.get(key, 0.0))

    def available(self, split: Split) -> int:
        return 0

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        raise ValueError("a pair bank has labelled pairs and no prompts to be answered")

    def quality(self, prompt: Prompt, response: str) -> float:
        if (prompt.id, response) not in self.known:
            raise ValueError(f"the bank has no label for the response {response!r} to {prompt.id!r}")
        return self.known[prompt.id, response]
