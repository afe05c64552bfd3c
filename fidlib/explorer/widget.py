"""The explorer in a cell: a widget, behind which a kernel answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from fidlib.explorer import page

if TYPE_CHECKING:
    from fidlib.explorer import Packed


class View(anywidget.AnyWidget):
    """What the browser and the kernel tell each other."""

    _esm = page.script()
    _css = page.style()
    about = traitlets.Dict().tag(sync=True)
    blob = traitlets.Bytes().tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    wanted = traitlets.Dict().tag(sync=True)
    """One level of a plane: corners, models, side; the next only when still wanted."""
    plane = traitlets.Dict().tag(sync=True)
    """The answer: `wanted`, and of each model `cells` and `edges`, flat."""

    @classmethod
    def of(cls, packed: Packed) -> View:
        """A view of what was packed, live where there are models to ask."""
        about, blob, _, planes = packed
        view = cls(about=about, blob=blob, live=planes is not None)
        if planes is None:
            return view

        def answer(change: Any) -> None:
            wanted = change.new
            corners, side = wanted["corners"], wanted["side"]
            try:
                names = wanted["models"]
                cells = [planes.cells(n, corners, side).ravel().tolist() for n in names]
                edges = [planes.edges(n, corners).ravel().tolist() for n in names]
            except Exception as error:  # it is the user's to read, in the browser
                view.plane = {"error": f"The kernel could not compute it: {error}"}
                return
            view.plane = {**wanted, "cells": cells, "edges": edges}

        view.observe(answer, "wanted")
        return view
