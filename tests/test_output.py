import json

import numpy as np
import pandas as pd
from PIL import Image

from fidlib.suites.output import Output
from tests.little import small_figure


def test_output_keeps_pictures_with_their_description(tmp_path):
    out = Output(tmp_path / "made")
    out.figure(small_figure(), "curve", alt="A line that rises.")
    with Image.open(tmp_path / "made" / "curve.png") as image:
        assert image.info["Description"] == "A line that rises."
    first = (tmp_path / "made" / "curve.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    assert b"CreationDate" not in first
    out.figure(small_figure(), "curve", alt="A line that rises.")
    assert (tmp_path / "made" / "curve.pdf").read_bytes() == first


def test_pictures_are_small_and_look_alike(tmp_path):
    figure = small_figure()
    # A thousand colours and more, which no palette holds.
    figure.axes[0].imshow(np.random.default_rng(0).random((40, 40)), cmap="viridis")
    figure.savefig(tmp_path / "whole.png")
    Output(tmp_path).figure(figure, "few", alt="A line that rises.")
    whole, few = (Image.open(tmp_path / f"{name}.png") for name in ("whole", "few"))
    assert few.size == whole.size
    assert few.info["dpi"] == whole.info["dpi"]
    apart = np.abs(_pixels(whole) - _pixels(few))
    assert apart.mean() < 1
    assert np.quantile(apart, 0.999) < 32
    assert apart.max() < 64
    large, small = (tmp_path.joinpath(f"{n}.png").stat() for n in ("whole", "few"))
    assert small.st_size < large.st_size


def _pixels(image):
    return np.asarray(image.convert("RGB"), int)


def test_output_keeps_the_numbers(tmp_path):
    out = Output(tmp_path)
    frame = pd.DataFrame(
        {"twl": [1.0, 123456789.0]}, index=pd.Index(["a", "b"], name="m")
    )
    assert out.table(frame, "numbers") is frame
    again = pd.read_csv(tmp_path / "numbers.csv", index_col="m")
    assert again.twl.tolist() == [1.0, 1.23457e8]
    out.arrays("points", xy=np.eye(2))
    assert np.array_equal(np.load(tmp_path / "points.npz")["xy"], np.eye(2))


def test_output_records_how_it_was_made(tmp_path):
    out = Output(tmp_path)
    table = out.provenance({"seed": 3})
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["parameters"] == {"seed": 3}
    assert {"versions", "commit", "machine", "made", "seconds"} <= record.keys()
    assert table.value["torch"] == record["versions"]["torch"]


def test_new_pictures_are_not_taken_for_those_of_an_old_record(tmp_path):
    Output(tmp_path).provenance({"seed": 3})
    Output(tmp_path)
    assert not (tmp_path / "provenance.json").exists()


def test_a_picture_says_what_it_was_made_with(tmp_path):
    out = Output(tmp_path)
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
