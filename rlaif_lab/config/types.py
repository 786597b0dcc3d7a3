"""Settings against the annotations of what they configure, in one place: type, finiteness, range.

Every ``_target_`` node is checked against the signature of its class, and the core against ``RunConfig``. A message
names the dotted key, what was got and what is allowed. pydantic validates; the words are ours.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

from annotated_types import Ge, Gt, Le, Lt

from rlaif_lab.config.ranges import Written

NO_ANNOTATION = inspect.Parameter.empty
UNBOUNDED: dict[Any, Any] = {
    int: Annotated[int, Ge(-(10**9)), Le(10**9)],
    float: Annotated[float, Ge(-1e9), Le(1e9)],
}
"""What a number whose annotation names no range may be: anything that can be meant."""


# --- annotations ----------------------------------------------------------------------------------------------------
class _Names(Mapping[str, Any]):
    """The names that a module's annotations may use: its own, and what it imports for type checkers only."""

    def __init__(self, module: str) -> None:
        self.own = vars(sys.modules[module])

    def __getitem__(self, name: str) -> Any:
        # What a module imports at run time comes first: it is what its own code sees.
        if name in self.own:
            return self.own[name]
        place = _type_checking_imports(self.own["__name__"])[name]
        return getattr(importlib.import_module(place), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)


@cache
def _type_checking_imports(module: str) -> dict[str, str]:
    """Return name -> module of what stands under ``if TYPE_CHECKING:``."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    # Interactive classes have no source; their annotations then allow everything.
    except (OSError, TypeError, SyntaxError):
        return {}
    guarded = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    imports = [node for block in guarded for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module for node in imports if node.module for alias in node.names}


def parameters_of(target: Any) -> dict[str, tuple[Any, inspect.Parameter]]:
    """Return name -> (annotation, parameter) of a class or function, without ``*args`` and ``**kwargs``.

    An annotation that cannot be read (of a user's class, say) is ``Any``: it then allows everything.
    """
    signature = inspect.signature(target).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: parameter for name, parameter in signature.items() if parameter.kind not in variable}
    # `*args` and `**kwargs` have no name that a config could give.
    return {name: (_annotation(target, name, parameter.annotation), parameter) for name, parameter in named.items()}


def _annotation(target: Any, name: str, annotation: Any) -> Any:
    if annotation is NO_ANNOTATION:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {}, _Names(_module_of(target, name)))
    # A user's annotation may need what is not importable here: then nothing is checked.
    except Exception:
        return Any


def _module_of(target: Any, name: str) -> str:
    """Return the module whose names an annotation uses: that of the base class that declares it."""
    # The class that declares a parameter knows the names in its annotation, its subclasses need not.
    for owner in inspect.getmro(target) if inspect.isclass(target) else ():
        own = vars(owner).get("__init__") if not dataclasses.is_dataclass(owner) else None
        if name in vars(owner).get("__annotations__", {}) or name in getattr(own, "__annotations__", {}):
            return str(owner.__module__)
    return str(target.__module__)


def _lenient(annotation: Any) -> Any:
    """Return the annotation as YAML can write it: lists for tuples and sequences, mappings as dicts, instances of
    classes; numbers, strings and booleans are not turned into each other."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = arguments[0]
        # A range of our own replaces the general one.
        return Annotated[inner if inner in UNBOUNDED else _lenient(inner), *arguments[1:]]
    if annotation in UNBOUNDED:
        return UNBOUNDED[annotation]
    if origin in (Union, types.UnionType):
        return Union[tuple(_lenient(argument) for argument in arguments)]  # noqa: UP007 (of so many members)
    if origin in (tuple, list, Sequence):
        return list[_lenient(arguments[0])]  # type: ignore[misc]
    if origin in (dict, Mapping):
        return dict[_lenient(arguments[0]), _lenient(arguments[1])]  # type: ignore[misc]
    if is_typeddict(annotation):  # which takes its strictness from itself
        annotation.__pydantic_config__ = {"strict": True, "allow_inf_nan": False, "extra": "forbid"}
        return annotation
    if annotation in (str, bool, type(None), Any, list, dict) or origin is Literal:
        return annotation
    # A callable has no class of its own: it is looked at as `Callable`.
    if origin is Callable:
        return _instance_of(Callable)
    return _instance_of(annotation) if inspect.isclass(annotation) else Any


def _instance_of(owner: Any) -> Any:
    from pydantic import PlainValidator

    # Protocols are checked by their methods: nobody has to inherit from them.
    methods = {m for base in inspect.getmro(owner) for m in vars(base) if not m.startswith("_")}
    protocol = getattr(owner, "_is_protocol", False)

    def validate(value: Any) -> Any:
        if isinstance(value, _Unknown):
            return value
        if all(hasattr(type(value), name) for name in methods) if protocol else isinstance(value, owner):
            return value
        raise ValueError(f"not a {owner.__name__}")

    return Annotated[Any, PlainValidator(validate)]


@cache
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    lenient = _lenient(annotation)
    # strict: "3" is not 3, and true is not 1.
    return TypeAdapter(lenient, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))


# --- words ----------------------------------------------------------------------------------------------------------
def describe(annotation: Any, plural: bool = False) -> str:
    """Return what an annotation allows, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    s = "s" if plural else ""
    if origin is Annotated:
        bounds = interval(arguments[1:])
        return f"{describe(arguments[0], plural)}{f' in {bounds}' if bounds else ''}"
    if origin in (Union, types.UnionType):
        words = [describe(argument, plural) for argument in arguments if argument is not type(None)]
        return " or ".join(words + ["null"] * (type(None) in arguments))
    if origin is Literal:
        return f"one of {', '.join(_yaml(value) for value in arguments)}"
    if origin in (tuple, list, Sequence):
        return f"{'' if plural else 'a '}list{s} of {describe(arguments[0], plural=True)}"
    if origin in (dict, Mapping):
        value = "" if arguments[1] is Any else f" to {describe(arguments[1], plural=True)}"
        return f"{'' if plural else 'a '}mapping{s}{f' of names{value}' if value else ''}"
    if is_typeddict(annotation):
        return f"a mapping with the keys {', '.join(annotation.__annotations__)}"
    plain = {int: "integer", float: "number", str: "string", bool: "true or false", type(None): "null"}
    if annotation in plain:
        word = plain[annotation]
        if annotation in (bool, type(None)):
            return word
        return f"{word}s" if plural else f"{'an' if word == 'integer' else 'a'} {word}"
    name = "callable" if origin is Callable else getattr(annotation, "__name__", str(annotation))
    return f"{name}s" if plural else f"a {name} (a mapping with a _target_)"


def _bounds(metadata: Sequence[Any]) -> tuple[Any, bool, Any, bool]:
    """Return (lowest, whether it is allowed itself, highest, whether it is allowed itself); None: no bound."""
    low: Any = None
    high: Any = None
    closed_low, closed_high = True, True
    for entry in metadata:
        if isinstance(entry, Ge | Gt):
            low, closed_low = (entry.ge, True) if isinstance(entry, Ge) else (entry.gt, False)
        elif isinstance(entry, Le | Lt):
            high, closed_high = (entry.le, True) if isinstance(entry, Le) else (entry.lt, False)
    return low, closed_low, high, closed_high


def interval(metadata: Sequence[Any]) -> str:
    """Return bounds as an interval, such as ``[0, 1)``; empty where there are none."""
    low, closed_low, high, closed_high = _bounds(metadata)
    if low is None and high is None:
        return ""
    left = "(-inf" if low is None else f"{'[' if closed_low else '('}{_number(low)}"
    return f"{left}, {'inf)' if high is None else f'{_number(high)}' + (']' if closed_high else ')')}"


def missed(metadata: Sequence[Any], too_low: bool) -> str:
    """Return the bound that a number misses, such as ``be at least 1``; both of a short interval."""
    low, closed_low, high, closed_high = _bounds(metadata)
    if low is not None and high is not None and high < 1e3:
        return f"lie in {interval(metadata)}"
    if too_low and low == 0:
        return "not be negative" if closed_low else "be positive"
    if too_low:
        return f"be {'at least' if closed_low else 'above'} {_number(low)}"
    return f"be {'at most' if closed_high else 'below'} {_number(high)}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _yaml(value: Any) -> str:
    return (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def shown(value: Any, longest: int = 80) -> str:
    """Return a value as a message quotes it: as YAML writes it, on one line, not too long."""
    text = _yaml(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


# --- checks ---------------------------------------------------------------------------------------------------------
def check_value(path: str, annotation: Any, value: Any) -> None:
    """Check one setting. Raises ValueError with its dotted key.

    Args:
        path: dotted key, as the user writes it.
        annotation: what the signature says.
        value: plain containers; mappings with a ``_target_`` stand for what they build.
    """
    from pydantic import ValidationError

    # Before pydantic, whose message for nan complains of a type.
    where, number = next(not_finite(value, path), (None, None))
    if where is not None:
        raise ValueError(f"{where} must be finite; got {number}")
    stand_in = _built(value, path)
    try:
        _adapter(annotation).validate_python(stand_in)
    except ValidationError as error:
        raise ValueError(_sentence(path, annotation, value, error)) from None


def _sentence(path: str, annotation: Any, value: Any, error: Any) -> str:
    """Return the first complaint in words; a bound that is missed is told as such, where the type is right."""
    first = error.errors(include_url=False, include_input=False)[0]
    inside, place, at = value, path, annotation
    # Down to the value that is wrong: pydantic gives its place step by step.
    for step in first["loc"]:
        if isinstance(inside, dict) and step in inside and "_target_" not in inside:
            inside, place = inside[step], f"{place}.{step}"
        elif isinstance(inside, list) and isinstance(step, int) and step < len(inside):
            inside, place = inside[step], f"{place}[{step}]"
    if first["type"] == "extra_forbidden":
        known = list(getattr(annotation_of(at, dict), "__annotations__", {}))
        return f"{place}: unknown key{did_you_mean(place.rpartition('.')[2], known)}; known are {', '.join(known)}"
    numeric = isinstance(inside, int | float) and not isinstance(inside, bool)
    # A single complaint, about a bound: only then is the bound what to report.
    if numeric and len(error.errors()) == 1 and (bounds := _bounds_in(at, first["type"])):
        return f"{place} must {bounds}; got {shown(inside)}"
    choices = [str(choice) for choice in _choices(annotation)]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    quote = ""
    # Where a text is wanted and a number was read, quotes are what is missing.
    if isinstance(value, int | float) and not isinstance(value, bool) and annotation_of(annotation, str) is str:
        quote = f""" (as a string: '{path}="{value}"')"""
    detail = f" ({place} is {shown(inside)})" if place != path else ""
    return f"{path} must be {describe(annotation)}; got {shown(value)}{detail}{hint}{quote}"


def _bounds_in(annotation: Any, kind: str) -> str:
    """Return the bounds of the one Annotated in an annotation, if a bound was what pydantic missed."""
    if not kind.startswith(("greater", "less")):
        return ""
    # The general bounds, where an annotation names none.
    annotation = UNBOUNDED.get(annotation, annotation)
    if get_origin(annotation) is Annotated:
        return missed(get_args(annotation)[1:], too_low=kind.startswith("greater"))
    return next((found for inner in get_args(annotation) if (found := _bounds_in(inner, kind))), "")


def annotation_of(annotation: Any, kind: type) -> Any:
    """Return the member of a union that is ``kind``, or a TypedDict where ``kind`` is dict; else None."""
    if get_origin(annotation) is Annotated:
        return annotation_of(get_args(annotation)[0], kind)
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for inner in get_args(annotation) if (found := annotation_of(inner, kind))), None)
    return annotation if annotation is kind or (kind is dict and is_typeddict(annotation)) else None


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def allowed_text(node: Any, path: str) -> str:
    """Return what a key's annotation allows, as `` (a | b)``, or nothing where it says no more than a type.

    node: the config, plain. path: dotted. Asks the lab's own classes only: nothing is imported for a message.
    """
    *parents, name = path.split(".")
    for step in parents:
        node = node.get(step, {}) if isinstance(node, dict) else {}
    target = node.get("_target_", "") if isinstance(node, dict) else ""
    if not str(target).startswith("rlaif_lab."):
        return ""
    annotation = parameters_of(located(".".join(parents), target)).get(name, (None, None))[0]
    written = [one.allowed for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Written)]
    return "".join(f" ({text})" for text in written or [" | ".join(map(str, _choices(annotation)))] if text)


def not_finite(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """Yield (dotted key, value) of every number in plain containers that is nan or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from not_finite(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from not_finite(child, f"{path}[{i}]")


def _built(value: Any, path: str) -> Any:
    """Return the value with an empty instance in place of each mapping with a ``_target_``, so that its class can be
    held against the annotation."""
    if isinstance(value, dict) and "_target_" in value:
        target = located(path, str(value["_target_"]))
        # A function's result is known when it is called; what it returns is not looked at here.
        if not inspect.isclass(target) or value.get("_partial_"):
            return _Unknown()
        try:
            # Without `__init__`: only its class is looked at.
            return object.__new__(target)
        except TypeError:  # abstract
            return _Unknown()
    if isinstance(value, dict):
        return {key: _built(child, f"{path}.{key}") for key, child in value.items()}
    return [_built(child, f"{path}[{i}]") for i, child in enumerate(value)] if isinstance(value, list) else value


class _Unknown:
    """What a function returns: its class is known when it is built."""


def located(path: str, target: str) -> Any:
    """Import what a ``_target_`` names. Raises ValueError with the key in front."""
    module_name, _, attribute = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{path}._target_: cannot import {target!r} ({error})") from None
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, dir(module))
        raise ValueError(f"{path}._target_: module {module_name!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return a hint at the known word that is most like this one, or nothing."""
    # Private names are not suggested.
    close = difflib.get_close_matches(word, [k for k in known if not k.startswith("_")], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
