"""Gathers what an explorer shows, of a study or of any two classifiers."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fidlib import data, models
from fidlib.data import Split
from fidlib.explorer import page
from fidlib.explorer.live import SIDES, Planes
from fidlib.explorer.scene import Film, Kept, Map, Scene, Shown, look
from fidlib.measures import maps
from fidlib.measures.catalogue import MEASURES, usual
from fidlib.measures.curve import IMAGES
from fidlib.measures.fidelity import Fidelity, compare
from fidlib.measures.maps import Projection
from fidlib.methods import METHODS
from fidlib.models import Classifier, Outputs
from fidlib.runs import store
from fidlib.study.lineage import Lineage, Name, several
from fidlib.study.study import Study

FRAMES = 12
"""Points of a training in a film, at most."""

_BOTH = ("FTAL", "FixLL+PFL")
ATTACKED = [f"{name}/prune:{s}" for name in _BOTH for s in (0.2, 0.4, 0.6, 0.8)]
ATTACKED += [f"{name}/fine-tune" for name in _BOTH]
"""Models that are shown where they are there, besides those of all methods."""

Gathered = tuple[Scene, Planes]


class One(NamedTuple):
    """A model that is to be shown."""

    name: str
    model: Classifier
    outputs: Callable[[Tensor], Outputs]
    """Its features and logits of images."""
    values: Mapping[str, float | None]
    """Of measures, by name."""
    film: Film | None = None


def asked(
    what: Any, models: Any, split: Any, secret: Any, count: int
) -> Callable[[], Gathered]:
    """What `explore` was asked for, checked but not yet gathered."""
    if isinstance(what, Study):
        if split is not None or secret is not None:
            raise ValueError(
                "a study has images and triggers of its own: pass no others."
            )
        given = trained(what) if models is None else models
        if not (names := several(given)):
            raise ValueError(
                "no model of this study is trained: name some, as in models=."
            )
        return lambda: of_study(what, names, count)
    pair = (what, models)
    if not all(isinstance(model, Classifier) for model in pair) or split is None:
        came = ", ".join(type(each).__name__ for each in (*pair, split))
        raise ValueError(
            f"explore got {came}; pass a Study, the name of a suite, or two "
            "classifiers from fidlib.models.wrap and a fidlib.data.Split."
        )
    return lambda: of_pair(pair, split, secret, count)


def trained(study: Study) -> list[str]:
    """Models of a study that are there, by lineage; none without its host."""

    def there(names: Iterable[str]) -> list[str]:
        return [n for n in names if not study.is_missing(Lineage.read(n), ())]

    methods = there(METHODS) if there(["host"]) else []
    return methods + there(n for n in ATTACKED if n.split("/")[0] in methods)


def of_study(study: Study, names: Iterable[Name], count: int) -> Gathered:
    """The host and other models of a study on test images and triggers."""
    lineages = [Lineage(), *map(Lineage.read, names)]
    test, secret = study.test, study.triggers
    # Films have 2,000 images, so that those shown are some of them.
    rows = test.sample_rows(max(count, IMAGES))
    some = Split(test.images[rows], test.labels[rows])
    rows, split = rows[some.sample_rows(count)], some.sample(count)
    ones = [
        One(
            name,
            study.model(lineage),
            partial(study.outputs, lineage),
            study.fidelity(lineage).values(),
            _film(study, lineage, rows),
        )
        for name, lineage in {str(one): one for one in lineages}.items()
    ]
    config, dim = study.config, ones[0].model.feature_dim
    title = (
        f"{Path(config.dataset).stem}, {config.network}, D = {dim}, seed {config.seed}"
    )
    return _gathered(title, study.classes, split, secret, rows, ones)


def of_pair(
    pair: tuple[Classifier, Classifier],
    split: Split,
    triggers: Split | None,
    count: int,
    *,
    names: Sequence[str] = ("host", "marked"),
    classes: Sequence[str] = (),
    report: Fidelity | None = None,
) -> Gathered:
    """Any two classifiers of the same classes on images of one's own."""
    report = report or compare(*pair, split, triggers)
    same = {name: row.same for name, row in MEASURES.items()}
    shares = {n: report[f"host_{n}"].value for n in ("accuracy", "trigger_accuracy")}
    rows, some = split.sample_rows(count), split.sample(count)
    secret = triggers or Split(some.images[:0], some.labels[:0])
    values = (same | shares, report.values())
    ones = [
        One(name, model, partial(models.outputs, model), numbers)
        for name, model, numbers in zip(names, pair, values, strict=True)
    ]
    title = f"{names[1]} against {names[0]}"
    classes = classes or [str(k) for k in range(pair[0].num_classes)]
    return _gathered(title, classes, some, secret, rows, ones)


def compared(
    path: Path,
    pair: tuple[Classifier, Classifier],
    split: Split,
    report: Fidelity,
    names: Sequence[str],
    classes: Sequence[str],
) -> Path:
    """Write a page of two classifiers with the whole report below it."""
    names = names if names[0] != names[1] else ("host", "marked")
    scene, planes = of_pair(
        pair, split, None, 1000, names=names, classes=classes, report=report
    )
    scene = replace(scene, planes=kept(scene, planes, 3))
    table = report.table().reset_index()
    table["unit"] = [MEASURES[name].unit for name in table["measure"]]
    title = f"<h2>{len(split):,} images; 95 % intervals</h2>"
    rows = table.to_html(
        border=0, index=False, na_rep="–", float_format="{:.4g}".format
    )
    path.write_text(page.page(*scene.pack(), f'<div class="below">{title}{rows}</div>'))
    return path


def kept(scene: Scene, planes: Planes, count: int) -> list[Kept]:
    """Planes in pixel space of all models, for pages without a kernel.

    Every other one has a trigger at a corner, an image of the class that the first
    model gives it, and one of the class that its label says; the others have three
    images of different classes.
    """
    draw = np.random.default_rng(0)
    images, answers = len(scene.rows), scene.models[0].logits.argmax(1)
    right = np.flatnonzero(answers[:images] == scene.labels[:images])
    secret = np.flatnonzero(answers[images:] != scene.labels[images:]) + images
    planned = []
    for n in range(count):
        classes = draw.permutation(np.unique(scene.labels[right]))[:3]
        corners = [int(draw.choice(right[scene.labels[right] == k])) for k in classes]
        if n % 2 and len(secret):
            i = int(draw.choice(secret))
            pair = (answers[i], scene.labels[i])
            of = [right[scene.labels[right] == k] for k in pair]
            if all(len(rows) for rows in of):
                corners = [i, *(int(draw.choice(rows)) for rows in of)]
        if len(corners) == 3:
            planned.append(corners)
    names, side = [model.name for model in scene.models], SIDES[-2]
    return [
        Kept(
            three,
            side,
            {name: planes.cells(name, three, side) for name in names},
            {name: planes.edges(name, three) for name in names},
        )
        for three in planned
    ]


def tabled(tables: Any) -> list[dict[str, Any]]:
    """What `explore` was given as `tables`.

    Raises:
        ValueError: If it is no tables by title.
    """
    if isinstance(tables, Mapping) and all(map(_names_models, tables.values())):
        return [table(str(title), frame) for title, frame in tables.items()]
    raise ValueError(
        f"tables is {' '.join(repr(tables).split())[:80]}; pass tables by title, such "
        'as {"Mine": study.table()}, each with a column or an index method.'
    )


def _names_models(frame: Any) -> bool:
    table = isinstance(frame, pd.DataFrame)
    return table and "method" in [*frame.columns, *frame.index.names]


def table(title: str, frame: Any) -> dict[str, Any]:
    """More models for the trade-offs: a row each, its name from what is no measure."""
    frame = frame.reset_index().rename(columns={"marked_accuracy": "accuracy"})
    settings = [n for n in ("weight", "chains", "epochs", "seed") if n in frame]
    rows = []
    for _, row in frame.iterrows():
        parts = [row["method"], *(f"{name} {row[name]:g}" for name in settings)]
        values = _numbers({n: row[n] for n in MEASURES if n in frame})
        one = {"name": ", ".join(parts), "values": values, **look(row["method"])}
        rows.append(one)
    return {"title": title, "rows": rows}


def _gathered(
    title: str,
    classes: Sequence[str],
    split: Split,
    secret: Split,
    rows: Tensor,
    ones: Sequence[One],
) -> Gathered:
    parts = [part for part in (split, secret) if len(part)]
    pixels = torch.cat([data.pixels(part.images).float() for part in parts])
    shown = [_shown(one, parts) for one in ones]
    scene = Scene(
        title=title,
        classes=classes,
        pixels=pixels.cpu().numpy(),
        labels=torch.cat([part.labels for part in parts]).cpu().numpy(),
        rows=rows.cpu().numpy(),
        models=shown,
        maps=_maps(shown, len(rows)),
        measures=[_told(name) for name in usual()],
    )
    ask = {o.name: lambda x, m=o.model: models.outputs(m, x).logits for o in ones}
    return scene, Planes(ask, pixels)


def _shown(one: One, parts: Sequence[Split]) -> Shown:
    outputs = [one.outputs(part.images) for part in parts]
    features, logits = (
        torch.cat(both).cpu().numpy() for both in zip(*outputs, strict=True)
    )
    weight, bias = one.model.head.weight, one.model.head.bias
    bias = torch.zeros(len(weight)).to(weight) if bias is None else bias
    head = torch.cat([weight, bias[:, None]], 1).detach().cpu().numpy()
    return Shown(one.name, features, logits, head, _numbers(one.values), one.film)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """As JSON has them, in five digits."""
    return {
        n: None if v is None or math.isnan(v) else float(f"{v:.5g}")
        for n, v in values.items()
    }


def _film(study: Study, of: Lineage, rows: Tensor) -> Film | None:
    """Points of a training; None if they were not kept."""
    try:
        curve = study.curve(of)
    except ValueError:
        return None
    there = {row: place for place, row in enumerate(curve.rows.tolist())}
    if not curve.trigger_logits.shape[1] or not there.keys() >= set(rows.tolist()):
        return None  # a training without triggers, or other images
    places = [there[row] for row in rows.tolist()]
    epochs = study.history(of).epoch.tolist()
    points = np.unique(np.linspace(0, len(epochs) - 1, FRAMES).round().astype(int))
    features, logits = (
        torch.cat([shown[points][:, places], secret[points]], 1).float().numpy()
        for shown, secret in (
            (curve.features, curve.trigger_features),
            (curve.logits, curve.trigger_logits),
        )
    )
    heads = None
    if features.shape[2] == 2:  # the head then, from what it made of the features
        one = np.ones_like(features[..., :1])
        frames = zip(np.concatenate([features, one], 2), logits, strict=True)
        heads = np.stack([np.linalg.lstsq(x, z)[0].T for x, z in frames])
    kept = [epochs[point] for point in points]
    return Film(kept, features, logits.argmax(2), heads)


def _maps(shown: Sequence[Shown], images: int) -> list[Map]:
    features, host = {model.name: model.features for model in shown}, shown[0].name
    films = {model.name: model.film.features for model in shown if model.film}
    dims = {each.shape[1] for each in features.values()}
    if dims == {2}:
        return [Map("exact", features, films, note="D = 2: nothing is projected.")]
    if len(dims) > 1:
        alone = [_common({n: x}, n, images, "pca") for n, x in features.items()]
        note = "The models differ in D: each has axes of its own."
        places = {name: xy for one in alone for name, xy in one.items()}
        return [Map("PCA of each", places, common=False, note=note)]
    frames = {f"{n} {p}": x for n, film in films.items() for p, x in enumerate(film)}
    all_maps, dim = [], dims.pop()
    for projection in get_args(Projection):
        places = _common(features | frames, host, images, projection)
        moving = {
            name: np.stack([places[f"{name} {p}"] for p in range(len(film))])
            for name, film in films.items()
        }
        title = projection.upper()
        note = f"{title} of D = {dim} features, fitted on {host}."
        all_maps.append(Map(title, places, moving, note=note))
    return all_maps


def _common(
    features: Mapping[str, np.ndarray], fit: str, images: int, projection: Projection
) -> dict[str, np.ndarray]:
    """`maps.common_map`, made once and kept."""
    content = hashlib.sha256(b"".join(each.tobytes() for each in features.values()))
    key = {"features": content.hexdigest(), "names": list(features), "fit": fit}
    key |= {"projection": projection, "images": images}
    neighbors = min(15, (images - 1) // 2)

    def build(folder: Path) -> None:
        xy = maps.common_map(
            features, fit=fit, first=images, projection=projection, neighbors=neighbors
        )
        np.save(folder / "places.npy", np.stack(list(xy.values())))

    places = np.load(store.make("maps", key, build) / "places.npy")
    return dict(zip(features, places, strict=True))


def _told(name: str) -> dict[str, Any]:
    """What is said of a measure; more is better (1), worse (-1), or neither (0)."""
    row = MEASURES[name]
    title = name.upper() if len(name) <= 3 else name.replace("_", " ")
    direction = {0.0: -1, 1.0: 1, None: 0 if name.startswith("host") else 1}[row.same]
    return {"name": name, "title": title, "unit": row.unit, "direction": direction}
