"""Configs of runs that older versions wrote, with the settings that have come since."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from rlaif_lab.config import RunConfig, with_current_paths
from rlaif_lab.config.trusted import OWN
from rlaif_lab.config.types import NO_ANNOTATION, located, parameters_of

ONLY_CHOICE: dict[str, Any] = {"engine": {"_target_": "rlaif_lab.sampling.exact.Exact"}, "callbacks": {}, "metrics": {}}
"""What runs did before there was a choice, where the schema's own default says nothing of it."""


def with_later_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's config with every setting that it lacks at its default: what a version adds is by default what
    was done before, so that runs of two versions are told apart only by what they did.

    Only the lab's own classes are asked for their defaults: a folder may come from anybody.
    """
    filled = _filled(with_current_paths(ONLY_CHOICE | config))
    return _merged(asdict(RunConfig()), filled)


def _merged(default: Any, value: Any) -> Any:
    if not (isinstance(default, dict) and isinstance(value, dict)):
        return value
    return {key: _merged(default[key], value[key]) if key in value else default[key] for key in default} | {
        key: child for key, child in value.items() if key not in default
    }


def _filled(value: Any) -> Any:
    if isinstance(value, list):
        return [_filled(child) for child in value]
    if not isinstance(value, dict):
        return value
    return {key: _filled(child) for key, child in (_defaults(value.get("_target_")) | value).items()}


def _defaults(target: Any) -> dict[str, Any]:
    """Return the defaults of a class of the lab that a config can hold."""
    if not isinstance(target, str) or target.partition(".")[0] != OWN:
        return {}
    try:
        owner = located("", target)
        parameters = parameters_of(owner)
    # A class that is gone, or whose library is not installed here.
    except (ValueError, TypeError):
        return {}
    made = {field.name: field.default_factory for field in fields(owner)} if is_dataclass(owner) else {}
    found = {}
    for name, (_, parameter) in parameters.items():
        factory = made.get(name, MISSING)
        try:
            if factory is not MISSING:
                found[name] = json.loads(json.dumps(factory()))
            elif parameter.default is not NO_ANNOTATION:
                found[name] = json.loads(json.dumps(parameter.default))
        # An object: no value of a config.
        except (TypeError, ValueError):
            continue
    return found
