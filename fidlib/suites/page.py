"""A suite's `index.html`: every picture and table, and how it was made."""

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fidlib.runs import store
from fidlib.suites.read import Job


@dataclass(frozen=True)
class Entry:
    """What the page says of one notebook of a suite."""

    job: Job
    """Its name is the start of its files' names."""
    files: Sequence[str] = ()
    """Published, beside the page."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """As `Output.provenance` recorded it; empty if it failed."""
    traceback: str = ""
    """Of a failed notebook."""

    @property
    def shown(self) -> list[str]:
        """Its files, pictures first."""
        return sorted(self.files, key=lambda file: not file.endswith(".png"))

    @property
    def parameters(self) -> dict[str, Any]:
        """What the suite sets, as it was when what is shown was made."""
        then = self.provenance.get("parameters", {})
        return {name: then[name] for name in self.job.parameters if name in then}


def write_page(folder: Path, suite: str, about: str, entries: Sequence[Entry]) -> Path:
    """Write `index.html`: every picture and table of a suite, and how it was made."""
    links = " · ".join(f'<a href="#{e.job.name}">{e.job.name}</a>' for e in entries)
    sections = "\n".join(_section(folder, entry) for entry in entries)
    page = folder / "index.html"
    with store.written(page) as temporary:
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
{_claims(folder, entries)}
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
<iframe id="explorer" src="explorer.html" scrolling="no"
 title="the explorer of its models"></iframe>
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
:root { color-scheme: light dark; --text: #222; --soft: #555; --line: #ddd;
        --page: #fff; --fault: #fff3f0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --soft: #aaa; --line: #444; --page: #16181c; --fault: #3a1d1d; }
  figure img { background: #fff; }
}
#explorer { width: min(96vw, 1440px); height: 1400px; border: 0;
            margin-left: calc(50% - min(48vw, 720px)); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text);
       background: var(--page); max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 3rem; }
nav { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figure { margin: 1.5rem 0; }
figcaption, .made { color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.text { text-align: left; white-space: normal; min-width: 14rem; }
pre { background: var(--fault); border-left: 3px solid #c1121f; padding: .6rem;
      overflow-x: auto; font-size: .8rem; }
"""


def claims(folder: Path, entries: Sequence[Entry]) -> dict[str, str]:
    """The paper's claims, if the suite judges them, each with its verdict."""
    for entry in entries:
        path = folder / f"{entry.job.name}-claims.csv"
        if path.name in entry.files:
            table = pd.read_csv(path)
            return dict(zip(table.claim, table.borne_out, strict=True))
    return {}


def _claims(folder: Path, entries: Sequence[Entry]) -> str:
    verdicts = claims(folder, entries).items()
    rows = (f"<li>{html.escape(c)}: <b>{html.escape(v)}</b></li>" for c, v in verdicts)
    return f"<p>Borne out here?</p><ul>{''.join(rows)}</ul>" if verdicts else ""


def _section(folder: Path, entry: Entry) -> str:
    name, question = entry.job.name, html.escape(entry.job.question())
    parts = [f'<section id="{name}">', f"<h2>{question}</h2>"]
    settings = ", ".join(f"{k} = {v}" for k, v in entry.parameters.items())
    parts.append(f'<p class="made">{name}: {html.escape(settings)}</p>')
    if entry.traceback:
        text = html.escape(entry.traceback)
        parts.append(f"<p>This notebook failed.</p><pre>{text}</pre>")
    for file in entry.shown:
        if file.endswith(".png"):
            parts.append(_figure(folder, file, entry.files))
        elif file.endswith(".csv"):
            parts.append(_table(folder, file))
    if arrays := [file for file in entry.files if file.endswith(".npz")]:
        links = ", ".join(f'<a href="{file}">{file}</a>' for file in arrays)
        parts.append(f'<p class="made">Arrays: {links}</p>')
    if entry.provenance:
        parts.append(_made(entry))
    return "\n".join([*parts, "</section>"])


def caption(picture: Path) -> str:
    """The sentence that a picture carries."""
    from PIL import Image

    with Image.open(picture) as image:
        return str(image.info.get("Description", picture.name))


def _figure(folder: Path, file: str, files: Sequence[str]) -> str:
    from PIL import Image

    with Image.open(folder / file) as image:
        width, height = image.size
    alt = html.escape(caption(folder / file))
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
        f'<details><summary>{file}</summary><div class="scroll">{cells}</div>'
        f'<p class="made"><a href="{file}">{file}</a></p></details>'
    )


def _made(entry: Entry) -> str:
    record = entry.provenance
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    parameters = dict(record["parameters"])
    models = {n: _flat(how) for n, how in parameters.pop("models", {}).items()}
    text = (
        f'<p class="made">Made {record["made"]} in {record["seconds"]} s on '
        f"{html.escape(str(record['machine']))}; commit {record['commit']}; {versions} "
        f'(<a href="{entry.job.name}-provenance.json">JSON</a>)</p>'
        "<details><summary>Its settings</summary>"
        f"<code>{html.escape(json.dumps(parameters))}</code></details>"
    )
    if models:
        table = pd.DataFrame(models).T.to_html(border=0, na_rep="–")
        text += (
            f'<details><summary>Its models</summary><div class="scroll">{table}</div>'
            "</details>"
        )
    return text


def _flat(how: Mapping[str, Any]) -> dict[str, Any]:
    """How a model was made, as far as a cell of a table holds it."""
    return {n: v for n, v in how.items() if v is not None and not isinstance(v, dict)}
