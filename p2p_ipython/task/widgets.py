"""Widgets of ipywidgets: each travels as its class and its settings. One that comes home unchanged is the one here.

A widget is half in the browser, and the channel to that half can't travel. So the worker makes one of its class with
its settings, which no browser shows. Its observers stay at home.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import sys
from typing import Any

CLASS = "ipywidgets.widgets.widget.Widget"

_LEFT = frozenset({"comm", "keys", "log"})
_NUMBER = "_p2p_number"


def taken_apart(widget: Any) -> tuple[Any, ...]:
    """Reduce a widget to its class, its settings, and its number in the notebook that it comes from."""
    return again, (type(widget), settings(widget), vars(widget).get(_NUMBER) or widget.model_id or "")


def again(kind: Any, given: dict[str, Any], number: str) -> Any:
    """Return the widget of that ``number``, if it is here and has the settings ``given``, or a new one."""
    here = getattr(sys.modules.get("ipywidgets.widgets.widget"), "_instances", {}).get(number)
    if type(here) is kind and settings(here) == given:
        return here
    made = kind(**given)
    vars(made)[_NUMBER] = number
    return made


def settings(widget: Any) -> dict[str, Any]:
    """Return the values that a widget has been given or has got, but for those that its class alone decides."""
    traits = widget.traits()
    return {
        name: value
        for name, value in widget._trait_values.items()
        if name in traits and not name.startswith("_") and name not in _LEFT and not traits[name].read_only
    }
