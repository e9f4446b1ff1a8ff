"""The one-page summary of a segmented slide: one HTML file that works offline, with its pictures inside."""

import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from hemalum import __version__
from hemalum.files import new_folder, write_text
from hemalum.inference import find_slide, slide_of
from hemalum.nuclei.store import CELL_UM, NucleiStore, SlideMaps, measure_maps, summarize, write_map_zarr
from hemalum.reports.files import data_uri, render
from hemalum.reports.slides.facts import (
    MEASURES,
    SlideRow,
    by_class,
    by_grade,
    identify,
    measured,
    score_texts,
    tissue_area,
    warnings_of,
)
from hemalum.reports.slides.fields import FIELD_RULE, choose_fields, draw_contact_sheet, draw_overview, find_pale
from hemalum.reports.slides.map_picture import draw_map
from hemalum.reports.slides.tissue import tissue_of
from hemalum.slides import Slide

log = logging.getLogger(__name__)

THUMBNAIL = 150  # px of a slide in the page of a cohort
ZARR_NAME = "maps.ome.zarr"


def write_slide_page(
    store: NucleiStore, slide: Slide | Path | str | None, path: Path | str, *, cell_um: float = CELL_UM
) -> SlideRow:
    """Write the page of a slide to `path`; gives its line for `write_cohort_page`.

    `slide` is the slide that the nuclei are of, its path, or a folder that has it; None looks beside the store. Maps
    have cells of about `cell_um` µm. Memory does not grow with the number of nuclei.

    Raises HemalumError where there is no slide, or it is another one by its fingerprint; for a store without a scale,
    a damaged part, and a page that cannot be written.
    """
    return _look(store, slide, cell_um, Path(path))


def slide_row(
    store: NucleiStore, slide: Slide | Path | str | None = None, *, page: Path | str | None = None
) -> SlideRow:
    """A slide's line for `write_cohort_page`, without its page; `page` is one that is there, and is linked."""
    row = _look(store, slide, CELL_UM, None)
    return row if page is None else _linked(row, Path(page))


def write_maps(
    store: NucleiStore, slide: Slide | Path | str | None, path: Path | str, *, cell_um: float = CELL_UM
) -> Path:
    """Write all maps of a slide into a new folder, as PNG and as one OME-Zarr (maps.ome.zarr); gives the folder.

    With the slide, found as for `write_slide_page`, glass is told from tissue, and an overview and the contact sheet
    are written too; without one that is found, a note under the maps and a line in the log say so.

    Raises HemalumError as `write_slide_page` does, and where the folder is there.
    """
    path = Path(path)
    if slide is None and find_slide(store) is None:
        log.warning(
            "%s: without its slide %s, glass is not told from tissue and there is no contact sheet; "
            "name it to have both", store.path, store.run.source or "",
        )  # fmt: skip
        maps = measure_maps(store, cell_um)
        with new_folder(path) as folder:
            _write_pictures(maps, folder, store.name)
        return path
    with slide_of(store, slide) as opened, new_folder(path) as folder:
        tissue, _ = tissue_of(store, opened)
        maps = measure_maps(store, cell_um, tissue=tissue.mask)
        _write_pictures(maps, folder, store.name)
        fields = choose_fields(maps, store.run.shape, pale=find_pale(opened, tissue.mask.shape))
        draw_overview(store, opened, tissue, fields).save(folder / "overview.png", optimize=True)
        if fields:
            draw_contact_sheet(store, opened, fields).save(folder / "contact-sheet.png", optimize=True)
    return path


def map_titles(maps: SlideMaps) -> dict[str, str]:
    """All maps that can be drawn, by name, with the majority of classes before the share of each."""
    titles = [(layer.name, layer.title) for layer in maps.layers()]
    return dict(titles[:2] + ([("majority", "Majority class")] if maps.class_names else []) + titles[2:])


def _write_pictures(maps: SlideMaps, folder: Path, name: str) -> None:
    for number, (one, title) in enumerate(map_titles(maps).items(), start=1):
        # names of classes are the model's, and may hold anything
        safe = "".join(letter if letter.isalnum() else "-" for letter in one.replace(": ", "-"))
        draw_map(maps, one, title=f"{title}, {name}").save(folder / f"{number}-{safe}.png", optimize=True)
    write_map_zarr(maps, folder / ZARR_NAME, name=name)


def _look(store: NucleiStore, slide: Slide | Path | str | None, cell_um: float, path: Path | None) -> SlideRow:
    summary = summarize(store, [name for name in MEASURES if name in store.schema.names])
    with slide_of(store, slide) as opened:
        tissue, doubt = tissue_of(store, opened)
        maps = measure_maps(store, cell_um, tissue=tissue.mask)
        area, area_kind = tissue_area(store, maps, tissue)
        warnings = warnings_of(store, summary, doubt)
        measures = [measured(summary, name) for name in summary.measures]
        small = opened.thumbnail(THUMBNAIL)
        density = f"{summary.count / area:,.0f}" if area else "–"
        classes = by_class(summary, area)
        scores = score_texts(summary.ihc_score())
        row = SlideRow(
            name=store.run.source or store.name,
            count=f"{summary.count:,}",
            density=density,
            area=measures[0]["median"],
            tissue=f"{area:.4g}",
            hematoxylin=measures[1]["median"],
            classes={one["name"]: one["share"] for one in classes},
            scores=scores,
            warnings=tuple(warnings),
            thumbnail=data_uri(Image.fromarray(small), "jpeg", quality=85),
        )
        if path is None:
            return row
        fields = choose_fields(maps, store.run.shape, pale=find_pale(opened, tissue.mask.shape))
        overview = draw_overview(store, opened, tissue, fields)
        sheet = draw_contact_sheet(store, opened, fields) if fields else None
        page = render(
            "slides/page.html.j2",
            title=store.run.source or store.name,
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            version=__version__,
            identification=identify(store, opened, tissue),
            warnings=warnings,
            row=row,
            area_kind=area_kind,
            measures=measures,
            classes=classes,
            grades=by_grade(store, summary),
            overview=_picture(overview, "jpeg", quality=88, subsampling=0),
            outlined=not tissue.reason,
            roi=store.run.settings.get("roi") is not None,
            maps=[
                (title, _picture(draw_map(maps, name), "png", optimize=True))
                for name, title in map_titles(maps).items()
            ],
            sheet=None if sheet is None else _picture(sheet, "jpeg", quality=90, subsampling=0),
            rule=FIELD_RULE,
        )
    return _linked(row, write_text(path, page))


def _linked(row: SlideRow, path: Path) -> SlideRow:
    return replace(row, page=str(path))


def _picture(image: Image.Image, kind: str, **options: Any) -> dict[str, Any]:
    return {"uri": data_uri(image, kind, **options), "width": image.width, "height": image.height}
