"""The card as a widget, with the fields of a task that the browser shows.

Importing this takes a while, and fails without anywidget or the built front end. Its code is built from
labextension/src/card. Only the kernel writes its state; the browser sends messages (see card.py).
"""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any

import anywidget
from traitlets import Float, Unicode

_built = files("p2p_ipython") / "static"


class CardWidget(anywidget.AnyWidget):
    """The fields of ``card.Face``, and the kernel's time when they were sent."""

    _esm = Unicode((_built / "card.js").read_text("utf-8")).tag(sync=True)
    _css = Unicode((_built / "card.css").read_text("utf-8")).tag(sync=True)
    label = Unicode("").tag(sync=True)
    state = Unicode("").tag(sync=True)
    words = Unicode("").tag(sync=True)
    worker = Unicode("").tag(sync=True)
    error = Unicode("").tag(sync=True)
    submitted = Float(0.0).tag(sync=True)
    started = Float(0.0).tag(sync=True)
    ended = Float(0.0).tag(sync=True)
    part = Float(-1.0).tag(sync=True)
    # A page that is reloaded asks for the state long after its last change.
    now = Float(0.0).tag(sync=True, to_json=lambda _value, _widget: time.time())

    def update(self, fields: dict[str, Any]) -> None:
        """Send these fields, in one message."""
        with self.hold_sync():
            for name, value in fields.items():
                setattr(self, name, value)
            self.now = time.time()

    def end(self) -> None:
        """Close the widget and its layout, which a widget doesn't close itself."""
        layout = self.layout
        self.close()
        layout.close()
