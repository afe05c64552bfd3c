import json

import nbformat
import pandas as pd

from fidlib.suites.output import Output
from fidlib.suites.page import Entry, write_page
from fidlib.suites.read import Job
from tests.little import small_figure


def test_write_page_shows_pictures_tables_and_failures(tmp_path):
    def job(name, question):
        cells = [nbformat.v4.new_markdown_cell(f"# {question}")]
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return Job(name, path, {"seed": 0})

    out = Output(tmp_path)
    out.figure(small_figure(), "01-curve", alt='It "rises" & falls.')
    sentence = "A sentence that is longer than a column of numbers would be, truly"
    row = {"method": ["FTAL"], "pfl": [12345.678], "why": [sentence]}
    out.table(pd.DataFrame(row), "01-numbers")
    out.provenance({"seed": 0})
    files = ["01-curve.pdf", "01-curve.png", "01-numbers.csv", "01-points.npz"]
    record = json.loads((tmp_path / "provenance.json").read_text())
    entries = [
        Entry(job("01", "Does it?"), files, record),
        Entry(job("02", "And this?"), traceback="ValueError: a < b"),
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
