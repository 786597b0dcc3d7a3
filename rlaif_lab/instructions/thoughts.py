"""What a model thought before it answered, taken out of what it said: one function for every judge that reads words.

Models mark their thoughts in many ways, and a chat template may write the opening mark itself, so that an answer begins
within a thought. A thought that was cut off is followed by no answer.
"""

from __future__ import annotations

import re

_NAME = (
    r"(?:[a-z]+[:_])?(?:(?:begin|start|end)_(?:of_)?)?(?:inner_?)?"
    r"(?:think|thinking|thought|thoughts|reason|reasoning|analysis|reflection|scratchpad|monologue|cot|prefix)"
    r"(?:_(?:start|end))?"
)
_OPENED = re.compile(
    rf"<\|?(?!/|\|?end_)(?!\|?{_NAME}_end){_NAME}\|?>|◁{_NAME}▷|\[{_NAME}\]|```\s*(?:thinking|thoughts?|reasoning)\b",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    r"</\s*(?:[a-z]+[:_])?(?:inner_?)?(?:think|thinking|thought|thoughts|reason|reasoning|analysis|reflection"
    r"|scratchpad|monologue|cot)\s*>"
    r"|<\|?/(?:[a-z]+[:_])?(?:think|thinking|thought|reasoning)\|?>"
    r"|<\|?end_(?:of_)?(?:think|thinking|thought|thoughts|reasoning)\|?>"
    r"|<\|?(?:think|thinking|thought|reasoning)_end\|?>|<\|inner_suffix\|>"
    r"|◁/(?:think|thinking|thought|reasoning)▷|\[/(?:think|thinking|thought|reasoning)\]",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|?>\s*(\w+)")
_CHANNEL_ENDS = re.compile(r"<\|?(?:channel|end|return|start|call)\|?>")
_FLAT_CHANNEL = re.compile(r"\s*analysis(?=[A-Z\s\"'])")  # the same without its control tokens
_FLAT_FINAL = re.compile(r"assistant\s*final\s*", re.IGNORECASE)
_HEADED = re.compile(r"^\s*here is my thought process\s*:", re.IGNORECASE | re.MULTILINE)
_HEADED_ANSWER = re.compile(r"here is my response\s*:", re.IGNORECASE)
_WRAPPING = re.compile(
    r"<\|?/?(?:begin_of_|end_of_|start_|end_)?(?:answer|solution|response|verdict|output|final(?:_answer"
    r"|_verdict)?|score|rating|grade|choice|winner|decision|preference|judge?ment)\|?>"
    r"|<\|(?:message|end|return|im_end|eot_id|endoftext)\|>|◁/?(?:answer|response)▷",
    re.IGNORECASE,
)


def without_thoughts(text: str, opened: bool = False) -> str | None:
    """Return what a model said when it had finished thinking; None when it never had.

    Args:
        text: The model's words, thoughts and their marks included.
        opened: Whether the chat template had opened a thought, so that the text begins within one.
    """
    # Channels first: their marks say themselves which part is the answer.
    if _CHANNEL.search(text):
        return _final_channel(text)
    if _FLAT_CHANNEL.match(text) and (_FLAT_FINAL.search(text) or not _CLOSED.search(text)):
        parts = _FLAT_FINAL.split(text)
        return _unwrapped(parts[-1]) if len(parts) > 1 else None
    if headed := _HEADED.search(text):
        parts = _HEADED_ANSWER.split(text[headed.end() :])
        return _unwrapped(parts[-1]) if len(parts) > 1 else None
    closings = list(_CLOSED.finditer(text))
    # The template opened a thought, and nothing closed it.
    if opened and not closings:
        return None
    rest = text[closings[-1].end() :] if closings else text
    # Opened again after the last closing: it was cut off within a thought.
    return None if _OPENED.search(rest) else _unwrapped(rest)


def open_thought(text: str) -> str | None:
    """Return what closes the thought in which a text ends; None when it ends in none.

    A template that begins an assistant's turn with ``<think>`` is so told from one that closes it again.
    """
    found = list(_OPENED.finditer(text))
    if not found or any(closing.start() >= found[-1].end() for closing in _CLOSED.finditer(text)):
        return None
    mark = found[-1].group()
    if mark.startswith("```"):
        return "```"
    if match := re.fullmatch(r"(<\|?)(begin|start)_(of_)?(\w+)(\|?>)", mark, re.IGNORECASE):
        end = "END" if match[2].isupper() else "end"
        return f"{match[1]}{end}_{match[3] or ''}{match[4]}{match[5]}"
    if mark.lower() == "<|inner_prefix|>":
        return "<|inner_suffix|>"
    if match := re.fullmatch(r"(<\|?)(\w+)_start(\|?>)", mark, re.IGNORECASE):
        return f"{match[1]}{match[2]}_end{match[3]}"
    # <think> is closed by </think>.
    return f"{mark[0]}/{mark[1:]}"


def _final_channel(text: str) -> str | None:
    """Return, of an answer in channels (``<|channel|>analysis<|message|>...``) what its last one says, if that is for
    the reader."""
    last = list(_CHANNEL.finditer(text))[-1]
    if last.group(1).lower() == "final":
        return _unwrapped(text[last.end() :])
    if not last.group().startswith("<|channel|>"):  # <|channel>thought ... <channel|> answer
        closed = list(re.finditer(r"<channel\|>", text))
        return _unwrapped(text[closed[-1].end() :]) if closed and closed[-1].start() > last.end() else None
    return None


def _unwrapped(text: str) -> str:
    """Return the text without marks that say that this is the answer; each ends a line."""
    return _WRAPPING.sub("\n", text).strip()
