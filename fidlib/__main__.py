"""The command line: `fidlib ...` or `python -m fidlib ...`."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fidlib import tables
from fidlib.commands import READERS, Commit, Verify, check_file, network, stored
from fidlib.runs.pool import Backend
from fidlib.runs.store import project_root
from fidlib.study.config import Config
from fidlib.suites.read import Suite, read


@dataclass(frozen=True)
class Pool:
    """Where models are made and notebooks run."""

    jobs: int | None = None
    """At a time on this machine; one a core when not given, one on a GPU."""
    backend: Backend = "loky"
    """This machine, or a Dask cluster."""
    scheduler: str = ""
    """Address of the Dask scheduler, such as tcp://host:8786."""


@dataclass(frozen=True)
class Figures:
    """Make a suite's models, run its notebooks, publish pictures and index.html.

    What is finished is skipped; a notebook that fails is reported and the others go
    on. The exit status is 0 only if all went well.
    """

    suite: str = "digits"
    """A file of notebooks/suites: such as digits, mnist, cifar10, cifar100."""
    scale: str = ""
    """How long to train, in place of the suite's own: such as hours for mnist."""
    only: tuple[str, ...] = ()
    """Notebooks of the suite to run, by name; all when not given."""
    parcel: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR")] = None
    """Draw from the parcels of models that benchmarks/on_gpu.py left in this folder."""
    pool: tyro.conf.OmitArgPrefixes[Pool] = field(default_factory=Pool)

    def __call__(self) -> int:
        from fidlib.suites.run import run

        suite = read(self.suite, self.scale)
        with _runs(self.parcel):
            results = run(suite, only=self.only, **vars(self.pool))
        for result in results:
            print(f"{result.name:24} {result.status:10} {result.seconds:7.1f} s")
        failed = [result for result in results if result.status == "FAILED"]
        for result in failed:
            print(f"\n{result.name} failed:\n{result.traceback}", file=sys.stderr)
            copy = result.folder / "notebook.ipynb"
            if copy.exists():
                print(f"its executed copy is {copy}", file=sys.stderr)
        page = project_root() / "figures" / self.suite / "index.html"
        print(f"{len(results) - len(failed)} of {len(results)} notebooks; open {page}")
        return 1 if failed else 0


@dataclass(frozen=True)
class Make:
    """Make models, or read them back, and say what they are and where.

    The host comes along. Such as: fidlib make FixLL+PFL FixLL+PFL/prune:0.4
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """By lineage: a method, then what was done to remove its watermark."""
    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    pool: tyro.conf.OmitArgPrefixes[Pool] = field(default_factory=Pool)

    def __call__(self) -> int:
        from fidlib.study.lineage import Lineage
        from fidlib.study.study import Study

        names = [str(Lineage.read(name)) for name in self.models]
        study = Study(self.config)
        print(study)
        study.make(names, **vars(self.pool))
        print(tables.text(study.table(names)))
        for name in ["host", *names]:
            print(study.folder(name))
        return 0


@dataclass(frozen=True)
class Show:
    """Print what was last published of a suite, with the paper's claims."""

    suite: tyro.conf.Positional[str]
    """Such as digits, mnist or cifar10."""
    csv: Path | None = None
    """Write the table of methods there as well."""

    def __call__(self) -> int:
        from fidlib.suites.publish import published

        suite = read(self.suite)
        check_file("csv", self.csv)
        print(_published(suite))
        if self.csv:
            entry = published(suite, "fidelity")
            if entry is None:
                raise ValueError(f"of {suite.name} no table of methods is published.")
            entry[1].to_csv(self.csv)
        return 0


@dataclass(frozen=True)
class Compare:
    """Compare two stored classifiers on an image set, on every level.

    Triggers are not stored with a model; `fidlib table` says how it answers them.
    """

    host: tyro.conf.Positional[Path]
    """A model.safetensors, a run's folder, or an authors' .pt, trained on --data."""
    marked: tyro.conf.Positional[Path]
    """The classifier to compare with it."""
    network: str = ""
    """module:function that returns the network of which both files hold the state
    dict, such as nets:lenet; modules are looked for in the current folder, too. Where
    pixels are not normalised as those of --data, let it return what fidlib.models.wrap
    gives, with their mean and std."""
    data: str = ""
    """digits, mnist, cifar10, cifar100, or the path of an .npz; a run's own set when
    not given."""
    split: Literal["train", "test"] = "test"
    """Its images to compare on."""
    by_class: bool = False
    """Print a column for each class as well."""
    layers: bool = False
    """Print each layer's part of the total weight loss as well."""
    page: Path | None = None
    """Write the explorer of the two there, a page with the whole report below it."""

    def __call__(self) -> int:
        from fidlib import checkpoints, data
        from fidlib.measures.fidelity import compare
        from fidlib.runs import machine

        check_file("page", self.page)
        dataset = self.data or checkpoints.trained_on(self.host)
        for path in (self.host, self.marked):
            checkpoints.existing(path)
        like = network(self.network, data.load(dataset)) if self.network else None
        device = machine.device()
        host, marked = (
            stored(path, dataset, like).to(device) for path in (self.host, self.marked)
        )
        split = getattr(data.load(dataset), self.split).to(device)
        heading = f"{len(split):,} {self.split} images of {dataset}; 95 % intervals"
        print(heading, flush=True)  # the rest of it may take a minute
        report = compare(host, marked, split)
        if checkpoints.marked_from_another(self.host, self.marked):
            print(f"note: {self.marked} was not marked from {self.host}")
        print(tables.blocks(report.table(by_class=self.by_class, layers=self.layers)))
        if self.page:
            from fidlib.explorer.gather import compared

            names = [path.stem for path in (self.host, self.marked)]
            classes = data.load(dataset).classes
            print(compared(self.page, (host, marked), split, report, names, classes))
        return 0


@dataclass(frozen=True)
class Table:
    """Print the fidelity of models, making what is missing first, in parallel."""

    models: tuple[str, ...] = ()
    """Rows, by lineage; the suite's, or all methods, when not given."""
    suite: str = ""
    """A suite whose first notebook's configuration and methods hold here, and its other
    seeds, unless --models or --seed is given; options below that are not at their
    default go before."""
    seeds: tuple[int, ...] = ()
    """Print mean and standard deviation over these seeds as well."""
    csv: Path | None = None
    """Write the table there as well, unrounded."""
    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)
    pool: tyro.conf.OmitArgPrefixes[Pool] = field(default_factory=Pool)

    def __call__(self) -> int:
        from fidlib.methods import METHODS
        from fidlib.study.jobs import make
        from fidlib.study.lineage import Lineage
        from fidlib.study.seeds import over_seeds
        from fidlib.study.study import Study

        if len(set(self.seeds)) == 1:
            raise ValueError(
                f"seeds are {self.seeds[0]}; a spread needs at least two. Of one alone "
                "--seed prints the table."
            )
        check_file("csv", self.csv)
        config, models, seeds = self.config, self.models or [*METHODS], self.seeds
        repeated = models
        if self.suite:
            suite = read(self.suite)
            first = suite.jobs[0].parameters
            chosen = {k: v for k, v in vars(config).items() if v != vars(Config())[k]}
            config = suite.config(**chosen)
            models = self.models or first.get("methods", models)
            repeated = self.models or suite.setting("repeated", models)
            others = {config.seed, *suite.setting("other_seeds", ())}
            asked = self.models or "seed" in chosen  # not what the suite has trained
            seeds = seeds or (sorted(others) if len(others) > 1 and not asked else ())
        names, repeated = (
            [str(Lineage.read(m)) for m in ms] for ms in (models, repeated)
        )
        study = Study(config)
        print(study)
        others = [Study(replace(config, seed=seed)) for seed in seeds]
        make([(study, names), *((s, repeated) for s in others)], **vars(self.pool))
        table = study.table(names)
        print(tables.text(table))
        if self.csv:
            table.to_csv(self.csv)
        if seeds:
            print(f"\n{tables.spread(over_seeds(config, repeated, seeds))}")
        return 0


@dataclass(frozen=True)
class Lab:
    """Open JupyterLab in notebooks/."""

    arguments: tyro.conf.Positional[tuple[str, ...]] = ()
    """Passed on to jupyter lab, after --."""

    def __call__(self) -> int:
        folder = project_root() / "notebooks"
        if not folder.is_dir():
            raise ValueError(
                f"there are no notebooks in {folder.parent}: run fidlib lab in a clone "
                "of its repository."
            )
        command = [sys.executable, "-m", "jupyter", "lab", *self.arguments]
        return subprocess.run(command, cwd=folder).returncode


COMMANDS = {
    "figures": Figures,
    "show": Show,
    "table": Table,
    "make": Make,
    "compare": Compare,
    "commit": Commit,
    "verify": Verify,
    "lab": Lab,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status, 2 after an error; one that a user can
    mend is a sentence, without traceback.
    """
    warnings.formatwarning = lambda message, *_, **__: f"fidlib: {message}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale may know ASCII alone
            stream.reconfigure(errors="replace")
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="fidlib",
            description="After a backdoor watermark, is it still the same classifier?",
            args=arguments,
            registry=READERS,
        )
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell reports of a program that SIGPIPE ended
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"fidlib: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fidlib: stopped; what is finished is kept.", file=sys.stderr)
        return 130
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "allocate" in reason:  # what PyTorch says of memory on every device
            text = f"out of memory ({reason}): use a smaller model or fewer images."
        else:
            text = (
                f"{type(error).__name__}: {reason}; the fault is fidlib's or that of "
                f"what you added to it: {_kept_traceback()}."
            )
        print(f"fidlib: {text}", file=sys.stderr)
        return 2


def _runs(parcel: Path | None) -> contextlib.AbstractContextManager[None]:
    """Where runs are read and made: the run store, or one of what a parcel holds."""
    if parcel is None:
        return contextlib.nullcontext()
    from fidlib.runs.store import stored_in
    from fidlib.study.parcel import unpacked

    return stored_in(unpacked(parcel))


def _kept_traceback() -> str:
    """Where the traceback of what is being handled is kept."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="fidlib-", suffix=".txt", delete=False
        ) as file:
            file.write(traceback.format_exc())
        return f"its traceback is in {file.name}"
    except OSError:
        return "its traceback cannot be written"


def _published(suite: Suite) -> str:
    """What `figures/` holds of a suite's numbers.

    Raises:
        ValueError: If it holds none.
    """
    from fidlib.suites.publish import published

    parts = []
    for name in ("fidelity", "seeds", "claims"):
        entry = published(suite, name)
        if entry is None:
            continue
        heading, table = entry
        if name == "claims":
            text = "\n".join(
                f"{c}: {held.upper()}\n    {m}" for c, m, held in table.index
            )
        elif name == "seeds":
            text = tables.spread(table)
        else:
            text = tables.text(table)
        parts.append(f"{heading}\n{text}")
    if not parts:
        raise ValueError(
            f"figures/{suite.name} holds no numbers: make them by fidlib figures "
            f"--suite {suite.name}, or say here what to embed and measure, by --scale "
            "or --methods."
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
