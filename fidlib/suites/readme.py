"""A suite's `README.md`, beside the numbers that it quotes, written from them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fidlib.runs import store
from fidlib.suites.page import Entry, caption, claims

if TYPE_CHECKING:
    from fidlib.training import Recipe

LONGEST, WIDEST = 24, 20
"""Rows and columns of a table that is shown; others are links."""


def write_readme(
    folder: Path, suite: str, about: str, entries: Sequence[Entry]
) -> Path:
    """Write it: a section a notebook with pictures and tables, then the limits."""
    lines = [f"# {suite}", about, *_links(folder)]
    if verdicts := claims(folder, entries):
        rows = (f"- {claim}: **{verdict}**" for claim, verdict in verdicts.items())
        lines += ["Borne out here?", "\n".join(rows)]
    for entry in entries:
        lines += [f"## {entry.job.question()}", *_section(folder, entry)]
    lines += ["## Limits", *_limits([e for e in entries if e.provenance])]
    page = folder / "README.md"
    with store.written(page) as temporary:
        temporary.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return page


def _links(folder: Path) -> Iterator[str]:
    yield (
        "Written by the run that made the pictures; nothing here is typed. "
        "`index.html` is the same as a page"
        + (
            ", opened by the explorer of the models (`explorer.html` alone)."
            if (folder / "explorer.html").exists()
            else "."
        )
    )


def _section(folder: Path, entry: Entry) -> Iterator[str]:
    if entry.traceback:
        yield "This notebook failed."
    for file in entry.shown:
        if file.endswith(".png"):
            alt = caption(folder / file)
            yield f"![{alt}]({file})\n\n*{alt}*"
        elif file.endswith(".csv"):
            yield _table(folder / file)


def _table(path: Path) -> str:
    frame = pd.read_csv(path).rename(columns={"Unnamed: 0": ""})
    if len(frame) > LONGEST or frame.shape[1] > WIDEST:
        return f"[{path.name}]({path.name}): {len(frame)} rows"
    return (
        f"<details><summary>{path.name}</summary>\n\n{_markdown(frame)}\n\n</details>"
    )


def _markdown(frame: pd.DataFrame) -> str:
    rows = [[*map(str, frame.columns)], ["---"] * frame.shape[1]]
    rows += [[*map(_text, row)] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(value: object) -> str:
    if isinstance(value, float):
        digits = ",.0f" if abs(value) >= 1e4 else ",.4g"
        return "–" if pd.isna(value) else format(value, digits)
    return str(value).replace("|", "\\|")


def _seeds(settings: Mapping[str, Any]) -> Iterator[int]:
    """Of all hosts that a notebook looks at."""
    first = settings["seed"]
    yield from range(first, first + settings.get("hosts", 1))
    yield from settings.get("other_seeds", ())


def _limits(entries: Sequence[Entry]) -> Iterator[str]:
    """What the numbers are of: settings beside the published ones, hosts, machines."""
    records = [entry.provenance["parameters"] for entry in entries]
    said = [one for one in records if "train_images" in one]  # others record no study
    if not said:
        return
    seeds = {seed for one in said for seed in _seeds(one)}
    machines = {str(entry.provenance["machine"]) for entry in entries}
    machines |= {
        str(how["machine"]) for one in said for how in one.get("models", {}).values()
    }
    first, numbers = said[0], ", ".join(map(str, sorted(seeds)))
    sizes = ("train_images", "dataset", "test_images")
    sets = dict.fromkeys(tuple(one[name] for name in sizes) for one in said)
    images = "; ".join(f"{a:,} of {name}, measured on {b:,}" for a, name, b in sets)
    yield (
        f"Images trained on: {images}. Hosts of seed {numbers}: what is seen on so few "
        "may be otherwise on another; intervals are over test images unless they say "
        f"hosts. Made on {'; '.join(sorted(machines))}. Another processor rounds "
        "otherwise, and a training ends elsewhere."
    )
    from fidlib import training

    try:
        here = training.recipe(first["dataset"], first["scale"])
        paper = training.recipe(first["dataset"], "paper")
    except ValueError:  # of a set of which the paper has none
        return
    table = pd.DataFrame({"here": _settings(here), "published": _settings(paper)})
    yield _markdown(table.rename_axis("").reset_index())


def _settings(recipe: "Recipe") -> dict[str, object]:
    from fidlib import methods, training

    host = recipe.schedule(training.HOST)
    embedding = recipe.schedule(methods.METHODS["FixLL+PFL"])
    weights = recipe.weights["default"]
    return {
        "epochs of the host": host.epochs,
        "epochs of FixLL+PFL": embedding.epochs,
        "its learning rate": embedding.learning_rate,
        "images in a step": embedding.images or recipe.batch_size,
        "triggers in a step": embedding.triggers or recipe.trigger_batch_size,
        **{f"weight of {name}": weights[name] for name in ("TWL", "PFL", "SPL")},
    }
