"""What the page asks for of images: their list, and tiles of pixels, outlines and densities."""

import threading
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response

from hemalum.review.server.byte_cache import ByteCache
from hemalum.review.server.items import ItemDesk
from hemalum.review.server.outlines import NucleiTiles
from hemalum.review.server.responses import GONE, READING, Id, bytes_of, gone_if_failing
from hemalum.review.server.schema import Finite, ImageAnswer, ImageItem, ItemAnswer, WholeImageAnswer
from hemalum.review.server.tiles import TILE, ImageTiles, Pyramid
from hemalum.review.session import Session
from hemalum.review.sources import ImageSource

TILE_BYTES = 256 * 2**20  # of encoded tiles that are kept
# of another start, and so perhaps of another image with this name, a browser keeps none
KEPT = {"Cache-Control": "private, max-age=3600", "Vary": "Cookie, Authorization"}
JPEG, PNG, BYTES = "image/jpeg", "image/png", "application/octet-stream"

Level = Annotated[int, Path(ge=0, le=64)]
Index = Annotated[int, Path(ge=0, le=2**31)]


class ImageDesk:
    """Images as the page sees them, for one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.tiles = ImageTiles(session.open_image)
        self._cache = ByteCache(TILE_BYTES)
        self._nuclei: dict[str, NucleiTiles] = {}
        self._lock = threading.Lock()

    def find(self, id: str) -> ImageSource:
        """The image with this id, else 404."""
        image = self.session.images.get(id)
        if image is None:
            raise HTTPException(404, f"there is no image '{id}'")
        return image

    def nuclei(self, image: ImageSource) -> NucleiTiles | None:
        """Tiles of the nuclei of a slide, which are counted once; None for an image that has no store."""
        if image.store is None:
            return None
        with self._lock:
            if image.id not in self._nuclei:
                with gone_if_failing():
                    self._nuclei[image.id] = NucleiTiles(image.store)
            return self._nuclei[image.id]

    def require_nuclei(self, image: ImageSource, level: int, *, outlines: bool) -> NucleiTiles:
        """Tiles of the nuclei of a slide, else 404: also where the level shows the other kind of them."""
        nuclei = self.nuclei(image)
        if nuclei is None or (level >= nuclei.outlines_from) != outlines:
            what = "are no outlines" if outlines else "is no density"
            raise HTTPException(404, f"{image.name}: there {what} on level {level}")
        return nuclei

    def answer(self, image: ImageSource) -> ImageAnswer:
        """What is known of an image."""
        height, width = image.shape
        with gone_if_failing():
            count = None if image.store is None else image.store.count
        return ImageAnswer(
            id=image.id, name=image.name, width=width, height=height, mpp=image.mpp, is_slide=image.is_slide,
            nuclei=count,
        )  # fmt: skip

    def tile(
        self, image: ImageSource, position: tuple[int, int, int], make: Callable[[], bytes], media_type: str
    ) -> Response:
        """A tile that `make` makes, or that was made before; 404 where there is none at level, x, y."""
        if not Pyramid(image.shape).has(*position):
            level, x, y = position
            raise HTTPException(404, f"{image.name}: there is no tile {x}_{y} on level {level}")
        with gone_if_failing():
            content = self._cache.get((media_type, image.id, *position), make)
        return Response(content, media_type=media_type, headers=KEPT)


def image_routes(session: Session, items: ItemDesk) -> APIRouter:
    """The routes under /images."""
    routes, images = APIRouter(tags=["images"]), ImageDesk(session)

    @routes.get("/images", responses=GONE)
    def list_images() -> list[ImageAnswer]:
        """All images under review."""
        return [images.answer(image) for image in session.images.values()]

    @routes.get("/images/{id}", responses=READING)
    def get_image(id: Id) -> WholeImageAnswer:
        """An image, its pyramid and its items."""
        image = images.find(id)
        nuclei, statuses = images.nuclei(image), session.project.journal.statuses()
        return WholeImageAnswer(
            **images.answer(image).model_dump(),
            tile_size=TILE,
            levels=Pyramid(image.shape).levels,
            outlines_from=None if nuclei is None else nuclei.outlines_from,
            nuclei_scale=[] if nuclei is None else [0.0, nuclei.scale],
            items=[
                ImageItem(id=item.id, window=item.window, status=statuses.get(item.name))
                for item in session.items()
                if item.image == id
            ],
        )

    @routes.get("/images/{id}/item", responses=READING)
    def get_item_at(id: Id, x: Annotated[Finite, Query()], y: Annotated[Finite, Query()]) -> ItemAnswer:
        """The item at a point of an image, in px of the image."""
        image = images.find(id)
        height, width = image.shape
        if not (0 <= x < width and 0 <= y < height):
            raise HTTPException(404, f"{image.name}: ({x:g}, {y:g}) lies outside of its {width} x {height} px")
        return items.answer(session.item_at(id, x, y), None)

    @routes.get("/images/{id}/tiles/{level}/{x}_{y}.jpg", responses=bytes_of(JPEG) | READING)
    def get_tile(id: Id, level: Level, x: Index, y: Index) -> Response:
        """A tile of the image."""
        image = images.find(id)
        pyramid = Pyramid(image.shape)
        return images.tile(image, (level, x, y), lambda: images.tiles.encode(id, pyramid, level, x, y), JPEG)

    @routes.get("/images/{id}/outlines/{level}/{x}_{y}.bin", responses=bytes_of(BYTES) | READING)
    def get_outlines(id: Id, level: Level, x: Index, y: Index) -> Response:
        """The model's nuclei of a tile of a slide, on the levels from `outlines_from` on."""
        image = images.find(id)
        nuclei = images.require_nuclei(image, level, outlines=True)
        return images.tile(image, (level, x, y), lambda: nuclei.outlines(level, x, y), BYTES)

    @routes.get("/images/{id}/density/{level}/{x}_{y}.png", responses=bytes_of(PNG) | READING)
    def get_density(id: Id, level: Level, x: Index, y: Index) -> Response:
        """How dense the nuclei of a slide lie in a tile, on the levels before `outlines_from`."""
        image = images.find(id)
        nuclei = images.require_nuclei(image, level, outlines=False)
        return images.tile(image, (level, x, y), lambda: nuclei.density(level, x, y), PNG)

    return routes
