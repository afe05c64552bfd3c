"""Tables as text of a fixed width, for those who read them in a terminal."""

import math
import shutil


def spread(over) -> str:
    """Mean and standard deviation of a table over its seeds."""
    seeds = ", ".join(map(str, over.index.unique("seed")))
    groups = over.groupby("method", sort=False)
    deviation = groups.std().map("{:.3g}".format).to_string(line_width=_width())
    return (
        f"mean over seeds {seeds}\n{text(groups.mean())}\n\n"
        f"standard deviation over them\n{deviation}"
    )


def text(table) -> str:
    """The table as fixed-width text, split, pfl and spl legible at any size."""
    formats = {}
    for name in table.columns:
        digits = (
            "{:.3f}" if name.startswith(("trigger", "agree", "accur")) else "{:.4g}"
        )
        formats[name] = digits.format
    return table.to_string(formatters=formats, line_width=_width())


def _width() -> int:
    """Characters of a line: the terminal's, or all of the table's where none reads."""
    return shutil.get_terminal_size(fallback=(10_000, 1)).columns


def blocks(table) -> str:
    """A report's table as fixed-width text: a block for each level."""
    numbers = table.drop(columns="level").map(_number)
    lines = numbers.rename_axis(None).to_string().split("\n")
    heads = table["level"].where(~table["level"].duplicated())
    text = [lines[0]]
    for head, line in zip(heads, lines[1:], strict=True):
        text += [f"\n{head}", line] if isinstance(head, str) else [line]
    return "\n".join(text)


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
