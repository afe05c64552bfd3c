"""The explorer in a cell: a widget, behind which a kernel answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
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
    """The answer: for each model cells (u2) and edges (f4), little-endian."""

    @classmethod
    def of(cls, packed: Packed) -> View:
        """A view of what was packed, live where there are models to ask."""
        about, blob, _, planes = packed
        view = cls(about=about, blob=blob, live=planes is not None)
        if planes is None:
            return view

        def answer(change: Any) -> None:
            wanted, begun = change.new, time.perf_counter()
            corners, side = wanted["corners"], wanted["side"]
            parts: dict[str, list[bytes]] = {"cells": [], "edges": []}
            try:
                for name in wanted["models"]:
                    cells = planes.cells(name, corners, side).astype("<u2")
                    edges = planes.edges(name, corners).astype("<f4")
                    parts["cells"].append(cells.tobytes())
                    parts["edges"].append(np.ascontiguousarray(edges).tobytes())
            except Exception as error:  # it is the user's to read, in the browser
                view.plane = {"error": f"The kernel could not compute it: {error}"}
                return
            seconds = time.perf_counter() - begun
            view.plane = {**wanted, **parts, "seconds": round(seconds, 3)}

        view.observe(answer, "wanted")
        return view
