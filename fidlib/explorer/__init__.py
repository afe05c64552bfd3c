"""The interactive explorer: widget, its ES modules and CSS, the page without a kernel.

What is published is shown without torch, matplotlib or umap.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fidlib.explorer import page
from fidlib.runs import store

if TYPE_CHECKING:
    import pandas as pd

    from fidlib.data import Split
    from fidlib.explorer.live import Planes
    from fidlib.explorer.scene import Scene
    from fidlib.models import Classifier
    from fidlib.study.lineage import Name
    from fidlib.study.study import Study


class Packed(NamedTuple):
    """A scene as the browser gets it, and what asks its models, if they are here."""

    about: dict[str, Any]
    blob: bytes
    scene: Scene | None = None
    planes: Planes | None = None


class Explorer:
    """Shows itself in a cell; `page` writes a file that needs no kernel.

    What it shows is gathered when it is first shown or written, and never when nobody
    can look at it, as under papermill.

    Args:
        gather: Makes what it shows.
    """

    def __init__(self, gather: Callable[[], Packed]) -> None:
        self._gather = gather

    @cached_property
    def _packed(self) -> Packed:
        return self._gather()

    @cached_property
    def _view(self) -> Any:
        from fidlib.explorer.widget import View

        return View.of(self._packed)

    @property
    def state(self) -> dict[str, Any]:
        """What is chosen in it; set some of it, and the view follows."""
        return dict(self._view.state)

    @state.setter
    def state(self, values: dict[str, Any]) -> None:
        self._view.state = {**self._view.state, **values}

    @property
    def selected(self) -> np.ndarray:
        """Numbers, in their split, of the images that the lasso chose."""
        rows = np.asarray(self.state.get("selected", []), int)
        numbers = page.unpack(self._packed.about, self._packed.blob, ["rows"])["rows"]
        return numbers[rows[rows < len(numbers)]].astype(int)

    @property
    def selected_triggers(self) -> np.ndarray:
        """Numbers of the triggers that the lasso chose."""
        rows = np.asarray(self.state.get("selected", []), int)
        images = self._packed.about["images"]
        return rows[rows >= images] - images

    def page(self, path: str | Path, *, planes: int = 0, below: str = "") -> Path:
        """Write a page that needs neither kernel nor network; it contains the images.

        Args:
            path: Where, such as `explorer.html`.
            planes: In pixel space, to be computed now: a page cannot ask the models.
            below: HTML to stand under it, such as a table.
        """
        about, blob, scene, ask = self._packed
        if planes and scene and ask:
            from fidlib.explorer import gather

            kept = gather.kept(scene, ask, planes)
            about, blob = dataclasses.replace(scene, planes=kept).pack()
        path = Path(path)
        path.write_text(page.page(about, blob, below), encoding="utf-8")
        return path

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if _nobody_looks():
            sentence = "The explorer is left out in batch: run this cell in JupyterLab."
            return {"text/plain": sentence}
        return self._view._repr_mimebundle_(**options)


def explore(
    what: Study | Classifier | str,
    models: Iterable[Name] | Classifier | None = None,
    split: Split | None = None,
    triggers: Split | None = None,
    *,
    images: int = 1000,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Explorer:
    """The explorer, of a study, of two classifiers, or of what is published.

    Args:
        what: A study; the reference, a classifier; or a suite such as `"cifar10"`.
        models: Of a study: lineages to compare with the host, all methods that were
            trained when None. Of two classifiers: the second.
        split: Of two classifiers: images and labels to look at.
        triggers: Of two classifiers: the watermark, if there is one.
        images: How many are shown, spread over the classes.
        tables: More models for the trade-offs, by title: a column `method`, and columns
            with the names of measures.

    Raises:
        ValueError: If nothing of that name is published, or what came is none of these.
    """
    if isinstance(what, str):
        path = _published(what)
        return Explorer(lambda: Packed(*page.read(path)))
    from fidlib.explorer import gather

    if not isinstance(images, int) or not 12 <= images <= 60_000:
        raise ValueError(f"images is {images!r}; show at least 12 and at most 60,000.")
    find = gather.asked(what, models, split, triggers, images)
    more = gather.tabled(tables or {})

    def packed() -> Packed:
        scene, planes = find()
        scene = dataclasses.replace(scene, tables=more)
        return Packed(*scene.pack(), scene, planes)

    return Explorer(packed)


def _published(name: str) -> Path:
    folder = store.shelf("figures")
    path = folder / name / "explorer.html"
    if not path.exists():
        known = sorted(file.parent.name for file in folder.glob("*/explorer.html"))
        raise ValueError(
            f"nothing is published of {name!r}; use one of {', '.join(known)}, or pass "
            "a fidlib.Study."
        )
    return path


def _nobody_looks() -> bool:
    """Whether a notebook is run in batch: then no cell may ask its user anything."""
    notebook = sys.modules.get("IPython")
    kernel = getattr(notebook and notebook.get_ipython(), "kernel", None)
    return bool(kernel) and kernel.get_parent()["content"].get("allow_stdin") is False
