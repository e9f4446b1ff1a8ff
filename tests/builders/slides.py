"""Little slides as scanners and programs write them, for tests that read them and break them."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from builders.scenes import smooth_field
from hemalum.data.image import read_image
from hemalum.slides import open_slide

Pixels = NDArray[np.uint8]

SCN = (
    '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
    '<collection name="c" sizeX="{field[0]}" sizeY="{field[1]}"><barcode>A</barcode><image name="m">'
    '<creationDate>2026-01-01</creationDate><device model="x" version="1"/><pixels sizeX="{w}" sizeY="{h}">{levels}'
    '</pixels><view sizeX="{size[0]}" sizeY="{size[1]}" offsetX="{corner[0]}" offsetY="{corner[1]}" spacingZ="0"/>'
    "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
    "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
    "</illuminationSettings></scanSettings></image></collection></scn>"
)
# what Pillow does to show an image of each orientation
SHOWN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def draw_picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Soft colored blobs without repetition, (height, width, 3): any window of it is told from any other."""
    fields = [smooth_field(seed + channel, (height, width), 4) for channel in range(3)]
    return np.rint(np.stack(fields, axis=2) * 255).astype(np.uint8)


def seen(pixels: Pixels, orientation: int) -> Pixels:
    """A picture as a viewer shows it that heeds the orientation."""
    image = Image.fromarray(pixels)
    return np.asarray(image.transpose(SHOWN[orientation]) if orientation in SHOWN else image)


def halve(pixels: Pixels) -> Pixels:
    """Each 2 x 2 px as their mean; an odd last row and column are left out, as scanners do."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def levels_of(picture: Pixels, levels: int) -> list[Pixels]:
    """A picture, halved again and again."""
    pyramid = [picture]
    while len(pyramid) < levels:
        pyramid.append(halve(pyramid[-1]))
    return pyramid


def save_pyramid(
    path: Path, picture: Pixels, *, levels: int = 3, mpp: Any = 0.5, tile: int = 64, **options: Any
) -> Path:
    """A pyramidal tiled TIFF, lossless; `mpp` is one number, (x, y), or None for no resolution."""
    options = {"compression": "zlib", "photometric": "rgb", "tile": (tile, tile), "metadata": None} | options
    x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels_of(picture, levels)):
            if x is not None:
                options |= {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
            tiff.write(pixels, subfiletype=1 if number else 0, **options)
    return path


def save_ome_pyramid(path: Path, picture: Pixels, *, levels: int = 3, planar: bool = False, mpp: Any = 0.5) -> Path:
    """An OME-TIFF whose levels are SubIFDs, colors side by side or one plane after another."""
    x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    metadata: dict[str, Any] = {"axes": "SYX" if planar else "YXS"}
    if x is not None:
        metadata |= {"PhysicalSizeX": x, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": y, "PhysicalSizeYUnit": "µm"}
    options: dict[str, Any] = {
        "compression": "zlib", "photometric": "rgb", "tile": (64, 64),
        "planarconfig": "separate" if planar else "contig",
    }  # fmt: skip
    first, *others = (np.moveaxis(pixels, 2, 0) if planar else pixels for pixels in levels_of(picture, levels))
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(first, subifds=len(others), metadata=metadata, **options)
        for pixels in others:
            tiff.write(pixels, subfiletype=1, **options)
    return path


def save_svs(
    path: Path, picture: Pixels, *, levels: int = 2, stated: str = "MPP = 0.4990", quality: int = 90
) -> Path:
    """A file laid out as Aperio's: JPEG tiles, a thumbnail in strips as its second image, then the levels."""
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    options: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": quality}, "metadata": None}
    options |= {"photometric": "ycbcr"}
    about = f"Aperio Image Library v11.2.1\r\n{size} (64x64) JPEG/RGB Q={quality}|AppMag = 20|{stated}"
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels_of(picture, levels)):
            tiff.write(pixels, tile=(64, 64), description=about, **options)
            if not number:
                tiff.write(levels_of(picture, 3)[-1], rowsperstrip=16, description=about, **options)
    return path


def save_scn(path: Path, picture: Pixels, *, levels: int = 2, corner: tuple[int, int] = (100, 60)) -> Path:
    """A Leica SCN of 0.5 µm per px that has its pixels at `corner` (x, y) of a larger empty field: it has bounds."""
    pyramid = levels_of(picture, levels)
    height, width = picture.shape[:2]
    about = SCN.format(
        w=width, h=height, size=(width * 500, height * 500), corner=(corner[0] * 500, corner[1] * 500),
        field=((width + 300) * 500, (height + 200) * 500),
        levels="".join(
            f'<dimension sizeX="{pixels.shape[1]}" sizeY="{pixels.shape[0]}" r="{number}" ifd="{number}"/>'
            for number, pixels in enumerate(pyramid)
        ),
    )  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, pixels in enumerate(pyramid):
            tiff.write(
                pixels, tile=(64, 64), compression="jpeg", photometric="rgb", compressionargs={"level": 98},
                description=about if not number else None, metadata=None,
                resolution=(20000 / 2**number, 20000 / 2**number), resolutionunit="CENTIMETER",
            )  # fmt: skip
    return path


def save_ome_zarr(
    path: Path, picture: Pixels, *, version: str = "0.5", levels: int = 3, mpp: float | None = 0.5
) -> Path:
    """An OME-Zarr with axes c, y, x, chunks of 64 px."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for number, pixels in enumerate(levels_of(picture, levels)):
        data = np.moveaxis(pixels, 2, 0)
        array = group.create_array(str(number), shape=data.shape, dtype="uint8", chunks=(3, 64, 64))
        array[...] = data
        scale = [1.0, *[(mpp or 1.0) * 2**number] * 2]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    unit = {} if mpp is None else {"unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} | unit for name in "yx")]
    image: dict[str, Any] = {"axes": axes, "datasets": datasets}
    if version == "0.5":
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image | {"version": version}]
    return path


def tile_bytes(path: Path, level: int, index: int) -> tuple[int, int]:
    """Where the bytes of a tile of the first image of a TIFF lie: offset and count."""
    with tifffile.TiffFile(path) as tiff:
        series: Any = tiff.series[0]
        page = series.levels[level].pages[0]
        return page.dataoffsets[index], page.databytecounts[index]


def overwrite(path: Path, offset: int, data: bytes) -> Path:
    """Change bytes of a file where they are."""
    with path.open("rb+") as stream:
        stream.seek(offset)
        stream.write(data)
    return path


def read_both(path: Path, rows: int = 17) -> Pixels:
    """An image read whole, which has to be what a slide gives by bands of so many rows."""
    pixels = read_image(path)
    with open_slide(path) as slide:
        bands = [slide.rows(top, top + rows) for top in range(0, slide.shape[0], rows)]
    assert np.array_equal(np.concatenate(bands), pixels)
    return pixels
