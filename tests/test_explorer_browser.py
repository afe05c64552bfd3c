"""The page in a real browser: one for the whole file."""

import json
import math
from urllib.parse import quote

import numpy as np
import pytest

from fidlib import palette
from fidlib.explorer import page
from tests import browser
from tests.explorer_scene import CLASSES, IMAGES, NAMES, POINTS, SIDE, example

pytestmark = pytest.mark.skipif(
    browser.executable() is None,
    reason=f"no browser here: install one of {', '.join(browser.NAMES)}",
)
READY = "fx = document.querySelector('.fx'); fx.maps.views.left.xy !== undefined"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def shown():
    return example()


@pytest.fixture(scope="module")
def url(shown, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page.page(*shown.pack()))
    return path.as_uri()


@pytest.fixture
def tab(chrome, url):
    """The page, freshly opened."""
    chrome.send("Page.navigate", url="about:blank")
    chrome.size(1300, 1000)
    chrome.open(url)
    chrome.wait(READY)
    yield chrome
    assert chrome.complaints() == []


def state(tab, name):
    return tab.run(f"fx.state.values.{name}")


def change(tab, values):
    tab.run(f"fx.state.set({values})")


def places(tab, side):
    """Where images are on the window."""
    script = f"""(() => {{
        const view = fx.maps.views.{side}, box = view.top.getBoundingClientRect();
        return [...view.xy].map((v, n) => v + (n % 2 ? box.y : box.x));
    }})()"""
    return np.reshape(tab.run(script), (-1, 2))


def box(tab, side):
    script = f"""(() => {{
        const box = fx.maps.views.{side}.top.getBoundingClientRect();
        return [box.x, box.y, box.width];
    }})()"""
    return tab.run(script)


def colors(tab, selector):
    """How many colours a canvas has."""
    return tab.run(
        f"""(() => {{
        const canvas = document.querySelector({selector!r});
        const context = canvas.getContext("2d");
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(data.buffer)).size;
    }})()"""
    )


def in_polygon(point, path):
    """By the angles under which a point sees the corners: not as the page does."""
    turns = 0.0
    for (ax, ay), (bx, by) in zip(path, path[1:] + path[:1], strict=True):
        a, b = (math.atan2(y - point[1], x - point[0]) for x, y in ((ax, ay), (bx, by)))
        turns += (b - a + math.pi) % (2 * math.pi) - math.pi
    return abs(turns) > math.pi


def test_every_image_is_drawn_in_the_colour_of_its_class(tab, shown):
    for side in ("left", "right"):
        script = f"""(() => {{
            const {{ base, xy, size }} = fx.maps.views.{side};
            const context = base.getContext("2d"), places = [...xy.keys()];
            const at = (n) => (xy[n] * base.width) / size;
            return places.filter(n => n % 2 === 0).map(
                n => [...context.getImageData(at(n), at(n + 1), 1, 1).data]);
        }})()"""
        drawn = np.array(tab.run(script))[:IMAGES]
        assert np.median(drawn[:, 3]) > 180  # regions behind are faint
        hues = palette.class_colors(len(CLASSES))
        tones = np.array([[int(h[n : n + 2], 16) for n in (1, 3, 5)] for h in hues])
        apart = np.linalg.norm(drawn[:, None, :3] - tones, axis=2)
        same = apart.argmin(1) == shown.labels[:IMAGES]
        assert same.mean() > 0.9  # some lie below others
        assert np.median(apart.min(1)) < 60


def test_names_are_text(tab):
    heading = tab.run("document.querySelector('.fx h2').textContent")
    assert heading == "a <i>small</i> scene"
    chips = "[...document.querySelectorAll('.chips button')].map(b => b.textContent)"
    assert tab.run(chips) == [*CLASSES, "× triggers"]
    assert tab.run("document.querySelector('.fx h2 i, .chips b')") is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lasso_selects_what_is_in_its_polygon(tab, side):
    x, y, width = box(tab, side)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = width * (0.2 + 0.08 * np.cos(5 * turns))
    path = [
        (
            round(x + 0.55 * width + r * math.cos(t)),
            round(y + 0.45 * width + r * math.sin(t)),
        )
        for t, r in zip(turns, radius, strict=True)
    ]
    expected = [i for i, p in enumerate(places(tab, side)) if in_polygon(p, path)]
    assert 5 < len(expected) < IMAGES
    tab.drag(path)
    assert state(tab, "selected") == expected
    assert tab.run("document.querySelectorAll('.strip button').length") == len(expected)
    said = tab.run("fx.textContent")
    assert f"{len(expected)} selected" in said


def test_the_selection_is_counted_and_saved(tab, shown):
    rows = [2, 3, 7, IMAGES + 1]
    change(tab, f"{{selected: {rows}}}")
    host, ftal = (model.logits.argmax(1)[rows] for model in shown.models[:2])
    said = tab.run("fx.textContent")
    assert f"4 selected: {(host != ftal).sum()} answers changed" in said
    assert f"FTAL on {(ftal == shown.labels[rows]).sum()}" in said
    csv = tab.run("fx.selection.csv()").splitlines()
    assert csv[0] == "kind,number,class,host,FTAL,moved"
    moved = np.linalg.norm(shown.models[0].features - shown.models[1].features, axis=1)
    order = sorted(rows, key=lambda i: -moved[i])
    numbers = [3 * i if i < IMAGES else i - IMAGES for i in order]
    assert [int(line.split(",")[1]) for line in csv[1:]] == numbers
    assert float(csv[1].split(",")[-1]) == pytest.approx(moved[order[0]], abs=1e-3)


def test_a_point_shows_probabilities_and_kept_neighbours(tab, shown):
    i = 11
    x, y = places(tab, "left")[i]
    tab.move(x, y)
    i = state(tab, "hover")
    assert np.hypot(*(places(tab, "left")[i] - (x, y))) <= np.hypot(1, 1)
    z = shown.models[0].logits[i]
    expected = sorted(np.exp(z - z.max()) / np.exp(z - z.max()).sum())[::-1][:3]
    numbers = tab.run(
        "[...fx.querySelectorAll('.maps .probabilities b')].map(b => +b.textContent)"
    )
    assert numbers[:3] == pytest.approx(expected, abs=2e-3)
    near = [tab.run(f"[...fx.scene.row('neighbors {m}', {i})]") for m in (0, 1)]
    kept = len(set(near[0]) & set(near[1]))
    assert f"under FTAL: {kept} of 8 kept" in tab.run("fx.textContent")


def test_planes_in_feature_space_are_numpys(tab, shown):
    corners = [5, 9, IMAGES + 3]
    change(tab, f"{{corners: {corners}}}")
    side = tab.run("fx.planes.mixes.side")
    line = (np.arange(side) + 0.5) / side
    b, c = np.meshgrid(line, line)
    inside = np.add.outer(np.arange(side), np.arange(side)) < side
    names = []
    for m in (0, 1):
        z = shown.models[m].logits[corners]
        mix = (1 - b - c)[..., None] * z[0] + b[..., None] * z[1] + c[..., None] * z[2]
        names.append(mix.argmax(2))
        cells = tab.run(f"Array.from(fx.planes.mixes.both[{m}])")
        differ = np.reshape(cells, (side, side)) != names[m]
        assert differ[inside].mean() < 5e-4  # of logits that int16 rounds
    share = 100 * (names[0] != names[1])[inside].mean()
    assert share > 1
    said = tab.run("fx.planes.stages[2].head.textContent")
    assert float(said.split("on ")[1].split()[0]) == pytest.approx(share, abs=0.1)


def test_a_kept_plane_is_shown_without_a_kernel(tab, shown):
    tab.run("document.querySelector('[title^=plane]').click()")
    kept = shown.planes[0]
    assert state(tab, "space") == "pixels"
    cells = tab.run("Array.from(fx.planes.mixes.both[1])")
    assert np.array_equal(np.reshape(cells, (SIDE, SIDE)), kept.cells["FTAL"])
    chance = tab.run("fx.planes.mixes.chance(1, [0.5, 0, 0.5])")
    assert chance == pytest.approx(kept.edges["FTAL"][2, 4].tolist(), abs=1e-3)
    change(tab, "{corners: [0, 1, 2]}")
    assert "no kernel is here" in tab.run("fx.planes.note.textContent")


def test_a_kernel_is_asked_for_one_level_at_a_time(tab):
    tab.run(
        """(() => {
        wanted = [];
        fx.planes.live = true;
        fx.planes.model.set = (name, value) => name === "wanted" && wanted.push(value);
        fx.planes.model.save_changes = () => {};
        answer = (n) => {
            const { models, side } = wanted[n];
            const cell = (q) => q % side + Math.floor(q / side) < side;
            const cells = models.map((_, m) =>
                Array.from({ length: side * side }, (_, q) => m * cell(q)));
            const edges = models.map((_, m) => Array(3 * 5 * 4).fill(0.25 + m));
            fx.planes.answer({ ...wanted[n], cells, edges });
        };
    })()"""
    )
    change(tab, "{corners: [1, 2, 7], space: 'pixels'}")
    assert tab.run("wanted.map(w => w.side)") == [12]
    change(tab, "{corners: [1, 2, 8]}")
    assert tab.run("wanted.map(w => [w.side, w.corners[2]])") == [[12, 7], [12, 8]]
    tab.run("answer(0)")  # what is no longer wanted is kept, and nothing more asked
    assert tab.run("[wanted.length, fx.planes.mixes]") == [2, None]
    for n, side in enumerate((12, 24, 48, 96), 1):
        tab.run(f"answer({n})")
        assert tab.run("[fx.planes.mixes.side, wanted.length]") == [side, min(n + 2, 5)]
    assert tab.run("wanted.map(w => w.side)") == [12, 12, 24, 48, 96]
    assert "100.0 %" in tab.run("fx.planes.stages[2].head.textContent")
    assert tab.run("fx.planes.mixes.chance(1, [0.5, 0.5, 0])") == [1.25] * 4
    change(tab, "{corners: [1, 2, 7]}")
    assert tab.run("[fx.planes.mixes.side, wanted.at(-1).side]") == [12, 24]
    tab.run("fx.planes.answer({ error: 'out of <b>memory' })")
    assert tab.run("fx.planes.note.textContent") == "out of <b>memory"


def slide(tab, selector, value):
    tab.run(
        f"""(() => {{
        const slider = document.querySelector({selector!r});
        slider.value = {value};
        slider.dispatchEvent(new Event("input", {{bubbles: true}}));
    }})()"""
    )


def test_sliders_move_images_from_host_to_marked_and_through_the_training(tab, shown):
    ends = [
        tab.run(f"[...fx.maps.now('{side}', 'place')]") for side in ("left", "right")
    ]
    slide(tab, ".way", 0.25)
    mixed = tab.run("[...fx.maps.now('right', 'place')]")
    assert mixed == pytest.approx(
        (0.75 * np.array(ends[0]) + 0.25 * np.array(ends[1])), abs=1e-4
    )
    slide(tab, ".film", 2)
    frame = shown.maps[0].films["FTAL"][2].ravel()
    assert tab.run("[...fx.maps.now('right', 'place')]") == pytest.approx(
        frame, abs=1e-3
    )
    assert (
        tab.run("[...fx.maps.now('right', 'answers')]")
        == shown.models[1].film.answers[2].tolist()
    )
    assert "epoch 1" in tab.run("document.querySelector('.sliders').textContent")
    change(tab, "{right: 'FTAL/prune:0.2'}")
    assert tab.run("document.querySelector('.film').disabled")
    strength = ".maps .panel:nth-of-type(2) .strength"
    slide(tab, strength, 1)
    assert state(tab, "right") == "FTAL/prune:0.4"
    assert tab.run("fx.scene.about.models[1].film.length") == POINTS


def test_models_are_brushed_and_opened(tab):
    tab.run("fx.models.node.scrollIntoView()")
    script = """(() => {
        const panel = fx.models.panels[0], box = panel.chart.getBoundingClientRect();
        const on = (v, n) => (v * box.width) / 380 + [box.x, box.y][n];
        return [...panel.places.values()].map((place) => place.map(on));
    })()"""
    places = tab.run(script)
    (ax, ay), (bx, by) = places[1], places[2]
    low, high = (min(ax, bx) - 8, min(ay, by) - 8), (max(ax, bx) + 8, max(ay, by) + 8)
    tab.drag([low, ((low[0] + high[0]) / 2, high[1]), high])
    assert state(tab, "brushed") == [1, 2]
    faint = (
        "[...fx.models.table.tBodies[0].rows].map(row => row.classList[0] === 'faint')"
    )
    assert tab.run(faint) == [False, False] + [True] * (len(NAMES) - 2)
    x, y = places[3]
    tab.drag([(x, y)])
    assert state(tab, "right") == NAMES[3]
    names = "[...fx.models.table.tBodies[0].rows].map(row => row.cells[0].textContent)"
    tab.run("[...fx.models.table.querySelectorAll('thead button')].at(-1).click()")
    first = tab.run(names)
    tab.run("[...fx.models.table.querySelectorAll('thead button')].at(-1).click()")
    assert tab.run(names) == first[::-1]


def test_dark_follows_the_system_and_the_choice(tab):
    ground = "getComputedStyle(fx).backgroundColor"
    painted = """(() => {
        const { base } = fx.maps.views.left;
        return base.toDataURL();
    })()"""
    light, drawn = tab.run(ground), tab.run(painted)
    tab.size(1300, 1000, dark=True)
    tab.wait(f"{ground} !== '{light}'")
    tab.wait(f"{painted} !== '{drawn}'")  # triggers are drawn in what text is
    choose = """(() => {
        const theme = document.querySelector("[aria-label=theme]");
        theme.value = "light";
        theme.dispatchEvent(new Event("change"));
    })()"""
    tab.run(choose)
    assert tab.run(ground) == light
    assert state(tab, "theme") == "light"
    tab.wait(f"{painted} === '{drawn}'")


def test_keys_walk_through_images_and_select_them(tab):
    tab.run("fx.maps.views.left.top.focus()")
    walked = []
    for _ in range(4):
        tab.press("ArrowRight")
        walked.append(state(tab, "hover"))
    steps = np.diff(places(tab, "left")[walked][:, 0])
    assert len(walked) == len(set(walked))
    assert (steps > 0).all()
    tab.press("Enter")
    assert state(tab, "pin") == walked[-1]
    tab.press(" ")
    assert state(tab, "selected") == [walked[-1]]
    assert f"{NAMES[1]} says" in tab.run(
        "document.querySelector('.spoken').textContent"
    )
    tab.press("Escape")
    assert state(tab, "selected") == []


def test_every_control_has_a_name_and_a_place_in_the_tab_order(tab):
    unnamed = """[...fx.querySelectorAll('button, select, input, svg[tabindex]')]
        .filter(node => !node.getAttribute('aria-label')).length"""
    assert tab.run(unnamed) == 0
    assert tab.run("fx.querySelectorAll('svg[tabindex=\"0\"]').length") == 2


def test_a_state_is_shared_by_the_address(tab, url):
    change(tab, "{right: 'FTAL/prune:0.4', selected: [4, 8], show: 'wrong', pin: 3}")
    tab.wait("location.hash.length > 10")
    address = tab.run("location.href")
    tab.send("Page.navigate", url="about:blank")
    tab.open(address)
    tab.wait(READY)
    assert state(tab, "right") == "FTAL/prune:0.4"
    assert state(tab, "selected") == [4, 8]
    assert state(tab, "show") == "wrong"
    tab.send("Page.navigate", url="about:blank")
    tab.open(f"{url}#%7B%22right%22%3A%22no%22%2C%22selected%22%3A%5B99999%5D%7D")
    tab.wait(READY)
    assert state(tab, "right") == NAMES[1]
    assert state(tab, "selected") == []


MALFORMED = {
    "left": [3, "no", None],
    "right": [["FTAL"]],
    "map": ["elsewhere"],
    "color": [{}],
    "show": [True],
    "hidden": ["class", [99], None],
    "selected": [[99999], [-1], [1.5], "all", {"0": 1}, None],
    "pin": [-2, 99999, "3", None],
    "t": [-1, 2, "x", None],
    "film": [-1, "x", [], 999],
    "linked": ["yes", 1],
    "zoom": [0, [], [[0, 0, 1]], [[0, 0, 0], [0, 0, 1]], [[0, 0, "x"], [0, 0, 1]]],
    "tool": ["saw"],
    "theme": ["loud"],
    "corners": [[1, 2], [1, 2, 99999], 7, [1, 2, None]],
    "space": ["time"],
    "edge": [3, -1, 0.5],
    "along": [2, None],
    "table": [1, "none"],
    "panels": [[["twl"]], [["twl", "no"]], 1],
    "brushed": [["x"], {}, [5000]],
    "sort": [["no", True], ["twl"], "twl"],
    "mix": [[0, 0, 0]],
    "unknown": [1],
}
"""Values that make no sense, of everything that an address can carry."""


def test_a_malformed_state_breaks_nothing(tab, url):
    begun = tab.run("JSON.stringify(fx.state.values)")
    states = [{name: v} for name, values in MALFORMED.items() for v in values]
    texts = [json.dumps(one) for one in [*states, 3, None, [], "x"]]
    for text in [*map(quote, texts), "%7B", "{", "%E0%A4%A"]:
        tab.run(f"location.hash = {text!r}; new Promise(requestAnimationFrame)")
    kept = json.loads(tab.run("JSON.stringify(fx.state.values)"))
    assert kept | {"film": None, "brushed": []} == json.loads(begun)
    everything = {name: values[0] for name, values in MALFORMED.items()}
    tab.send("Page.navigate", url="about:blank")
    tab.open(f"{url}#{quote(json.dumps(everything))}")
    tab.wait(READY)
    assert tab.run("JSON.stringify(fx.state.values)") == begun
    assert colors(tab, ".maps canvas") > 10


@pytest.mark.parametrize("width", [400, 700, 1600])
def test_nothing_is_wider_than_the_window(tab, width):
    tab.size(width, 900)
    tab.wait(f"fx.clientWidth <= {width} && fx.state.values.size === fx.clientWidth")
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert colors(tab, ".maps canvas") > 10
