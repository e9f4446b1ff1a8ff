"""A sheet of embeddings: for each image the field that an encoder sees at once, and what encoders make of it.

A field's embedding is shown by its first three principal components, as red, green and blue.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.image import read_image
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.models.sam import SamEncoder
from hemalum.reports.figures.contact_sheet import Panel, Row, Sheet, draw_sheet, picture_path
from hemalum.training.embeddings import embed

SIDE = 320  # px of each picture on the sheet

_SPREAD = (1, 99)  # percentiles that become 0 and 255: single cells may lie far out


def principal_components(embedding: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """The first three principal components (h, w, 3) float32 of an embedding (C, h, w), the strongest first.

    Over the cells of this image, centerd. Each component's largest loading is positive, so that the same image gives
    the same picture; with fewer cells or channels than components the last ones are 0. Besides, the share of the
    variance that the three have.
    """
    channels, height, width = embedding.shape
    cells = embedding.reshape(channels, -1).T.astype(np.float64)
    cells -= cells.mean(axis=0)
    _, strengths, directions = np.linalg.svd(cells, full_matrices=False)
    directions = directions[:3]
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(len(directions)), largest] < 0, -1, 1)[:, None]
    scores = np.zeros((height * width, 3), np.float32)
    scores[:, : len(directions)] = cells @ directions.T
    total = float((strengths**2).sum())
    return scores.reshape(height, width, 3), float((strengths[:3] ** 2).sum()) / total if total else 0.0


def component_picture(components: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Components (h, w, 3) as colors, (side, side, 3): each pixel has the color of the cell that it lies in."""
    low, high = np.percentile(components, _SPREAD, axis=(0, 1))
    unit = (components - low) / np.maximum(high - low, 1e-6)
    colors = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    rows, columns = (
        np.minimum(((np.arange(side) + 0.5) * count / side).astype(int), count - 1) for count in colors.shape[:2]
    )
    picture: NDArray[np.uint8] = colors[np.ix_(rows, columns)]
    return picture


def central_field(image: NDArray[np.uint8], field: int, factor: float = 1.0) -> NDArray[np.uint8]:
    """The middle (field, field, 3) of an image enlarged by `factor`; mirrored beyond its border, as in a training."""
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) if factor != 1 else image
    missing = [max(0, field - length) for length in scaled.shape[:2]]
    padded = np.pad(scaled, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    top, left = ((length - field) // 2 for length in padded.shape[:2])
    return np.ascontiguousarray(padded[top : top + field, left : left + field])


def write_embeddings(
    path: Path,
    images: Sequence[Path | str],
    encoders: Sequence[SamEncoder],
    *,
    field: int = 256,
    mpp: float | None = None,
    image_mpp: float | None = None,
) -> list[list[float]]:
    """Write the sheet as PNG or JPEG, and give the share of the variance that is shown, by image and encoder.

    The middle `field` px of each image are embedded, at `mpp` µm per pixel where that is given; the images have
    `image_mpp`. Raises HemalumError for images that cannot be read or have no scale where one is wanted.
    """
    if mpp is not None and image_mpp is None:
        raise HemalumError(f"the embedding is at {mpp:g} µm/px: give the scale of the images, --mpp NUMBER")
    factor = 1.0 if mpp is None or image_mpp is None else image_mpp / mpp
    picture_path(path)
    rows: list[Row] = []
    shares: list[list[float]] = []
    for image in images:
        pixels = central_field(read_image(image), field, factor)
        panels = [Panel(np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)))]
        shares.append([])
        for encoder in encoders:
            components, share = principal_components(embed(encoder, pixels, field).read())
            panels.append(Panel(component_picture(components, SIDE), f"{100 * share:.0f} % of the variance"))
            shares[-1].append(share)
        rows.append(Row([Path(image).name], panels))
    scale = "" if mpp is None else f" at {mpp:g} µm/px"
    cells = [f"{encoder.tokens} x {encoder.tokens} cells, {encoder.channels} channels" for encoder in encoders]
    sheet = Sheet(
        title="What encoders make of an image",
        subtitle=f"the middle {field} x {field} px{scale}; the first three principal components as red, green, blue",
        columns=[("image", f"{field} px"), *zip([Path(one.name).name for one in encoders], cells, strict=True)],
        rows=rows,
        legend=[],
        footnotes=["Components are of each picture by itself: the same color in two pictures means nothing."],
    )
    with atomic_path(path) as temporary:
        draw_sheet(sheet).save(temporary, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
    return shares
