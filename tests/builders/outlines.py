"""Files of outlines as QuPath and other programs write them."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.nuclei.polygons import trace

Feature = dict[str, Any]
Points = list[list[float]]


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    """A closed ring."""
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(coordinates: Any, kind: str = "annotation", name: Any = None, *, geometry: str = "Polygon") -> Feature:
    """A feature as QuPath writes it; a Polygon may be given by one ring; `name` is a class or a classification."""
    if geometry == "Polygon" and isinstance(coordinates[0][0], float | int):
        coordinates = [coordinates]
    properties: Feature = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]} if isinstance(name, str) else name
    return {"type": "Feature", "geometry": {"type": geometry, "coordinates": coordinates}, "properties": properties}


def rings_of(labels: NDArray[np.int32]) -> list[Points]:
    """The outline of each label along the edges of its pixels, by id: filled, it gives the label back."""
    outlines = trace(labels, smooth=False)
    rings = {
        int(number): outlines.polygons.coords[start:stop].tolist()
        for number, start, stop in zip(
            outlines.ids, outlines.polygons.offsets[:-1], outlines.polygons.offsets[1:], strict=True
        )
    }
    return [rings[number] for number in sorted(rings)]


def features_of(labels: NDArray[np.int32], kind: str = "annotation", names: list[Any] | None = None) -> list[Feature]:
    """A feature for each label; `names` are classes in turn."""
    names = names or [None]
    return [feature(ring, kind, names[number % len(names)]) for number, ring in enumerate(rings_of(labels))]


def write_geojson(path: Path, features: Any) -> Path:
    """Write features, or any other content, as GeoJSON; packed where the name says so."""
    content = {"type": "FeatureCollection", "features": features} if isinstance(features, list) else features
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_xml(path: Path, layers: dict[str, list[Points]], **attributes: str) -> Path:
    """Write layers of regions as ImageScope does; `attributes` are those of every region."""
    more = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    lines = ['<Annotations MicronsPerPixel="0.25">']
    for number, (name, rings) in enumerate(layers.items(), start=1):
        lines.append(f'<Annotation Id="{number}" Name="{name}"><Attributes>')
        lines.append('<Attribute Name="Description" Id="0" Value=""/></Attributes><Regions>')
        for region, ring in enumerate(rings, start=1):
            vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring)
            lines.append(f'<Region Id="{region}" {more}><Attributes/><Vertices>{vertices}</Vertices></Region>')
        lines.append("</Regions></Annotation>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([*lines, "</Annotations>"]))
    return path
