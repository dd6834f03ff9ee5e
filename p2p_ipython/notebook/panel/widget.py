"""The panel as an anywidget. Importing this takes a while, and fails without anywidget or the built front end.

Its code is built from labextension/src/widget, in two modules; the second one is sent to a widget that asks for it.
The widget talks in custom messages only (channel.py): its state, which a notebook may save, has nothing of the cluster.
"""

from __future__ import annotations

import json
from importlib.resources import files

import anywidget
from traitlets import Unicode

_built = files("p2p_ipython") / "static"

MORE = json.dumps({"t": "more", "code": (_built / "more.js").read_text("utf-8")}).encode()
"""The message with the second module. Both modules are read together, so that they fit even if another version is
installed meanwhile."""


class PanelWidget(anywidget.AnyWidget):
    """A view of one pump's cluster; any number of cells may show it."""

    _esm = Unicode((_built / "widget.js").read_text("utf-8")).tag(sync=True)
    _css = Unicode((_built / "widget.css").read_text("utf-8")).tag(sync=True)

    def end(self) -> None:
        """Close the widget and its layout, which a widget doesn't close itself."""
        layout = self.layout
        self.close()
        layout.close()
