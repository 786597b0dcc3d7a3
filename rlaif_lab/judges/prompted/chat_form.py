"""What a chat template makes of a judge's question: seen from what it writes, since templates drop turns in silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif_lab.instructions.thoughts import open_thought

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel

_TOLD, _ASKED = "what the judge is told first", "what the judge is asked"


@dataclass(frozen=True)
class ChatForm:
    """system: a system turn is in what the template writes. closing: what ends the thought that it opens for the
    assistant, empty where it opens none. begins: what the template writes between the question and the answer."""

    system: bool
    closing: str = ""
    begins: str = ""

    @classmethod
    def of(cls, model: LanguageModel) -> ChatForm:
        """Find out what this model's template does.

        Raises ValueError where it does not write what a user says: then nothing can be asked.
        """
        asked = {"role": "user", "content": _ASKED}
        alone = _written(model, [asked])
        if _ASKED not in alone:
            raise ValueError(
                f"the chat template of model {model.name!r} does not write what the user says, so it cannot be asked "
                "to judge; take another model, or judge by likelihood (judge=self, judge.reads=mean_logp)"
            )
        try:
            # The template may raise at a system turn, or drop it; both count as having none.
            both = _written(model, [{"role": "system", "content": _TOLD}, asked])
        except ValueError:
            both = ""
        system = _TOLD in both and _ASKED in both
        # What follows the question is how the template begins the answer.
        begins = (both if system else alone).rpartition(_ASKED)[2]
        thought = open_thought(begins)
        return cls(system, "" if thought is None else f"\n{thought}\n\n", begins)

    def closing_ids(self, tokenizer: Any) -> list[int]:
        """Return the tokens that end the opened thought, its mark being the control token that the model knows."""
        if not self.closing:
            return []
        ids: list[int] = tokenizer(self.closing, add_special_tokens=False)["input_ids"]
        return ids


def _written(model: LanguageModel, turns: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            model.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **dict(model.chat_options)
            )
        )
    except TemplateError as error:
        raise ValueError(str(error)) from error
