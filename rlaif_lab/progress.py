"""Progress bars, and lines that name their run where several print at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


class Terminal:
    """sweep: this process is one of several that print: every line names its run, and the columns are named once.
    bars: progress bars where there is a terminal; two processes would overwrite each other's."""

    sweep = False
    bars = True
    named = False


def say(run: str, text: str) -> None:
    """A line about ``run``, which names it where there are several."""
    print(f"{run}: {text}" if Terminal.sweep else text, flush=True)


def bar(items: Iterable[Any] | None = None, **settings: Any) -> tqdm[Any]:
    """A progress bar that goes away when it is done; none where there is no terminal."""
    from tqdm.auto import tqdm

    return tqdm(items, disable=None if Terminal.bars else True, leave=False, **settings)
