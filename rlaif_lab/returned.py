"""What a class of the user's returns is checked where it returns it: one sentence names the class, the method and what
came. The base classes of judges, tasks and learners have their subclasses' methods checked so."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def check_returns(owner: type, method: str, check: Callable[..., Any]) -> None:
    """Have ``check`` look at what a class's own method returns, if it defines that method.

    check: takes the instance, what was returned and the method's arguments, and gives what is passed on. It raises
    ValueError.
    """
    defined = vars(owner).get(method)
    if not callable(defined) or getattr(defined, "__isabstractmethod__", False):
        return

    @functools.wraps(defined)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        return check(self, defined(self, *args, **kwargs), *args, **kwargs)

    setattr(owner, method, checked)


def records(where: str, found: Any, kind: type[T], count: int | None = None) -> list[T]:
    """Return a list of records of one kind. Raises ValueError for anything else, or for another number of them."""
    wanted = f"a list of {'' if count is None else f'{count} '}{kind.__name__}s"
    if not isinstance(found, (list, tuple)):
        raise ValueError(f"{where} must return {wanted}; it returned {shown(found)}")
    for i, one in enumerate(found):
        if not isinstance(one, kind):
            raise ValueError(f"{where} must return {wanted}; number {i} of them is {shown(one)}")
    if count is not None and len(found) != count:
        raise ValueError(f"{where} must return {wanted}; it returned {len(found)}")
    return list(found)


def number(value: Any) -> float | None:
    """Return a real number of any library's as Python's own; None of what is none, as of true and false."""
    if type(value) is float:  # nearly always: the abstract class that tells other libraries' numbers is slow to ask
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return float(value)


def finite(where: str, values: Sequence[Any], what: str) -> None:
    """Raise ValueError for the first of several numbers that is none, or not finite."""
    for value in values:
        if type(value) is float and math.isfinite(value):
            continue
        found = number(value)
        if found is None or not math.isfinite(found):
            raise ValueError(f"{where}: {what} must be finite numbers; got {shown(value)}")


def named(instance: Any, method: str) -> str:
    """Return what messages call a method: the class's own path."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}.{method}"


def shown(value: Any) -> str:
    """Return a value in short, with its class where it does not show it."""
    if value is None or isinstance(value, (bool, str, int, float)):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    size = f" of {len(value)}" if isinstance(value, (list, tuple, dict, set)) else ""
    return f"a {type(value).__name__}{size}"
