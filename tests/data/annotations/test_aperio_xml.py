"""Aperio XML: one valid file, each fault one change of it, and the exact line."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import shapely

from hemalum.data.annotations import aperio_xml
from hemalum.data.annotations.aperio_xml import read_aperio_xml
from hemalum.data.annotations.outlines import Outline, draw_outlines
from hemalum.errors import HemalumError

REGION = (
    '<Region Id="{id}" Type="0" Zoom="1" NegativeROA="0" Analyze="1"><Attributes/>'
    "<Vertices>{vertices}</Vertices></Region>"
)


def region(number: int, points: Sequence[tuple[float, float]]) -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points)
    return REGION.format(id=number, vertices=vertices)


SQUARE = [(2, 2), (8, 2), (8, 6), (2, 6)]
CIRCLE = [(20 + 6 * np.cos(a), 12 + 6 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 30, endpoint=False)]
VALID = (
    '<Annotations MicronsPerPixel="0.252000">\n<Annotation Id="1" Name=""><Attributes>'
    '<Attribute Name="Description" Id="0" Value=""/></Attributes><Regions><RegionAttributeHeaders>'
    '<AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/></RegionAttributeHeaders>'
    f"{region(1, SQUARE)}{region(2, CIRCLE)}</Regions><Plots/></Annotation></Annotations>"
)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def written(text: str) -> Path:
        path = tmp_path / "tile.xml"
        path.write_text(text)
        return path

    return written


def test_regions_and_scale(written: Callable[..., Path]) -> None:
    outlines, mpp = read_aperio_xml(written(VALID))
    assert [outline.name for outline in outlines] == ["Region 1", "Region 2"]
    assert outlines[0].rings[0].tolist() == [[2, 2], [8, 2], [8, 6], [2, 6]]
    assert mpp == 0.252
    labels = draw_outlines(read_aperio_xml(written(VALID)).outlines, (24, 32), "")
    assert (labels == 1).sum() == 24
    assert (labels == 2).sum() == pytest.approx(36 * np.pi, rel=0.03)


@pytest.mark.parametrize("text", ["", "0.000000", "unknown"])
def test_a_scale_that_is_none(written: Callable[..., Path], text: str) -> None:
    assert read_aperio_xml(written(VALID.replace("0.252000", text))).mpp is None


def test_regions_of_several_annotations_are_all_read(written: Callable[..., Path]) -> None:
    more = f"</Annotation><Annotation Id='2'><Regions>{region(1, SQUARE)}</Regions></Annotation></Annotations>"
    assert len(read_aperio_xml(written(VALID.replace("</Annotation></Annotations>", more))).outlines) == 3


def test_negative_regions_are_left_out_and_said(
    written: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = written(VALID.replace('NegativeROA="0"', 'NegativeROA="1"', 1))
    assert [outline.name for outline in read_aperio_xml(path).outlines] == ["Region 2"]
    assert caplog.messages == [f"{path}: 1 region marked as negative left out"]


BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
HALF = [(20 + 6 * np.cos(a), 12 + 6 * np.sin(a)) for a in np.linspace(0, np.pi, 30)]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("<Annotations", BOMB + "<Annotations", "{}: declares a document type or entities, which are never expanded; "
         "remove the declaration"),
        ("<Annotations", OUTSIDE + "<Annotations", "{}: declares a document type or entities, which are never "
         "expanded; remove the declaration"),
        ("<Annotations", '<!DOCTYPE Annotations SYSTEM "http://example.org/a.dtd"><Annotations', "{}: declares a "
         "document type or entities, which are never expanded; remove the declaration"),
        ("</Regions>", "", "{}: not well-formed XML (mismatched tag: line 2, column"),
        ('X="2"', 'X="two"', "{}: Region 1, vertex 1: X is 'two', not a number"),
        ('Y="6"', "", "{}: Region 1, vertex 3: Y is None, not a number"),
        ('X="2"', 'X="inf"', "{}: Region 1, vertex 1: X is 'inf', not a number"),
        (region(2, CIRCLE), region(2, HALF), "{}: Region 2 is open: its ends are 12.0 px apart, its line is 18.8 px "
         "long; close it in ImageScope, or set the option open_lines=close"),
    ],
    ids=["bomb", "external entity", "external type", "cut", "word", "missing", "infinite", "open"],
)  # fmt: skip
def test_faults(written: Callable[..., Path], old: str, new: str, line: str) -> None:
    assert old in VALID
    path = written(VALID.replace(old, new, 1))
    with pytest.raises(HemalumError) as error:
        read_aperio_xml(path)
    assert str(error.value).startswith(line.format(path))
    assert "\n" not in str(error.value)


@pytest.mark.fault
def test_other_files(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"tile\.xml: <svg> instead of <Annotations>; not annotations by Image"):
        read_aperio_xml(written("<svg><Region/></svg>"))
    with pytest.raises(HemalumError, match=r"tile\.xml: not well-formed XML \(no element found"):
        read_aperio_xml(written(""))
    with pytest.raises(HemalumError, match=r"tile\.xml: (cannot be read as|not well-formed) XML \(.*encoding"):
        read_aperio_xml(written('<?xml version="1.0" encoding="made-up"?>' + VALID))
    with pytest.raises(HemalumError, match=r"none\.xml: no such file"):
        read_aperio_xml(tmp_path / "none.xml")


@pytest.mark.fault
def test_size_limit(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aperio_xml, "MAX_BYTES", 1000)
    with pytest.raises(HemalumError, match=r"tile\.xml: [\d,]+ bytes is over the limit of 1,000 for the annotations"):
        read_aperio_xml(written(VALID))


@pytest.mark.fault
def test_open_lines_can_be_closed(written: Callable[..., Path]) -> None:
    path = written(VALID.replace(region(2, CIRCLE), region(2, HALF)))
    labels = draw_outlines(read_aperio_xml(path, open_lines="close").outlines, (24, 32), path)
    assert (labels == 2).sum() == pytest.approx(18 * np.pi, rel=0.05)
    with pytest.raises(HemalumError, match="open_lines 'ignore': choices are refuse, close"):
        read_aperio_xml(path, open_lines="ignore")


def test_clicked_corners_may_be_any_distance_apart(written: Callable[..., Path]) -> None:
    """A triangle's last side is as long as the others."""
    assert len(read_aperio_xml(written(VALID.replace(region(1, SQUARE), region(1, SQUARE[:3])))).outlines) == 2


def test_the_real_item_against_an_independent_parse(real_data: Path) -> None:
    files = sorted((real_data / "original_layouts/monuseg").glob("*.xml"))
    if not files:
        pytest.skip("no MoNuSeg item")
    for file in files:
        polygons = [
            shapely.Polygon([(float(v.get("X")), float(v.get("Y"))) for v in item.iter("Vertex")])
            for item in ElementTree.parse(file).iter("Region")
        ]
        areas = [float(item.get("Area")) for item in ElementTree.parse(file).iter("Region")]
        labels = draw_outlines(read_aperio_xml(file).outlines, (1000, 1000), file)
        assert labels.max() == len(polygons)
        # every nucleus is where its own polygon is, and has its area up to what a smaller one takes
        drawn = np.bincount(labels.ravel(), minlength=len(polygons) + 1)[1:]
        frame = shapely.box(0, 0, 1000, 1000)
        visible = np.array([shapely.make_valid(polygon).intersection(frame).area for polygon in polygons])
        assert np.median(np.abs(drawn - visible) / visible) < 0.01
        assert np.median(np.abs(visible - areas) / visible) < 0.01  # ImageScope's own figure
        y, x = np.nonzero(labels == 1)
        assert np.hypot(x.mean() + 0.5 - polygons[0].centroid.x, y.mean() + 0.5 - polygons[0].centroid.y) < 0.2


def test_pixel_centers_lie_at_half_coordinates(real_data: Path) -> None:
    """Shifted by half a pixel, the outlines of the real item follow the edges in its image less well."""
    from PIL import Image
    from scipy.ndimage import binary_dilation, binary_erosion
    from skimage.draw import polygon

    file = real_data / "original_layouts/monuseg/TCGA-B0-5710-01Z-00-DX1.xml"
    if not file.is_file():
        pytest.skip("no MoNuSeg item")
    image = np.asarray(Image.open(file.with_suffix(".tif"))).astype(float).mean(axis=2)
    outlines = read_aperio_xml(file).outlines

    def contrast(shift: float) -> float:
        moved = [Outline(outline.name, (outline.rings[0] + shift,)) for outline in outlines]
        nuclei = draw_outlines(moved, image.shape, file) > 0
        inner = nuclei & ~binary_erosion(nuclei, iterations=3)
        outer = binary_dilation(nuclei, iterations=3) & ~nuclei
        return image[outer].mean() - image[inner].mean()

    assert contrast(0) > max(contrast(0.5), contrast(-0.5))

    # what outlines.py says of the usual way to fill a polygon
    drawn = sum((draw_outlines([outline], image.shape, file) > 0).sum() for outline in outlines)
    usual = sum(
        polygon(outline.rings[0][:, 1] - 0.5, outline.rings[0][:, 0] - 0.5, image.shape)[0].size
        for outline in outlines
    )
    assert 1.006 < usual / drawn < 1.010
