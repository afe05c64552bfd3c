import json

import nbformat
import pandas as pd

from fidlib.suites.output import Output
from fidlib.suites.page import Entry, write_page
from fidlib.suites.read import Job
from fidlib.suites.readme import write_readme
from tests.little import small_figure


def job(folder, name, question):
    cells = [nbformat.v4.new_markdown_cell(f"# {question}")]
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return Job(name, path, {"seed": 0})


def test_write_page_shows_pictures_tables_and_failures(tmp_path):
    out = Output(tmp_path)
    out.figure(small_figure(), "01-curve", alt='It "rises" & falls.')
    sentence = "A sentence that is longer than a column of numbers would be, truly"
    row = {"method": ["FTAL"], "pfl": [12345.678], "why": [sentence]}
    out.table(pd.DataFrame(row), "01-numbers")
    out.provenance({"seed": 0})
    files = ["01-curve.pdf", "01-curve.png", "01-numbers.csv", "01-points.npz"]
    record = json.loads((tmp_path / "provenance.json").read_text())
    entries = [
        Entry(job(tmp_path, "01", "Does it?"), files, record),
        Entry(job(tmp_path, "02", "And this?"), traceback="ValueError: a < b"),
    ]
    page = write_page(tmp_path, "tiny", "All of it.", entries)
    text = page.read_text(encoding="utf-8")
    assert 'src="01-curve.png"' in text
    assert 'alt="It &quot;rises&quot; &amp; falls."' in text
    for file in ("01-curve.pdf", "01-points.npz", "01-provenance.json"):
        assert text.count(f'href="{file}"') == 1
    assert "<td>FTAL</td>" in text
    assert '<th class="text">why</th>' in text
    assert f'<td class="text">{sentence}</td>' in text
    assert "Unnamed" not in text
    assert "1.235e+04" in text
    assert record["commit"] in text
    assert "ValueError: a &lt; b" in text
    assert text.index("Does it?") < text.index("And this?")
    assert str(tmp_path) not in text


def test_a_readme_quotes_its_tables_and_says_its_limits(tmp_path):
    out = Output(tmp_path)
    out.figure(small_figure(), "04-curve", alt="It rises.")
    out.table(pd.DataFrame({"method": ["FTAL"], "pfl": [12345.678]}), "04-numbers")
    out.table(pd.DataFrame({"n": range(25)}), "04-long")
    claims = {"claim": ["FTAL | FixLL"], "measured": ["1"], "borne_out": ["open"]}
    out.table(pd.DataFrame(claims).set_index("claim"), "04-claims")
    host = {"host": {"machine": "a farm"}}
    config = {"dataset": "mnist", "scale": "hours", "seed": 0, "other_seeds": [2]}
    counts = {"train_images": 60000, "test_images": 10000, "models": host}
    out.provenance(config | counts)
    record = json.loads((tmp_path / "provenance.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("04-*"))
    entry = Entry(job(tmp_path, "04", "Does it?"), files, record)
    more = {"dataset": "digits", "scale": "sweep", "seed": 4, "hosts": 3}
    more |= {"train_images": 600, "test_images": 500}
    other = Entry(job(tmp_path, "10", "Again?"), [], record | {"parameters": more})
    entries = [entry, other]
    text = write_readme(tmp_path, "tiny", "All of it.", entries).read_text("utf-8")
    assert text.startswith("# tiny\n\nAll of it.\n")
    assert "- FTAL | FixLL: **open**" in text
    assert "## Does it?" in text
    assert "![It rises.](04-curve.png)" in text
    assert "| FTAL | 12,346 |" in text
    assert "[04-long.csv](04-long.csv): 25 rows" in text
    assert "Hosts of seed 0, 2, 4, 5, 6:" in text
    assert "a farm" in text
    assert "60,000 of mnist, measured on 10,000; 600 of digits, measured on 500" in text
    assert "| epochs of the host | 4 | 20 |" in text  # recipes.toml: hours, paper
    assert "| weight of SPL | 5 | 1,000 |" in text
    assert str(tmp_path) not in text
