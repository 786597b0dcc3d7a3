"""Where a response gives its answer."""

from __future__ import annotations

import re
from typing import Literal, get_args

from rlaif_lab.tasks.graders.numbers import last_number, written

Where = Literal["whole", "last_line", "last_number", "tag"]
WAYS: tuple[Where, ...] = get_args(Where)
"""The whole response; its last line that is not empty; its last number; what stands between <answer> and </answer>."""

_CUE = re.compile(r"(?:final\s+)?answer(?:\s+is|\s*[:=])(?:\s*[:=])?", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!]\s|\n")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


def extract(response: str, where: Where) -> str | None:
    """Return the answer that a response gives; None where it gives none."""
    if where == "tag":
        # The last one counts, here and below: a response may correct itself.
        found = _TAG.findall(response)
        return found[-1].strip() if found else None
    if where == "last_line":
        lines = [line.strip() for line in response.splitlines() if line.strip()]
        return lines[-1] if lines else None
    if where == "last_number":
        number = last_number(response)
        return None if number is None else written(number[0])
    return response.strip() or None


def final_statement(response: str) -> str:
    """Return the part of a response that states its answer: boxed, tagged, behind ``####``, or the sentence
    behind "answer is"; else all of it."""
    # From the most explicit form to the least.
    boxed = last_boxed(response)
    if boxed is not None:
        return boxed
    tagged = _TAG.findall(response)
    if tagged:
        return str(tagged[-1])
    if "####" in response:
        return response.rpartition("####")[2]
    cues = list(_CUE.finditer(response))
    behind = response[cues[-1].end() :].strip() if cues else ""
    return _SENTENCE.split(behind, maxsplit=1)[0] if behind else response


def last_boxed(text: str) -> str | None:
    """Return what stands in the last ``\\boxed{...}``, braces within it included; None without one."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    # Cut off within the box.
    return None
