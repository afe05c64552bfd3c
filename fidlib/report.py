"""What a notebook leaves behind, and the page that shows it all."""

import html
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fidlib import runs


class Output:
    """A notebook's folder for pictures, the numbers behind them and provenance.

    Args:
        folder: Relative to the project root, wherever the notebook is run from.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = runs.project_root() / folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "provenance.json").unlink(missing_ok=True)  # of other pictures
        self.started = time.perf_counter()
        self.pictures: list[Path] = []

    def figure(self, figure, name: str, *, alt: str) -> None:
        """Save a matplotlib figure as `<name>.png` and `<name>.pdf`.

        Args:
            figure: What to save.
            name: File name without ending.
            alt: One sentence saying what is seen; kept in the files, and shown to
                those who cannot see the picture.
        """
        picture = self.folder / name
        figure.savefig(f"{picture}.png", metadata={"Description": alt})
        self.pictures.append(Path(f"{picture}.png"))
        # Without a date, so that making the same figure again leaves git quiet.
        undated = {"CreationDate": None, "Subject": alt}
        figure.savefig(f"{picture}.pdf", metadata=undated)

    def table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Save a table as `<name>.csv`, six significant digits; returns it to show."""
        frame.to_csv(self.folder / f"{name}.csv", float_format="%.6g")
        return frame

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Save the arrays a picture was drawn from as `<name>.npz`, compressed."""
        with open(self.folder / f"{name}.npz", "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def provenance(self, parameters: Mapping[str, object]) -> pd.DataFrame:
        """Record parameters, versions, commit, machine and seconds; returns a table.

        The record is `provenance.json`, and the `Comment` of every PNG made so far.

        Args:
            parameters: What decided the pictures: a configuration's fields and others.
        """
        seconds = round(time.perf_counter() - self.started, 1)
        record: dict[str, Any] = {"parameters": dict(parameters), "seconds": seconds}
        record |= runs.provenance()
        made = self.folder / "provenance.json"
        runs.write_json(made, record)
        for picture in self.pictures:
            sign(picture, made.read_text())
        flat = record | record.pop("versions")
        return pd.DataFrame({"value": flat.values()}, index=list(flat))


def sign(picture: Path, made: str) -> None:
    """Write into a PNG, as its `Comment`, what it was made with."""
    from PIL import Image, PngImagePlugin

    with Image.open(picture) as image:
        chunks = PngImagePlugin.PngInfo()
        for key in ("Software", "Description"):
            chunks.add_itxt(key, image.info[key])
        chunks.add_itxt("Comment", made)
        with runs.written(picture) as temporary:
            image.save(temporary, pnginfo=chunks, dpi=image.info["dpi"])


@dataclass(frozen=True)
class Entry:
    """What the page says of one notebook of a suite."""

    name: str
    """Of the job, the start of its file names."""
    question: str
    """The notebook's first heading."""
    parameters: Mapping[str, object]
    """What the suite set."""
    files: Sequence[str] = field(default_factory=list)
    """Published files, beside the page."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """As `Output.provenance` recorded it; empty if it failed."""
    traceback: str = ""
    """Of a failed notebook."""


def write_page(folder: Path, suite: str, about: str, entries: Sequence[Entry]) -> Path:
    """Write `index.html`: every picture and table of a suite, and how it was made."""
    links = " · ".join(f'<a href="#{e.name}">{e.name}</a>' for e in entries)
    sections = "\n".join(_section(folder, entry) for entry in entries)
    page = folder / "index.html"
    with runs.written(page) as temporary:
        temporary.write_text(
            f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fidlib: {html.escape(suite)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>fidlib: {html.escape(suite)}</h1>
<p>{html.escape(about)}</p>
{EXPLORER if (folder / "explorer.html").exists() else ""}
<nav>{links}</nav>
{sections}
</body>
</html>
""",
            encoding="utf-8",
        )
    return page


EXPLORER = """
<iframe id="explorer" src="explorer.html" title="the explorer of its models"></iframe>
<p class="made"><a href="explorer.html">The explorer alone</a></p>
<script>
addEventListener("message", ({ data }) => {
  const frame = document.getElementById("explorer");
  if (data.explorer) frame.style.height = `${data.explorer}px`;
});
</script>
"""
"""It says how high it is."""


STYLE = """
#explorer { width: min(96vw, 1440px); height: 1400px; border: 0; position: relative;
            left: 50%; transform: translateX(-50%); }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 3rem; }
nav { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figure { margin: 1.5rem 0; } figcaption, .made { color: #555; font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.text { text-align: left; white-space: normal; min-width: 14rem; }
pre { background: #fff3f0; border-left: 3px solid #c1121f; padding: .6rem;
      overflow-x: auto; font-size: .8rem; }
"""


def _section(folder: Path, entry: Entry) -> str:
    parts = [f'<section id="{entry.name}">', f"<h2>{html.escape(entry.question)}</h2>"]
    settings = ", ".join(f"{k} = {v}" for k, v in entry.parameters.items())
    parts.append(f'<p class="made">{entry.name}: {html.escape(settings)}</p>')
    if entry.traceback:
        text = html.escape(entry.traceback)
        parts.append(f"<p>This notebook failed.</p><pre>{text}</pre>")
    for file in entry.files:
        try:
            if file.endswith(".png"):
                parts.append(_figure(folder, file, entry.files))
            elif file.endswith(".csv"):
                parts.append(_table(folder, file))
        except (ValueError, OSError) as error:
            text = html.escape(f"{file} is damaged ({error}): run the notebook again.")
            parts.append(f"<pre>{text}</pre>")
    if arrays := [file for file in entry.files if file.endswith(".npz")]:
        links = ", ".join(f'<a href="{file}">{file}</a>' for file in arrays)
        parts.append(f'<p class="made">Arrays: {links}</p>')
    if entry.provenance:
        parts.append(_made(entry))
    return "\n".join([*parts, "</section>"])


def _figure(folder: Path, file: str, files: Sequence[str]) -> str:
    from PIL import Image

    with Image.open(folder / file) as image:
        alt = html.escape(str(image.info.get("Description", file)))
        width, height = image.size
    pdf = file.removesuffix("png") + "pdf"
    link = f'<a href="{pdf}">PDF</a>' if pdf in files else ""
    return (
        f'<figure><img src="{file}" width="{width // 2}" height="{height // 2}" '
        f'alt="{alt}"><figcaption>{alt} {link}</figcaption></figure>'
    )


def _table(folder: Path, file: str) -> str:
    frame = pd.read_csv(folder / file)
    frame = frame.rename(columns={"Unnamed: 0": ""})  # an index without a name
    if len(frame) > 30:
        return f'<p class="made">{len(frame)} rows: <a href="{file}">{file}</a></p>'
    text = io.StringIO()
    shown = {"border": 0, "float_format": "{:.4g}".format, "na_rep": "–"}
    with pd.option_context("display.max_colwidth", None):  # it would cut sentences
        frame.to_html(text, index=False, **shown)
    cells = re.sub(r"<td>(?=[^<]{20})", '<td class="text">', text.getvalue())
    for name, values in frame.items():
        if any(isinstance(value, str) and len(value) >= 20 for value in values):
            cells = cells.replace(f"<th>{name}</th>", f'<th class="text">{name}</th>')
    return (
        f'<div class="scroll">{cells}</div>'
        f'<p class="made"><a href="{file}">{file}</a></p>'
    )


def _made(entry: Entry) -> str:
    record = entry.provenance
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    parameters = dict(record["parameters"])
    models = pd.DataFrame(parameters.pop("models", {})).T
    text = (
        f'<p class="made">Made {record["made"]} in {record["seconds"]} s on '
        f"{html.escape(str(record['machine']))}; commit {record['commit']}; "
        f"{versions}; <code>{html.escape(json.dumps(parameters))}</code> "
        f'(<a href="{entry.name}-provenance.json">JSON</a>)</p>'
    )
    if len(models):
        table = models.to_html(border=0)
        text += f"<details><summary>Its models</summary>{table}</details>"
    return text
