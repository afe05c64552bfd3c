import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import fidlib as fl
from fidlib.__main__ import COMMANDS, main
from fidlib.measures.catalogue import MEASURES, usual
from fidlib.runs import machine
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
FLAGS = {
    "--" + name.replace("_", "-"): str(value)
    for name, value in vars(SMALL).items()
    if value != vars(fl.Config())[name]
}
SMALL_FLAGS = [part for flag in FLAGS.items() for part in flag]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert " ".join(COMMANDS[command].__doc__.split(".\n")[0].split()) in text


def test_table_prints_and_writes_what_the_study_says(study, tmp_path, capsys):
    path = tmp_path / "table.csv"
    arguments = ["table", "--models", "FTAL", "--csv", str(path), *SMALL_FLAGS]
    assert main(arguments) == 0
    expected = study.table(["FTAL"])
    pd.testing.assert_frame_equal(pd.read_csv(path, index_col="method"), expected)
    printed = capsys.readouterr().out
    assert f"{expected.loc['FTAL', 'twl']:.4g}" in printed


def test_table_of_a_suite_is_of_its_configuration_and_seeds(
    study, tmp_path, capsys, monkeypatch
):
    (tmp_path / "notebooks" / "suites").mkdir(parents=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / "notebooks" / path.name).symlink_to(path)
    base = {
        n: v for n, v in vars(SMALL).items() if n not in ("trigger_options", "seed")
    }
    base |= {"methods": ["FTAL", "FixLL+PFL"]}
    base.pop("precision"), base.pop("embed_epochs"), base.pop("embed_rate")
    several = {"other_seeds": [1], "repeated": ["FTAL"]}
    text = {"about": "Two.", "parameters": base}
    text["notebooks"] = [
        {"notebook": "01_embed"},
        {"notebook": "04_fidelity"} | several,
    ]
    path = tmp_path / "notebooks" / "suites" / "two.yaml"
    path.write_text(json.dumps(text))
    monkeypatch.chdir(tmp_path)
    alone = ["table", "--suite", "two", "--precision", "float32", "--jobs", "1"]
    given = ["--models", "FTAL", "--seeds", "0", "1"]
    assert main([*alone, *given]) == 0
    printed = capsys.readouterr().out
    both = fl.over_seeds(SMALL, ["FTAL"], [0, 1]).groupby("method", sort=False)
    _, means, deviations = re.split("mean over seeds 0, 1|standard dev.*them", printed)
    for text, number in ((means, f"{both.twl.mean().FTAL:.4g}"),
                        (deviations, f"{both.twl.std().FTAL:.3g}")):  # fmt: skip
        line = next(x for x in text.splitlines() if x.startswith("FTAL"))
        assert number in line.split()
    assert main([*alone, *given[:-1]]) == 2
    assert "a spread needs at least two" in capsys.readouterr().err
    # What the suite says of methods and other seeds holds where nothing is given.
    assert main(alone) == 0
    printed = capsys.readouterr().out
    first, rest = printed.split("mean over seeds 0, 1")
    table = first[first.index("method") :].splitlines()
    assert [x.split()[0] for x in table if x] == ["method", "host", "FTAL", "FixLL+PFL"]
    assert "FixLL+PFL" not in rest


def _publish(folder, table, rows, **record):
    """A table in `figures/`, with how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{table}.csv", index=False)
    whole = {"made": "2026-01-02T03", "machine": "a box", "commit": "abc"}
    whole |= {"seconds": 1.5, "versions": {}, "parameters": {}}
    text = json.dumps(whole | record)
    (folder / f"{table.rsplit('-')[0]}-provenance.json").write_text(text)


def test_show_prints_what_is_published(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "figures" / "smoke"

    def fail(*_):
        raise AssertionError("a study was made")

    monkeypatch.setattr(fl.Study, "__init__", fail)
    alone = ["show", "smoke"]
    assert main(alone) == 2
    assert "figures/smoke holds no numbers" in capsys.readouterr().err

    # What a notebook says of itself goes with its own table.
    rows = {"method": ["host", "FTAL"], "trigger_accuracy": [0.1, 1], "twl": [0, 12.5]}
    wide = {"parameters": {"feature_dim": 64}}
    _publish(folder, "02_features_64-fidelity", rows, **wide)
    assert main(alone) == 0
    printed = capsys.readouterr().out
    assert "02_features_64, made 2026-01-02: feature_dim 64; a box" in printed
    assert re.search(r"^FTAL +1.000 +12.5$", printed, re.M)
    assert main([*alone, "--csv", str(tmp_path / "a.csv")]) == 0
    assert pd.read_csv(tmp_path / "a.csv").to_dict("list") == rows
    capsys.readouterr()

    # A terminal's width breaks a row, which then says again whose it is.
    monkeypatch.setenv("COLUMNS", "24")
    assert main(alone) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^FTAL +1.000 ", printed, re.M)
    assert re.search(r"^FTAL +12.5 ", printed, re.M)
    monkeypatch.delenv("COLUMNS")

    said = {"scale": "hours", "seed": 0, "train_images": 1234, "split": "train"}
    _publish(folder, "01_embed-fidelity", rows, parameters={"scale": "smoke"})
    rows = {"method": ["FTAL", "FTAL"], "seed": [0, 1], "pfl_test": [2.0, 4.0]}
    _publish(folder, "04_fidelity-seeds", rows)
    rows = {"claim": ["It holds"], "measured": ["7 of 9"], "borne_out": ["partly"]}
    _publish(folder, "04_fidelity-claims", rows, parameters=said)
    assert main(alone) == 0
    first, seeds, claims = capsys.readouterr().out.split("\n\n04_fidelity, made ")
    assert first.startswith("01_embed, made 2026-01-02: scale smoke; a box; commit")
    assert re.search(r"mean over seeds 0, 1\n.*\n.*\nFTAL +3$", seeds, re.M)
    assert re.search(r"standard deviation.*\n.*\n.*\nFTAL +1.41$", seeds, re.M)
    assert (
        "scale hours, seed 0, train_images 1234, split train; a box; commit abc"
        in claims
    )
    assert "It holds: PARTLY\n    7 of 9" in claims


def test_make_and_compare_agree(study, capsys):
    assert main(["make", "FTAL", "FTAL/prune:0.4", *SMALL_FLAGS]) == 0
    host, folder, attacked = capsys.readouterr().out.splitlines()[-3:]
    assert [Path(path) for path in (host, folder, attacked)] == [
        study.folder(name) for name in ("host", "FTAL", "FTAL/prune:0.4")
    ]
    assert main(["compare", host, f"{folder}/model.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "note:" not in out
    lines = [line.split() for line in out.splitlines()]
    printed = {words[0]: words[1:] for words in lines if len(words) == 4}
    report = study.fidelity("FTAL")
    expected = [f"{number:.4g}" for number in report["agreement"]]
    assert printed["agreement"] == expected
    pfl = float(printed["pfl"][0].replace(",", ""))
    assert pfl == pytest.approx(report.pfl, rel=1e-3)
    assert printed["trigger_accuracy"] == ["–"] * 3
    assert [words for words in lines if len(words) == 1] == [
        [level] for level in dict.fromkeys(MEASURES[name].level for name in usual())
    ]


def test_compare_says_where_the_host_is_another(study, capsys):
    folder = str(study.folder("FTAL"))
    assert main(["compare", folder, folder]) == 0
    assert f"note: {folder} was not marked from {folder}" in capsys.readouterr().out


def test_compare_prints_classes_and_layers(study, capsys):
    folders = [str(study.folder(name)) for name in ("host", "FTAL")]
    assert (
        main(["compare", *folders, "--by-class", "--layers", "--split", "train"]) == 0
    )
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == "1,297 train images of digits; 95 % intervals"
    assert lines[1].split() == ["value", "low", "high", *map(str, range(10))]
    assert len({len(line) for line in lines if len(line.split()) > 9}) == 1
    assert "twl head" in printed
    assert len(next(x for x in lines if x.startswith("spl ")).split()) == 14


@pytest.fixture
def broken(tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "lacks.npz", x_train=np.zeros((2, 4, 4), np.uint8))
    model = fl.models.build(
        "resnet18", num_classes=10, feature_dim=2, mean=(0,), std=(1,)
    )
    fl.models.save(model, tmp_path / "cut.safetensors")
    path = tmp_path / "cut.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    torch.save(model.body.state_dict(), tmp_path / "authors.pt")
    (tmp_path / "half").mkdir()
    fl.models.save(model, tmp_path / "half" / "model.safetensors")
    (tmp_path / "changed").mkdir()
    fl.models.save(model, tmp_path / "changed" / "model.safetensors")
    sealed = '{"files": {"model.safetensors": "0123456789abcdef"}}'
    (tmp_path / "changed" / "done.json").write_text(sealed)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "FTALL"], "unknown method 'FTALL'; use one of"),
        (["make", "FTAL/prune:x"], "the strength 'x' is no number"),
        (["make", "FTAL/burn"], "unknown attack 'burn'; use one of"),
        (["make", "--triggers", "stamp"], "unknown triggers 'stamp'; use one of"),
        (["table", "--models", "FTAL", "nope"], "unknown method 'nope'"),
        (["make", "--dataset", "mnits"], "no image set 'mnits'"),
        (["make", "--dataset", "{}/cut.npz"], "is damaged or no .npz"),
        (["make", "--dataset", "{}/lacks.npz"], "lacks x_test"),
        (["make", "--model", "vgg"], "unknown network 'vgg'"),
        (["make", "--scale", "hour"], "unknown scale 'hour'"),
        (["make", "--feature-dim", "1"], "feature_dim is 1"),
        (["make", "--train-images", "1"], "there is 1 training image; BatchNorm needs"),
        (["make", "--feature-dim", "9" * 20], "it must be at least 2, below 2^63"),
        (["make", "--embed-rate", "nan"], "embed_rate is nan; it must be at least 0"),
        (["figures", "--suite", "digit"], "unknown suite 'digit'"),
        (["figures", "--only", "05"], "no notebook 05"),
        (["figures", "--jobs", "0"], "jobs is 0"),
        (["figures", "--backend", "dask"], "needs --scheduler"),
        (["figures", "--scheduler", "tcp://a:1"], "is for backend dask, not loky"),
        (["figures", "--backend", "dask", "--jobs", "2"], "leave jobs out"),
        (["table", "--seeds", "1"], "a spread needs at least two"),
        (["table", "--seeds", "1", "1"], "a spread needs at least two"),
        (["table", "--csv", "{}/none/table.csv"], "name a file in a folder"),
        (["table", "--csv", "{}/half"], "name a file in a folder"),
        (["compare", "{}/half", "{}/half", "--data", "digits"], "no finished run"),
        (
            ["compare", "{0}/changed", "{0}/changed", "--data", "digits"],
            "is damaged (model.safetensors)",
        ),
        (["compare", "{}/authors.pt", "{}/authors.pt"], "pass --data, such as digits"),
        (
            ["compare", "{}/authors.pt", "{}/authors.pt", "--data", "digits"],
            "not on 'digits': say which",
        ),
        (
            ["compare", "{}/none.pt", "{}/none.pt", "--page", "{}/none/a.html"],
            "page is {}/none/a.html: name a file in a folder",
        ),
        (
            ["compare", "{}/none.pt", "{}/none.pt", "--page", "/proc/a.html"],
            "page is /proc/a.html, where nothing can be written",
        ),
        (["compare", "{}/none.pt", "{}/none.pt"], "there is no model at"),
        (
            ["compare", "{}/cut.safetensors", "{}/authors.pt", "--data", "mnist"],
            "is damaged or no",
        ),
        (
            ["compare", "{}/cut.npz", "{}/cut.npz", "--data", "mnist"],
            "is damaged, or no file of torch.save",
        ),
    ],
)
def test_bad_input_gets_one_sentence(arguments, message, broken, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main([part.format(broken) for part in arguments]) == 2
    printed = capsys.readouterr()
    assert message.format(broken) in printed.err
    assert printed.err.startswith("fidlib: ")
    assert "Traceback" not in printed.err
    assert printed.err.count("\n") == 1


NOISY = [*SMALL_FLAGS, "--triggers", "noise"]
NOISY[NOISY.index("--trigger-count") + 1] = "40"


def test_an_owner_commits_and_verifies(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["commit", "key.json", "--images", "secret.npz", *NOISY]) == 0
    printed = capsys.readouterr().out
    assert json.loads(Path("key.json").read_text())["commitment"] in printed
    assert main(["commit", "key.json", *NOISY]) == 2
    assert "a key is never written over" in capsys.readouterr().err
    assert main(["commit", "same.npz", "--images", "same.npz", *NOISY]) == 2
    assert "key and images are both same.npz" in capsys.readouterr().err
    assert main(["verify", "host", "--key", "key.json"]) == 1
    assert "nothing is proved" in capsys.readouterr().out
    secret = np.load("secret.npz")
    study = fl.ownership.load("key.json").triggers
    assert np.array_equal(secret["images"], study.images.numpy())
    wrong = np.arange(40) < 10
    answers = pd.DataFrame({"answer": (secret["labels"] + wrong) % 10})
    answers.to_csv("answers.csv", index=False)
    assert main(["verify", "answers.csv", "--key", "key.json"]) == 0
    assert "30 of 40 triggers match" in capsys.readouterr().out
    folder = fl.Study(SMALL).folder("host")
    assert main(["verify", str(folder), "--key", "key.json"]) == 1
    assert "of 40 triggers match" in capsys.readouterr().out
    answers[:5].to_csv("few.csv", index=False)
    Path("empty.csv").write_bytes(b"")
    Path("latin.csv").write_bytes(b"answer\n\xe9\n")
    Path("words.csv").write_text("answer\ncat\n")
    named = (secret["labels"] + wrong) % 10
    lines = [f"{i},{c}" for i, c in enumerate(named)]
    Path("numbered.csv").write_text("\n".join(["answer", *lines]))
    pd.DataFrame({"answer": named}).to_csv("index.csv")
    Path("bare.csv").write_text("\n".join(map(str, [7, *named])))
    Path("half.csv").write_text("\n".join(["answer", *map(str, named[:-1]), "3.0"]))
    for suspect, message in (
        ("few.csv", "expected 40 class indices"),
        ("none.csv", "none.csv is no table of answers"),
        ("empty.csv", "empty.csv is no table of answers"),
        ("latin.csv", "latin.csv is no table of answers"),
        ("words.csv", "'cat' in line 2 is no class index"),
        ("numbered.csv", "line 2 has 2 columns, not 1"),
        ("bare.csv", "line 1 is answers, not their names"),
        ("index.csv", "a column has no name"),
        ("none.pt", "there is no model at none.pt"),
        ("half.csv", "'3.0' in line 41 is no class index"),
        ("x", "unknown method 'x'"),
    ):
        assert main(["verify", suspect, "--key", "key.json"]) == 2
        assert message in capsys.readouterr().err
    for odd in (
        ["--tries", "0"],
        ["--alpha", "2"],
        ["--alpha", "nan"],
        ["--fresh", "0"],
    ):
        assert main(["verify", "host", "--key", "key.json", *odd]) == 2
        assert f"{odd[0][2:]} is {odd[1]}" in capsys.readouterr().err
    damaged = json.loads(Path("key.json").read_text()) | {"commitment": 5}
    Path("five.json").write_text(json.dumps(damaged))
    Path("folder.json").mkdir()
    for name, message in (("five", "other triggers follow"), ("folder", "is no key")):
        assert main(["verify", "host", "--key", f"{name}.json"]) == 2
        assert message in capsys.readouterr().err
    assert main(["verify", "host", "--key", "none.json"]) == 2
    assert "there is no key at none.json" in capsys.readouterr().err


def test_triggers_have_options_and_references_are_tables_of_answers(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ["--trigger-options", "labels=fixed"]
    assert main(["commit", "key.json", *NOISY, *options]) == 0
    key = fl.ownership.load("key.json")
    assert key.labels == "fixed"
    labels = key.triggers.labels.numpy()
    pd.DataFrame({"answer": labels}).to_csv("ANSWERS.CSV", index=False)
    pd.DataFrame({"answer": (labels + 1) % 10}).to_csv("other.csv", index=False)
    command = ["verify", "ANSWERS.CSV", "--key", "key.json", "--alpha", "0.96"]
    assert main([*command, "--references", "other.csv"]) == 0
    assert "p = 0.95 (1 models" in capsys.readouterr().out
    assert main([*command, "--references", "other.csv", "other.csv"]) == 2
    assert "a reference is named twice" in capsys.readouterr().err
    assert main(["commit", "t.json", *NOISY, "--trigger-options", "labels=true"]) == 0
    assert fl.ownership.load("t.json").labels == "true"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["commit", "b.json", *NOISY, "--trigger-options", "a=1", "a=2"])
    assert "names an option twice" in " ".join(capsys.readouterr().err.split())
    assert main(["commit", "b.json", *NOISY, "--trigger-options", "links=x"]) == 2
    assert "which noise does not take" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["commit", "b.json", *NOISY, "--trigger-options", "links"])
    assert "'links' is no NAME=VALUE" in " ".join(capsys.readouterr().err.split())


def test_lab_is_of_a_clone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["lab"]) == 2
    assert f"no notebooks in {tmp_path}: run fidlib lab in a" in capsys.readouterr().err


def test_no_memory_gets_one_sentence(capsys):
    assert main(["make", "--feature-dim", "1000000000000"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fidlib: out of memory")
    assert printed.count("\n") == 1


def test_the_command_line_exits_with_its_status(tmp_path):
    command = [sys.executable, "-m", "fidlib", "compare", "none.pt", "none.pt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "fidlib: there is no model at none.pt: check the path.\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "fidlib", "show", "digits"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as table:
        table.stdout.close()
        assert not table.stderr.read()
    assert table.returncode == 141


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["table", "--sed", "1"])
    assert caught.value.code != 0
    assert "--seed" in capsys.readouterr().err


def test_the_readmes_configuration_is_the_default():
    readme = (ROOT / "README.md").read_text()
    (written,) = re.findall(r"study = fl\.Study\(fl\.(Config\(.*?\))\)", readme)
    assert eval(written, {"Config": fl.Config}) == fl.Config()


@pytest.mark.parametrize("arguments", [["--help"], ["show", "mnist"], ["table", "-h"]])
def test_what_trains_nothing_asks_for_no_torch(arguments):
    code = (
        "import sys\nfrom fidlib.__main__ import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    assert "FTAL" in ended.stdout or "usage" in ended.stdout


def test_an_installed_copy_holds_every_room_and_shows_what_is_published(
    tmp_path, monkeypatch, capsys
):
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {p.parent for p in (ROOT / "fidlib").rglob("*.py")}
    names = {str(room.relative_to(ROOT)).replace("/", ".") for room in rooms}
    assert names | {"fidlib.notebooks", "fidlib.figures"} == set(setup["packages"])

    for name, folder in setup["package-dir"].items():
        (tmp_path / "fidlib").mkdir(exist_ok=True)
        (tmp_path / name.replace(".", "/")).symlink_to(ROOT / folder)
    monkeypatch.setattr(machine, "PACKAGE", tmp_path / "fidlib")
    monkeypatch.chdir(tmp_path)
    assert main(["show", "mnist"]) == 0
    assert "FixLL+PFL" in capsys.readouterr().out
