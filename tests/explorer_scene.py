"""A scene small enough to be checked by hand, with all that one can have."""

import numpy as np

from fidlib.explorer.scene import Film, Kept, Map, Scene, Shown

NAMES = ("host", "FTAL", "FTAL/prune:0.2", "FTAL/prune:0.4")
CLASSES = ("zero", "one", "two", "<b>three</b>")
IMAGES, TRIGGERS, POINTS, SIDE, STEPS = 60, 6, 5, 12, 9


def example(*, images: int = IMAGES, channels: int = 1) -> Scene:
    draw = np.random.default_rng(0)
    count, classes = images + TRIGGERS, len(CLASSES)
    labels = draw.integers(classes, size=count)
    turns = labels * 2 * np.pi / classes
    centers = 4 * np.stack([np.cos(turns), np.sin(turns)], 1)
    models, places, films = [], {}, {}
    for n, name in enumerate(NAMES):
        turns = np.arange(classes) * 2 * np.pi / classes
        head = np.stack(
            [np.cos(turns), np.sin(turns), 0.1 * draw.normal(size=classes)], 1
        )
        features = (centers + (1 + 0.3 * n) * draw.normal(size=(count, 2))).astype("f4")
        logits = features @ head[:, :2].T + head[:, 2]
        film = None
        if n == 1:
            frames = np.stack([features * p / (POINTS - 1) for p in range(POINTS)])
            answers = np.stack(
                [(f @ head[:, :2].T + head[:, 2]).argmax(1) for f in frames]
            )
            points = [0.0, 0.5, 1.0, 1.5, 2.0]
            film = Film(points, frames, answers, np.stack([head] * POINTS))
            films[name] = frames
        values = {
            "twl": 10.0 * n,
            "pfl": (1.0, 27.0, 3.0, 9.0)[n],
            "agreement": 1 - 0.1 * n,
        }
        values |= {"trigger_accuracy": 0.2 + 0.2 * n, "accuracy": 0.9}
        models.append(Shown(name, features, logits, head, values, film))
        places[name] = features
    measures = [
        {"name": "twl", "title": "TWL", "unit": "squared weights", "direction": -1},
        {"name": "pfl", "title": "PFL", "unit": "squared features", "direction": -1},
        {"name": "agreement", "title": "agreement", "unit": "share", "direction": 1},
        {
            "name": "trigger_accuracy",
            "title": "answered",
            "unit": "share",
            "direction": 1,
        },
    ]
    cells = {name: draw.integers(classes, size=(SIDE, SIDE)) for name in NAMES}
    edges = {name: draw.dirichlet(np.ones(classes), size=(3, STEPS)) for name in NAMES}
    return Scene(
        title="a <i>small</i> scene",
        classes=CLASSES,
        pixels=draw.random((count, channels, 8, 6)),
        labels=labels,
        rows=np.arange(images) * 3,
        models=models,
        maps=[Map("exact", places, films, note="D = 2.")],
        measures=measures,
        planes=[Kept((3, 4, images + 1), SIDE, cells, edges)],
    )
