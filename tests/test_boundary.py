import numpy as np
import pytest
import torch

from fidlib.measures import boundary
from fidlib.measures.boundary import Plane


def test_plane_goes_through_its_three_points():
    images = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    plane = Plane.through(images)
    assert torch.allclose(plane.points(plane.anchors), images, atol=1e-5)
    assert torch.allclose(plane.locate(images), plane.anchors, atol=1e-5)


def test_plane_keeps_distances():
    images = torch.rand(3, 1, 5, 4, generator=torch.Generator().manual_seed(1))
    plane = Plane.through(images)
    xy = torch.tensor([[0.3, -2.0], [1.5, 0.7]])
    there = plane.points(xy).flatten(1)
    assert (there[0] - there[1]).norm() == pytest.approx(
        (xy[0] - xy[1]).norm().item(), rel=1e-5
    )


def test_plane_locates_the_foot_of_a_point_outside():
    plane = Plane.through(torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 3, 0]]))
    assert plane.locate(torch.tensor([[0.5, 0.25, 9.0]])).tolist() == [[0.5, 0.25]]


def test_plane_extent_is_a_square_around_the_anchors():
    plane = Plane.through(torch.tensor([[0.0, 0], [4, 0], [0, 2]]))
    left, right, bottom, top = plane.extent(border=0.25)
    assert right - left == pytest.approx(top - bottom) == pytest.approx(6)
    assert (left, bottom) == (pytest.approx(-1), pytest.approx(-2))


@pytest.mark.parametrize(
    "points",
    [
        *(torch.zeros(3, 4), torch.arange(3.0)[:, None] * torch.ones(4)),
        *(torch.zeros(2, 4), torch.eye(3).fill_diagonal_(torch.nan)),
    ],
)
def test_plane_refuses_points_that_span_none(points):
    with pytest.raises(ValueError, match="three"):
        Plane.through(points)


def test_regions_name_the_class_at_every_point():
    def decide(xy):  # class 1 to the right of x = 0.25, class 2 above y = 3
        x, y = xy.T
        return torch.stack([torch.zeros_like(x), x - 0.25, 10 * (y - 3)], 1)

    regions = Plane.whole().regions(decide, (-1.0, 1.0, 0.0, 4.0), resolution=41)
    x, y = torch.linspace(-1, 1, 41), torch.linspace(0, 4, 41)
    for row in (0, 13, 40):
        for column in (0, 20, 33):
            logits = decide(torch.stack([x[column], y[row]])[None])[0]
            assert regions.labels[row, column] == logits.argmax()


def cells(regions):
    """Row, column and coordinates of every point of a grid."""
    left, right, bottom, top = regions.extent
    side = len(regions.labels)
    for row, y in enumerate(np.linspace(bottom, top, side)):
        for column, x in enumerate(np.linspace(left, right, side)):
            yield row, column, x, y


def test_regions_in_the_whole_plane_are_those_of_the_function():
    head = torch.nn.Linear(2, 5, bias=False)
    whole = Plane.whole().regions(head, (-1.0, 1.0, -2.0, 3.0), resolution=12)
    for row, column, x, y in cells(whole):
        logits = head(torch.tensor([[x, y]]).float())
        assert whole.labels[row, column] == logits.argmax()


def test_regions_of_a_triangle_are_asked_inside_it_alone():
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    plane, asked = Plane.through(images), []
    weight = torch.randn(16, 4, generator=torch.Generator().manual_seed(6))

    def decide(points):
        asked.append(points)
        return (points - images.mean(0)).flatten(1) @ weight

    extent = plane.extent(border=0.1)
    whole = plane.regions(decide, extent, resolution=25)
    inside = plane.regions(decide, extent, resolution=25, triangle=True)
    shares = []
    corners = np.vstack([plane.anchors.numpy().T.astype(float), np.ones(3)])
    for row, column, x, y in cells(whole):
        share = np.linalg.solve(corners, [x, y, 1.0])  # barycentric
        if abs(share).min() < 1e-4:
            continue  # on a side: rounding decides
        expected = whole.labels[row, column] if share.min() > 0 else -1
        assert inside.labels[row, column] == expected
        shares.append(share)
    kept = int((inside.labels >= 0).sum())
    assert 0 < kept == len(asked[1]) < 25 * 25
    # Every point is a mixture of the three images, so no pixel is outside of theirs.
    low, high = images.flatten(1).aminmax(dim=0)
    assert (asked[1].flatten(1) >= low - 1e-4).all()
    assert (asked[1].flatten(1) <= high + 1e-4).all()
    assert len(whole.labels.unique()) > 1


def test_regions_differ_where_the_labels_do():
    extent = (-1.0, 1.0, -1.0, 1.0)

    def named(s):
        way = torch.tensor([[1.0, -1], [s, -s]])
        return Plane.whole().regions(lambda xy: xy @ way, extent, resolution=50)

    regions = [named(s) for s in (0.0, 0.0, 1.0)]
    assert not regions[0].differs_from(regions[1]).any()
    assert regions[0].share_differing(regions[1]) == 0
    share = regions[0].differs_from(regions[2]).double().mean()
    assert share == pytest.approx(0.25, abs=0.03)
    assert regions[0].share_differing(regions[2]) == pytest.approx(share)
    other = Plane.whole().regions(lambda xy: xy, (0.0, 1.0, 0.0, 1.0), resolution=50)
    with pytest.raises(ValueError, match="one grid"):
        regions[0].differs_from(other)


def test_share_differing_is_of_the_points_asked_about():
    labels = torch.tensor([[-1, 0, 1], [-1, 2, 2], [-1, -1, 1]])
    other = torch.tensor([[-1, 0, 2], [-1, 2, 0], [-1, -1, 1]])
    extent = (0.0, 1.0, 0.0, 1.0)
    pair = boundary.Regions(labels, extent), boundary.Regions(other, extent)
    assert pair[0].share_differing(pair[1]) == pytest.approx(2 / 5)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_triangles_are_all_even_mixtures_of_their_corners(steps):
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(3, 3, 1, 2, 2, generator=generator)
    triangles = boundary.triangles(corners, steps=steps)
    assert triangles.shape == (3, (steps + 1) * (steps + 2) // 2, 1, 2, 2)
    for points, (a, b, c) in zip(triangles, corners, strict=True):
        mixtures = [
            (steps - j - k) / steps * a + j / steps * b + k / steps * c
            for j in range(steps + 1)
            for k in range(steps + 1 - j)
        ]
        for mixture in mixtures:  # in any order, each once
            near = (points - mixture).flatten(1).abs().amax(1) < 1e-6
            assert near.sum() == 1
    assert torch.allclose(triangles.mean(1), corners.mean(1), atol=1e-6)
    assert triangles.min() >= corners.min()
    assert triangles.max() <= corners.max()


def test_class_tuples_are_of_different_classes_in_turn():
    labels = torch.tensor([4, 0, 0, 7, 4, 7, 7, 2])

    def draw(seed, size=3, count=40):
        generator = torch.Generator().manual_seed(seed)
        return boundary.class_tuples(labels, size, count=count, generator=generator)

    classes = labels[draw(0)]
    assert all(len(set(row)) == 3 for row in classes.tolist())
    assert classes[:, 0].bincount().tolist() == [10, 0, 10, 0, 10, 0, 0, 10]
    assert set(draw(0).flatten().tolist()) == set(range(8))
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert draw(0, size=5).shape == (0, 5)


def test_class_tuples_begin_with_any_of_many_classes():
    labels = torch.arange(100).repeat(2)
    firsts = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        tuples = boundary.class_tuples(labels, 2, count=16, generator=generator)
        firsts.append(labels[tuples[:, 0]])
        assert len(firsts[-1].unique()) == 16
    assert torch.cat(firsts).double().mean().item() == pytest.approx(49.5, abs=5)


def test_segments_go_evenly_from_end_to_end():
    ends = torch.rand(4, 2, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    segments = boundary.segments(ends, steps=5)
    assert torch.equal(segments[:, 0], ends[:, 0])
    assert torch.equal(segments[:, -1], ends[:, 1])
    assert torch.allclose(segments[:, 1], 0.75 * ends[:, 0] + 0.25 * ends[:, 1])


def test_crossings_are_exact_for_a_linear_margin():
    generator = torch.Generator().manual_seed(4)
    first, last = torch.rand(2, 200, generator=generator, dtype=torch.float64)
    last = 1 - 3 * last
    margins = torch.lerp(
        first[:, None], last[:, None], torch.linspace(0, 1, 9).double()
    )
    expected = [
        (a / (a - b)).item() if b < 0 else 1.0 for a, b in zip(first, last, strict=True)
    ]
    shares = boundary.crossings(margins)
    assert shares.tolist() == pytest.approx(expected)
    assert 0.2 < (shares == 1).double().mean() < 0.5


def test_crossings_are_the_first_ones():
    margins = torch.tensor([[1.0, -1, 1, -1, 3], [0, 0, 0, 0, 0], [0, -2, 1, 1, 1]])
    assert boundary.crossings(margins).tolist() == [0.125, 1, 0]


def test_three_right_are_of_three_classes_where_they_can():
    labels = torch.tensor([2, 0, 2, 1, 0])
    logits = torch.nn.functional.one_hot(torch.tensor([1, 0, 2, 1, 0]), 3)
    assert boundary.three_right(labels, logits) == [1, 3, 2]
    logits = torch.nn.functional.one_hot(torch.tensor([2, 1, 2, 2, 0]), 3)
    assert boundary.three_right(labels, logits) == [4, 0, 2]
