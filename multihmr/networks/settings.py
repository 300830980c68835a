"""Fields of a network's config, changed by a line of text, as `multihmr train --network` takes it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, TypeVar

Config = TypeVar("Config", bound=Any)

_TRUTH = {"yes": True, "true": True, "no": False, "false": False}


def changed(config: Config, settings: str) -> Config:
    """The config with other values, written as "head=iterative,people_attention=no".

    ValueError: no such field, or no value for it.
    """
    values: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        name, _, text = setting.strip().partition("=")
        kind = type(getattr(config, name, None))
        if kind is bool and text in _TRUTH:
            values[name] = _TRUTH[text]
        elif kind in (int, float, str) and text:
            values[name] = kind(text)
        else:
            fields = ", ".join(f for f, value in asdict(config).items() if not isinstance(value, tuple))
            raise ValueError(f"{setting!r} sets nothing of the network; expected NAME=VALUE of {fields}")
    return replace(config, **values)
