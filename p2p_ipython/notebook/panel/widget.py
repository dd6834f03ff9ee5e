"""The panel as an anywidget. Importing it takes a while, and fails where it can't work.

Its code is built from labextension/src/widget, in two modules: the second one is sent to who asks for it. All that it
says and hears are custom messages (channel.py): nothing of the cluster is in its state, which a notebook may save.
"""

from __future__ import annotations

import json
from importlib.resources import files

import anywidget
from traitlets import Unicode

_built = files("p2p_ipython") / "static"

MORE = json.dumps({"t": "more", "code": (_built / "more.js").read_text("utf-8")}).encode()
"""The message with the second module, read with the first one, so that they fit whatever is installed meanwhile."""


class PanelWidget(anywidget.AnyWidget):
    """A view of one pump's cluster; any number of cells may show it."""

    _esm = Unicode((_built / "widget.js").read_text("utf-8")).tag(sync=True)
    _css = Unicode((_built / "widget.css").read_text("utf-8")).tag(sync=True)

    def end(self) -> None:
        """Leave nothing behind: a widget doesn't close its layout."""
        layout = self.layout
        self.close()
        layout.close()
