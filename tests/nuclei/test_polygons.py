import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage
from skimage.measure import perimeter_crofton

from builders.scenes import draw_crowd, draw_ellipses
from hemalum.errors import HemalumError
from hemalum.nuclei.polygons import Polygons, fill, split_pieces, trace

# random pixels: corners that touch, holes, holes in holes, pieces on every border
noise = st.builds(
    lambda seed, shape, density: ndimage.label(np.random.default_rng(seed).random(shape) < density)[0],
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    density=st.floats(0.2, 0.8),
)


def without_holes(labels: NDArray[np.int32], n: int) -> NDArray[np.bool_]:
    """The label with what it encloses; background leaks through corners."""
    padded = np.pad(labels == n, 1)
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(padded, np.ones((3, 3)))
    return filled[1:-1, 1:-1]


@given(labels=noise, smooth=st.booleans())
@settings(max_examples=150)
def test_rings_are_valid_and_enclose_their_pixels(labels: NDArray[np.int32], smooth: bool) -> None:
    outlines = trace(labels, smooth=smooth)
    polygons = outlines.polygons.shapely()
    assert len(polygons) == labels.max()
    assert shapely.is_valid(polygons).all()
    for n, polygon in zip(outlines.ids, polygons, strict=True):
        pixels = without_holes(labels, n).sum()
        # corners cut where a ring would touch itself cost less than 1/4000 px each
        assert polygon.area == pytest.approx(pixels - 0.5 * smooth, abs=1e-3 * pixels)


@given(labels=noise, smooth=st.booleans())
@settings(max_examples=100)
def test_filling_the_rings_gives_the_labels_back(labels: NDArray[np.int32], smooth: bool) -> None:
    outlines = trace(labels, smooth=smooth)
    expected = np.zeros(labels.shape, np.uint32)
    for n in outlines.ids:
        expected[without_holes(labels, n)] = n
    assert (fill(outlines.polygons, labels.shape, outlines.ids.astype(np.uint32)) == expected).all()


@given(labels=noise)
@settings(max_examples=60)
def test_perimeter_and_hull_are_those_of_scikit_image_and_shapely(labels: NDArray[np.int32]) -> None:
    outlines = trace(labels)
    hulls = shapely.area(shapely.convex_hull(outlines.polygons.shapely()))
    np.testing.assert_allclose(outlines.hull_area, hulls, atol=1e-9)
    expected = [perimeter_crofton(np.pad(without_holes(labels, n), 1), directions=4) for n in outlines.ids]
    np.testing.assert_allclose(outlines.perimeter, expected, atol=1e-9)


def test_perimeter_of_discs_comes_near_the_circle() -> None:
    for radius in (5, 8, 15, 40):
        disc = draw_ellipses((100, 100), [(50.2, 49.7, radius, radius, 0)])
        assert trace(disc).perimeter[0] == pytest.approx(2 * np.pi * radius, rel=0.03)


def test_square_by_hand() -> None:
    labels = np.zeros((4, 5), np.int32)
    labels[1:3, 2:4] = 9
    edges, middles = trace(labels, smooth=False), trace(labels)
    assert edges.polygons.coords.tolist() == [[4, 1], [4, 3], [2, 3], [2, 1], [4, 1]]
    assert edges.polygons.offsets.tolist() == [0, 5]
    assert middles.polygons.coords[:-1].tolist() == [
        [2.5, 1], [3.5, 1], [4, 1.5], [4, 2.5], [3.5, 3], [2.5, 3], [2, 2.5], [2, 1.5],
    ]  # fmt: skip
    assert edges.ids.tolist() == [9]
    assert edges.first.tolist() == [[1, 2]]


def test_no_labels_no_rings() -> None:
    for shape in [(0, 0), (0, 3), (1, 1), (5, 4)]:
        outlines = trace(np.zeros(shape, np.int32))
        assert len(outlines.polygons) == 0
        assert outlines.polygons.shapely().tolist() == []
        assert not fill(outlines.polygons, shape).any()


def test_full_image_is_one_ring() -> None:
    outlines = trace(np.full((6, 9), 3, np.int32), smooth=False)
    assert outlines.polygons.shapely()[0].bounds == (0, 0, 9, 6)
    assert outlines.polygons.shapely()[0].area == 54


def test_ids_come_in_raster_order_and_may_have_gaps() -> None:
    labels = np.zeros((6, 6), np.int32)
    labels[0, 4], labels[1, 1], labels[4, 0] = 70_000, 5, 12
    assert trace(labels).ids.tolist() == [70_000, 5, 12]


def test_origin_moves_everything() -> None:
    labels = draw_crowd(1)
    original, moved = trace(labels), trace(labels, origin=(1000, 3))
    np.testing.assert_array_equal(moved.polygons.coords, original.polygons.coords + np.array([3, 1000], np.float32))
    np.testing.assert_array_equal(moved.first, original.first + np.array([1000, 3]))
    np.testing.assert_array_equal(moved.perimeter, original.perimeter)
    np.testing.assert_array_equal(moved.hull_area, original.hull_area)


@pytest.mark.parametrize("tolerance", [0.25, 0.5, 1, 2, 50])
def test_simplifying_leaves_no_point_farther_than_it_says(tolerance: float) -> None:
    random = np.random.default_rng(0)
    field = ndimage.gaussian_filter(random.normal(size=(300, 300)), 2).astype(np.float32)
    field, threshold = field - field.min(), float(0.5 * field.std() - field.min())
    labels, count = ndimage.label(field > threshold)
    polygons = trace(labels, field, threshold).polygons
    fewer = polygons.simplified(tolerance)
    assert len(fewer) == count > 300
    assert len(fewer.coords) < 0.5 * len(polygons.coords)
    assert shapely.is_valid(fewer.shapely()).all()
    for ring, kept in zip(polygons.shapely(), shapely.get_exterior_ring(fewer.shapely()), strict=True):
        points = shapely.points(shapely.get_coordinates(ring))
        assert shapely.distance(points, kept).max() <= tolerance * (1 + 1e-9)


def test_scaled_and_simplified() -> None:
    polygons = trace(draw_crowd(2)).polygons
    area = shapely.area(polygons.shapely())
    np.testing.assert_allclose(shapely.area(polygons.scaled(2, 0.5).shapely()), area, rtol=1e-5)
    fewer = polygons.simplified(0.5)
    assert len(fewer) == len(polygons)
    assert len(fewer.coords) < 0.6 * len(polygons.coords)
    assert shapely.is_valid(fewer.shapely()).all()
    assert shapely.hausdorff_distance(fewer.shapely(), polygons.shapely()).max() <= 0.5


def test_take_and_joined_are_inverse() -> None:
    polygons = trace(draw_crowd(3)).polygons
    n = len(polygons)
    order = np.random.default_rng(0).permutation(n)
    parts = [polygons.take(order[: n // 2]), polygons.take(order[n // 2 :]), polygons.take(order[:0])]
    again = Polygons.joined(parts).take(np.argsort(order))
    np.testing.assert_array_equal(again.coords, polygons.coords)
    np.testing.assert_array_equal(again.offsets, polygons.offsets)
    assert len(Polygons.joined([])) == 0


def test_fill_draws_later_rings_over_earlier_ones_and_clips() -> None:
    square = np.array([[-2, -2], [3, -2], [3, 3], [-2, 3], [-2, -2]], np.float32)
    two = Polygons(np.concatenate([square, square + 1]), np.array([0, 5, 10]))
    drawn = fill(two, (4, 4))
    assert drawn.tolist() == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]
    assert fill(two.take(np.array([1, 0])), (4, 4), np.array([7, 8], np.uint32)).tolist() == [
        [8, 8, 8, 7],
        [8, 8, 8, 7],
        [8, 8, 8, 7],
        [7, 7, 7, 7],
    ]


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    dtype=st.sampled_from([np.uint8, np.int32, np.uint64, bool]),
)
def test_pieces_are_the_connected_components_of_each_label(
    seed: int, shape: tuple[int, int], dtype: DTypeLike
) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(dtype)
    pieces = split_pieces(labels)
    count = 0
    for n in np.unique(labels[labels > 0]):
        components, n_pieces = ndimage.label(labels == n)
        count += n_pieces
        for k in range(1, n_pieces + 1):
            assert len(np.unique(pieces[components == k])) == 1
    assert sorted(np.unique(pieces[pieces > 0])) == list(range(1, count + 1))
    assert ((pieces > 0) == (labels > 0)).all()


@pytest.mark.fault
def test_bad_label_maps_are_named() -> None:
    with pytest.raises(HemalumError, match=r"\(H, W\)"):
        trace(np.zeros((2, 2, 2), np.int32))
    with pytest.raises(HemalumError, match="negative"):
        trace(np.array([[0, -1]], np.int32))


def soft_disc(
    radius: float, center: tuple[float, float], side: int = 32, supersampling: int = 16
) -> NDArray[np.float32]:
    """Share of each pixel (side, side) float32 that a disc covers."""
    y, x = (np.mgrid[: side * supersampling, : side * supersampling] + 0.5) / supersampling
    inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
    return inside.reshape(side, supersampling, side, supersampling).mean((1, 3)).astype(np.float32)


@pytest.mark.parametrize("center", [(16.0, 16.0), (15.3, 16.8), (16.5, 15.1)])
@pytest.mark.parametrize("radius", [3.2, 5.5, 9.7])
def test_an_outline_along_the_probability_finds_the_disc_below_the_pixel(
    radius: float, center: tuple[float, float]
) -> None:
    share = soft_disc(radius, center)
    labels = (share >= 0.5).astype(np.int32)
    truth = shapely.Point(center[1], center[0]).buffer(radius, 64)

    def iou(outline: shapely.Polygon) -> float:
        return float(outline.intersection(truth).area / outline.union(truth).area)

    fine, coarse = (trace(labels, *along).polygons.shapely()[0] for along in ((share, 0.5), ()))
    assert fine.is_valid
    assert iou(fine) > 0.95
    assert iou(fine) > iou(coarse)


@given(st.integers(0, 2**32 - 1))
def test_outlines_along_any_probability_are_valid_and_give_their_pixels_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.random((14, 17)).astype(np.float32)
    labels = split_pieces(np.where(share >= 0.5, rng.integers(1, 3, share.shape), 0).astype(np.int32))
    polygons = trace(labels, share, 0.5).polygons
    assert shapely.is_valid(polygons.shapely()).all()
    filled = fill(polygons, labels.shape)
    # the rings are exterior: a pixel of another piece inside may be drawn over, a pixel of none may be filled
    assert (filled[labels > 0] > 0).all()
    plain = fill(trace(labels).polygons, labels.shape)
    np.testing.assert_array_equal(filled, plain)


def test_out_of_play_and_other_nuclei_keep_the_outline_at_the_edge() -> None:
    labels = np.zeros((5, 6), np.int32)
    labels[1:4, 1:3], labels[1:4, 3:5] = 1, 2
    share = np.where(labels > 0, np.float32(0.9), np.float32(0.2))
    together = trace(labels, share, 0.5).polygons.shapely()[0]
    masked = share.copy()
    masked[labels == 2] = -1  # committed earlier
    apart = trace(np.where(labels == 1, 1, 0).astype(np.int32), masked, 0.5).polygons.shapely()[0]
    assert together.equals(apart)
    assert together.bounds[2] == 3.0  # the edge between the two
    assert together.bounds[0] == pytest.approx(1 - (0.4 / 0.7 - 0.5), abs=1 / 128)  # between 0.9 and 0.2


@pytest.mark.fault
def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(HemalumError, match=r"label map is \(4, 4\) and the map of probability \(4, 5\)"):
        trace(np.zeros((4, 4), np.int32), np.zeros((4, 5), np.float32))
