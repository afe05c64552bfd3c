"""Suites as they are written down: `notebooks/suites/<name>.yaml`.

What a suite is about, parameters common to all its notebooks, and the notebooks with
parameters of their own.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fidlib.runs import keys, machine, store

if TYPE_CHECKING:
    from fidlib.study.config import Config


@dataclass(frozen=True)
class Job:
    """One notebook of a suite with its parameters."""

    name: str
    """Unique in the suite; the start of its files' names."""
    notebook: Path
    """The path of the notebook."""
    parameters: dict[str, Any]
    """What the suite sets, by name; the rest is the notebook's own."""

    @cached_property
    def key(self) -> dict[str, object]:
        """What decides its pictures: cells, parameters, data and the library's code."""
        return {
            "data": _data_digest(str(self.parameters.get("dataset", "digits"))),
            "notebook": self.notebook.stem,
            "cells": keys.digest([[c.cell_type, c.source] for c in self.cells()]),
            "parameters": self.parameters,
            "library": machine.library(),
        }

    @cached_property
    def code(self) -> str:
        """Digest of its code cells, which changes with no word that is only read."""
        return keys.digest([c.source for c in self.cells() if c.cell_type == "code"])

    @cached_property
    def known(self) -> dict[str, tuple[str, Any]]:
        """Of each parameter of the notebook its type and its default."""
        marked = [c for c in self.cells() if "parameters" in c.metadata.get("tags", ())]
        lines = ast.parse("\n".join(cell.source for cell in marked)).body
        return {
            line.target.id: (ast.unparse(line.annotation), ast.literal_eval(line.value))
            for line in lines
            if isinstance(line, ast.AnnAssign)
            and isinstance(line.target, ast.Name)
            and line.value is not None
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The suite's parameters, and of the others the notebook's defaults."""
        return {n: default for n, (_, default) in self.known.items()} | self.parameters

    def question(self) -> str:
        """The notebook's first heading."""
        return self.cells()[0].source.splitlines()[0].lstrip("# ")

    def cells(self) -> list[Any]:
        """The notebook's cells, as nbformat has them."""
        import nbformat

        try:
            return nbformat.read(self.notebook, 4).cells
        except ValueError as error:
            raise ValueError(
                f"{self.notebook} is damaged or no notebook: bring it back."
            ) from error


@dataclass(frozen=True)
class Suite:
    """A list of notebooks with parameters, run as one batch."""

    name: str
    about: str
    jobs: tuple[Job, ...]

    def config(self, **options: Any) -> "Config":
        """That of its first notebook, with options of one's own."""
        from fidlib.study.config import Config

        settings = self.jobs[0].settings | options
        return Config(**{k: settings[k] for k in vars(Config()) if k in settings})

    def setting(self, name: str, default: Any) -> Any:
        """A parameter as the first notebook that is given it gets it, or `default`."""
        settings = (job.parameters for job in self.jobs)
        return next((known[name] for known in settings if name in known), default)


@dataclass(frozen=True)
class Result:
    """How one job ended."""

    name: str
    """The name of the job."""
    status: Literal["made", "read back", "FAILED"]
    """Whether it was run, found finished, or failed."""
    folder: Path
    """Its executed copy `notebook.ipynb`, and its pictures if it did not fail."""
    seconds: float = 0.0
    """Of the run that made it."""
    traceback: str = ""
    """Of a failed notebook, without colour codes."""


def read(name: str, scale: str = "") -> Suite:
    """The suite of that name; `check` looks at its parameters.

    Args:
        name: A file of `notebooks/suites`.
        scale: In place of the suite's own, but for notebooks with one of theirs.

    Raises:
        ValueError: If there is no such suite or notebook, or two jobs share a name.
    """
    import yaml

    folder = store.shelf("notebooks")
    known = sorted(p.stem for p in (folder / "suites").glob("*.yaml"))
    if not known:
        raise ValueError(
            f"there are no suites in {folder / 'suites'}: run fidlib in a clone of "
            "its repository, or install it anew."
        )
    if name not in known:
        raise ValueError(f"unknown suite {name!r}; use one of {', '.join(known)}.")
    path = folder / "suites" / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        about, common = content["about"], content.get("parameters") or {}
        common |= {"scale": scale} if scale else {}
        listed = [{**item} for item in content["notebooks"]]
        jobs = tuple(_job(folder, item, common) for item in listed)
    except (yaml.YAMLError, KeyError, TypeError, OSError, UnicodeError) as error:
        raise ValueError(
            f"{path.name} cannot be read ({error}); it needs about, parameters and a "
            "list of notebooks, as in digits.yaml."
        ) from error
    names = [job.name for job in jobs]
    if not jobs:
        raise ValueError(f"{path.name} lists no notebook: name one under notebooks.")
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path.name} has two jobs of one name ({', '.join(names)}): give the "
            "second a name: of its own."
        )
    return Suite(name, about, jobs)


def _job(folder: Path, item: dict[str, object], common: dict[str, object]) -> Job:
    stem = str(item.pop("notebook"))
    name = str(item.pop("name", stem))
    if not re.fullmatch(r"\w+", name):
        raise ValueError(
            f"a job is called {name!r}: use letters, digits and _, for its files are "
            "named after it."
        )
    path = folder / f"{stem}.ipynb"
    if not path.exists():
        here = ", ".join(sorted(p.stem for p in folder.glob("*.ipynb")))
        raise ValueError(f"there is no notebook {stem!r}; use one of {here}.")
    return Job(name, path, common | item)


def check(job: Job) -> None:
    """Raise unless every parameter is in the notebook's parameters cell, typed alike.

    papermill itself only warns of an unknown name, and goes on with the default. An
    unknown scale or method would be noticed when all before it is trained.

    Raises:
        ValueError: If one is not.
    """
    from fidlib import training
    from fidlib.study.lineage import Lineage

    known = job.known
    for name, value in job.parameters.items():
        if name not in known or name == "output":
            names = ", ".join(n for n in known if n != "output")
            raise ValueError(
                f"{job.name}: unknown parameter {name!r}; {job.notebook.name} has "
                f"{names}."
            )
        expected, default = known[name]
        if type(value).__name__ != expected and (type(value), expected) != (
            int,
            "float",
        ):
            raise ValueError(
                f"{job.name}: parameter {name} is {value!r}; {job.notebook.name} wants "
                f"{expected}, such as {default!r}."
            )
    settings = job.parameters
    training.recipe(
        str(settings.get("dataset", "digits")), str(settings.get("scale", "default"))
    )
    for name in (*settings.get("methods", ()), *settings.get("repeated", ())):
        Lineage.read(name)
    for attack in settings.get("attacks", ()):
        Lineage.read(f"host/{attack}")
    for seed in settings.get("other_seeds", ()):
        if type(seed) is not int:
            raise ValueError(
                f"{job.name}: other_seeds has {seed!r}; use whole numbers."
            )


@cache
def _data_digest(dataset: str) -> str:
    from fidlib import data

    images = data.load(dataset)  # by number, in pictures, and with their names
    order = [images.train.fingerprint, images.test.fingerprint]
    return keys.digest([images.manifest(), order, images.classes])
