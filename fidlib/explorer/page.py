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
from string import Template
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("js")
ORDER = ("dom", "data", "mixes", "state", "gestures", "maps", "point", "planes")
ORDER += ("models", "explorer")
"""Each imports from those before it."""


def script() -> str:
    """All ES modules as one, which exports what the last does by default."""
    joined = "\n".join(_text(f"{name}.js") for name in ORDER)
    whole = re.sub(r"^import .*?;\n", "", joined, flags=re.M | re.S)
    return re.sub(r"^export (?!default)", "", whole, flags=re.M)


def style() -> str:
    """The CSS of the explorer."""
    return _text("explorer.css")


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def unpack(
    about: Mapping[str, Any], blob: bytes, names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a packed scene, flat, as the browser reads them."""
    raw, arrays = gzip.decompress(blob), about["arrays"]
    result = {}
    for name in arrays if names is None else names:
        entry = arrays[name]
        kind, count = np.dtype(f"<{entry['kind']}"), entry["count"]
        values = np.frombuffer(raw, kind, count, entry["start"])
        result[name] = values * entry["scale"] if entry["scale"] else values
    return result


def page(about: dict[str, Any], blob: bytes, below: str = "") -> str:
    """A page that needs neither a kernel nor a network: it contains the images.

    Args:
        about: What a packed scene says of itself.
        blob: The arrays of that scene.
        below: HTML to stand under the explorer.
    """
    text = json.dumps(about).replace("<", "\\u003c")
    code = script().replace("export default", "const explorer =")
    return Template(_text("page.html")).substitute(
        title=html.escape(about["title"]),
        style=style(),
        below=below,
        images=f"{about['images']:,}",
        triggers=f"{about['triggers']:,}",
        models=html.escape(", ".join(model["name"] for model in about["models"])),
        size=f"{(len(blob) + len(text)) / 1e6:.1f}",
        about=text,
        blob=base64.b64encode(blob).decode(),
        script=code + "\n" + _text("page.js"),
    )


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """`about` and the blob of a page."""
    text = path.read_text(encoding="utf-8")
    matches = {
        name: re.search(rf'<script id="{name}"[^>]*>(.*?)</script>', text, re.S)
        for name in ("about", "blob")
    }
    if not all(matches.values()):
        raise ValueError(
            f"{path} is no page of fidlib's explorer: write it by .page(path)."
        )
    about, blob = (match[1] for match in matches.values() if match)
    return json.loads(about), base64.b64decode(blob)
