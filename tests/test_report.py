import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from fidlib import report


def small_figure():
    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


def test_output_keeps_pictures_with_their_description(tmp_path):
    out = report.Output(tmp_path / "made")
    out.figure(small_figure(), "curve", alt="A line that rises.")
    with Image.open(tmp_path / "made" / "curve.png") as image:
        assert image.info["Description"] == "A line that rises."
    first = (tmp_path / "made" / "curve.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    assert b"CreationDate" not in first
    out.figure(small_figure(), "curve", alt="A line that rises.")
    assert (tmp_path / "made" / "curve.pdf").read_bytes() == first


def test_output_keeps_the_numbers(tmp_path):
    out = report.Output(tmp_path)
    frame = pd.DataFrame(
        {"twl": [1.0, 123456789.0]}, index=pd.Index(["a", "b"], name="m")
    )
    assert out.table(frame, "numbers") is frame
    again = pd.read_csv(tmp_path / "numbers.csv", index_col="m")
    assert again.twl.tolist() == [1.0, 1.23457e8]
    out.arrays("points", xy=np.eye(2))
    assert np.array_equal(np.load(tmp_path / "points.npz")["xy"], np.eye(2))


def test_output_records_how_it_was_made(tmp_path):
    out = report.Output(tmp_path)
    table = out.provenance({"seed": 3})
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["parameters"] == {"seed": 3}
    assert {"versions", "commit", "machine", "made", "seconds"} <= record.keys()
    assert table.value["torch"] == record["versions"]["torch"]


def test_new_pictures_are_not_taken_for_those_of_an_old_record(tmp_path):
    report.Output(tmp_path).provenance({"seed": 3})
    report.Output(tmp_path)
    assert not (tmp_path / "provenance.json").exists()


def test_a_picture_says_what_it_was_made_with(tmp_path):
    out = report.Output(tmp_path)
    out.figure(small_figure(), "curve", alt="A line that rises, φ.")
    with Image.open(tmp_path / "curve.png") as image:
        before, pixels = image.info, np.asarray(image)
    out.provenance({"seed": 3})
    with Image.open(tmp_path / "curve.png") as image:
        after = image.info
        assert np.array_equal(np.asarray(image), pixels)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert json.loads(after.pop("Comment")) == record
    assert after == before


def test_write_page_shows_pictures_tables_and_failures(tmp_path):
    out = report.Output(tmp_path)
    out.figure(small_figure(), "01-curve", alt='It "rises" & falls.')
    sentence = "A sentence that is longer than a column of numbers would be, truly"
    row = {"method": ["FTAL"], "pfl": [12345.678], "why": [sentence]}
    out.table(pd.DataFrame(row), "01-numbers")
    out.provenance({"seed": 0})
    files = ["01-curve.pdf", "01-curve.png", "01-numbers.csv", "01-points.npz"]
    record = json.loads((tmp_path / "provenance.json").read_text())
    entries = [
        report.Entry("01", "Does it?", {"seed": 0}, files, record),
        report.Entry("02", "And this?", {}, traceback="ValueError: a < b"),
    ]
    page = report.write_page(tmp_path, "tiny", "All of it.", entries)
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
