"""The explorer's script, one module joined from several, and its page without a kernel.

Neither a widget's module, which comes from a blob, nor a page that is opened as a file
can import others by relative paths.
"""

import base64
import gzip
import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("js")
ORDER = ("dom", "data", "mixes", "state", "gestures", "maps", "point", "planes")
ORDER += ("models", "explorer")
"""Each imports from those before it."""


def script() -> str:
    """All ES modules as one, which exports what the last does by default."""
    parts = [(FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in ORDER]
    joined = "\n".join(
        re.sub(r"^import .*?;\n", "", part, flags=re.M | re.S) for part in parts
    )
    return re.sub(r"^export (?!default)", "", joined, flags=re.M)


def style() -> str:
    """Its CSS."""
    return (FOLDER / "explorer.css").read_text(encoding="utf-8")


def unpack(
    about: Mapping[str, Any], blob: bytes, names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a packed scene, flat, as the browser reads them."""
    raw, arrays = gzip.decompress(blob), about["arrays"]
    found = {}
    for name in arrays if names is None else names:
        entry = arrays[name]
        kind, count = np.dtype(f"<{entry['kind']}"), entry["count"]
        values = np.frombuffer(raw, kind, count, entry["start"])
        found[name] = values * entry["scale"] if entry["scale"] else values
    return found


def page(about: dict[str, Any], blob: bytes, below: str = "") -> str:
    """A page that needs neither a kernel nor a network: it contains the images.

    Args:
        about: Of a packed scene.
        blob: Likewise.
        below: HTML to stand under the explorer.
    """
    models = ", ".join(model["name"] for model in about["models"])
    told = f"{about['images']:,} images and {about['triggers']:,} triggers"
    size = f"{(len(blob) + len(json.dumps(about))) / 1e6:.1f} MB"
    text = json.dumps(about).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fidlib explorer: {html.escape(about["title"])}</title>
<style>
:root {{ color-scheme: light dark; }}
:root:has(.fx[data-theme="light"]) {{ color-scheme: light; }}
:root:has(.fx[data-theme="dark"]) {{ color-scheme: dark; }}
body {{ margin: 0; background: light-dark(#fff, #15171c);
  color: light-dark(#1d1f23, #e8eaee); }}
footer, .below {{ max-width: 1472px; margin: 0 auto; padding: 8px 16px; overflow: auto;
  box-sizing: border-box; font: 12px/1.5 system-ui, sans-serif; }}
.below th, .below td {{ padding: 2px 10px; text-align: right; }}
.below th:first-child, .below td:first-child {{ text-align: left; }}
{style()}</style>
</head>
<body>
<main id="explorer"></main>
{below}
<footer>This file contains {told}, pixels and all, as these models see them:
{html.escape(models)} ({size}). It asks no network for anything.</footer>
<script id="about" type="application/json">{text}</script>
<script id="blob" type="text/plain">{base64.b64encode(blob).decode()}</script>
<script type="module">
{script().replace("export default", "const explorer =")}
{(FOLDER / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """`about` and the blob of a page."""
    text = path.read_text(encoding="utf-8")
    found = {
        name: re.search(rf'<script id="{name}"[^>]*>(.*?)</script>', text, re.S)
        for name in ("about", "blob")
    }
    if not all(found.values()):
        raise ValueError(
            f"{path} is no page of fidlib's explorer: write it by .page(path)."
        )
    about, blob = (match[1] for match in found.values() if match)
    return json.loads(about), base64.b64decode(blob)
