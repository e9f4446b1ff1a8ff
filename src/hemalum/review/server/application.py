"""The application: routes under /api/v1, the page at /, and what every error is answered with."""

from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from hemalum import __version__
from hemalum.errors import HemalumError
from hemalum.review.conflicts import Conflict
from hemalum.review.server.images import image_routes
from hemalum.review.server.items import ItemDesk, item_routes, project_routes
from hemalum.review.server.responses import EVERYWHERE
from hemalum.review.server.security import PREFIX, Guard
from hemalum.review.session import Session
from hemalum.review.sources import ImageGone

PROJECT_HEADER = "X-Hemalum-Project"
STATIC = Path(__file__).parents[1] / "static"  # built from web/


def create_app(session: Session, *, token: str, author: str, static: Path | None = None) -> FastAPI:
    """The application of a session; `author` reviews where a request does not say who does.

    Every request needs the `token`. One that names another project by `PROJECT_HEADER` is refused: a page may be open
    still whose review was served at this address before. `static` is the folder of the page, the package's own unless
    it is set; where it is missing there is the API alone.
    """
    app = FastAPI(
        title="hemalum review",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    desk = ItemDesk(session, author)

    def check_project(request: Request) -> None:
        if request.headers.get(PROJECT_HEADER, session.project.id) != session.project.id:
            raise HTTPException(421, f"the program at this address reviews {session.name} in another project now")

    api = APIRouter(prefix=PREFIX, responses=EVERYWHERE, dependencies=[Depends(check_project)])
    for routes in (project_routes(desk), image_routes(session, desk), item_routes(desk)):
        api.include_router(routes)
    app.include_router(api)
    _answer_errors(app, desk)
    static = static or STATIC
    if (static / "index.html").is_file():
        app.mount("/assets", StaticFiles(directory=static / "assets", check_dir=False))
        app.add_api_route("/", lambda: FileResponse(static / "index.html"), include_in_schema=False)
    app.add_middleware(Guard, token=token)
    return app


def _answer_errors(app: FastAPI, desk: ItemDesk) -> None:
    @app.exception_handler(Conflict)
    def answer_conflict(request: Request, error: Conflict) -> JSONResponse:
        touch = error.touch
        version = desk.state(desk.find(request.path_params["id"])).version
        return JSONResponse(
            {
                "detail": str(error), "touched": error.touched, "author": touch.author, "time": touch.time,
                "version": version,
            },
            409,
        )  # fmt: skip

    @app.exception_handler(ImageGone)
    def answer_gone(request: Request, error: ImageGone) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 410)

    @app.exception_handler(HemalumError)
    def answer_error(request: Request, error: HemalumError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    def answer_shape(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return JSONResponse({"detail": f"{where or first['loc'][0]}: {first['msg']}"}, 422)
