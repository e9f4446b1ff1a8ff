"""What the page asks for of the project and its items, and the changes that it makes."""

import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Response

from hemalum import __version__
from hemalum.errors import HemalumError
from hemalum.review.edits import MAX_NUCLEI
from hemalum.review.event import Event
from hemalum.review.item import ItemState, Status
from hemalum.review.nucleus import MAX_POINTS
from hemalum.review.queue import RANKINGS, Queued, Ranking
from hemalum.review.server.answers import answer_changes, answer_nuclei, count_nuclei, make_edit, open_points
from hemalum.review.server.byte_cache import ByteCache
from hemalum.review.server.responses import BAD, READING, WRITING, Id, bytes_of
from hemalum.review.server.schema import (
    LARGEST,
    Author,
    ChangesAnswer,
    EditRequest,
    FailureAnswer,
    Finite,
    ItemAnswer,
    ItemCounts,
    Limits,
    NucleiAnswer,
    ProgressAnswer,
    ProjectAnswer,
    ProposalAnswer,
    QueueAnswer,
    QueuedAnswer,
    TurnRequest,
    Whole,
)
from hemalum.review.server.tiles import encode_png
from hemalum.review.session import Session
from hemalum.review.sources import ItemSource, id_of

BY_DEFAULT: Ranking = "entropy"
MAP_BYTES = 64 * 2**20  # of encoded maps that are kept
QUEUES = 8  # that are kept: by ranking, and whether strata take turns

Seed = Annotated[int, Query(ge=0, le=LARGEST)]


class ItemDesk:
    """Items as the page sees them, for one session. `author` is who reviews where a request does not say."""

    def __init__(self, session: Session, author: str) -> None:
        self.session, self.author = session, author
        self.journal = session.project.journal
        self._queues: dict[Any, tuple[int, list[Queued]]] = {}
        self._lock = threading.Lock()

    def find(self, id: str) -> ItemSource:
        """The item with this id, else 404."""
        try:
            return self.session.item(id)
        except HemalumError as error:
            raise HTTPException(404, str(error)) from error

    def state(self, item: ItemSource) -> ItemState:
        """The item as it is now. Raises HemalumError as `Session.state` does."""
        return self.session.state(item.id)

    def queue(self, by: str = BY_DEFAULT, *, stratified: bool = True, seed: int = 0) -> list[Queued]:
        """The queue, ranked again only when more fields have been looked at."""
        done, key = self.session.progress.done, (by, stratified, seed)
        with self._lock:
            known = self._queues.get(key)
            if known is None or known[0] != done:
                while len(self._queues) >= QUEUES:
                    del self._queues[next(iter(self._queues))]
                known = self._queues[key] = done, self.session.queue(by, stratified=stratified, seed=seed)
        return known[1]

    def progress(self) -> ProgressAnswer:
        """How far the model has looked."""
        return ProgressAnswer.model_validate(self.session.progress, from_attributes=True)

    def answer(self, item: ItemSource, author: str | None) -> ItemAnswer:
        """An item as it is now."""
        state = self.state(item)
        queued = next((one for one in self.queue() if one.field.name == item.name), None)
        height, width = state.item.shape
        return ItemAnswer(
            id=item.id,
            name=item.name,
            image=item.image,
            window=item.window or (0, 0, width, height),
            width=width,
            height=height,
            mpp=state.item.mpp,
            stratum=item.stratum,
            reason=None if queued is None else queued.reason,
            rank=None if queued is None else queued.rank,
            of=None if queued is None else queued.of,
            status=state.status,
            version=state.version,
            class_names=state.start.class_names,
            counts=count_nuclei(state),
            can_undo=bool(state.done.get(author or self.author)),
            can_redo=bool(state.undone.get(author or self.author)),
        )

    def changes(self, item: ItemSource, after: int, author: str | None) -> ChangesAnswer:
        """What has become of an item since a version. Raises HemalumError for one that there is not."""
        state = self.state(item)
        if after > state.version:
            raise HemalumError(f"{item.name}: there is no version {after}; it is at version {state.version}")
        events = self.journal.events(item.name, after)
        return answer_changes(state, events, lambda: self.session.figures(item.id), author or self.author)

    def turn(self, way: Callable[[str, str, int], Event], id: str, request: TurnRequest) -> ChangesAnswer:
        """What comes of `Journal.undo` or `Journal.redo` of an item."""
        item = self.find(id)
        self.state(item)  # which takes it into the journal
        way(item.name, request.author or self.author, request.parent)
        return self.changes(item, request.parent, request.author)

    def as_of(self, item: ItemSource, version: int) -> ItemState:
        """The item as it was when it was looked at; mostly that is as it is now."""
        state = self.state(item)
        return state if version >= state.version else self.journal.state(item.name, version)


def project_routes(desk: ItemDesk) -> APIRouter:
    """The routes of the project and its queue."""
    routes, session = APIRouter(tags=["project"]), desk.session

    def known_statuses(names: list[str]) -> Mapping[str, Status]:
        statuses: dict[str, Status] = dict.fromkeys(names, "open")
        return statuses | desk.journal.statuses()

    @routes.get("/project", responses=BAD)
    def get_project() -> ProjectAnswer:
        """What is reviewed, and how far it is."""
        statuses = list(known_statuses([one.field.name for one in desk.queue()]).values())
        tally = {status: statuses.count(status) for status in ("open", "reviewed", "skipped")}
        project = session.project
        return ProjectAnswer(
            id=project.id,
            name=session.name,
            source=project.source,
            model=project.model,
            version=__version__,
            class_names=session.class_names,
            author=desk.author,
            rankings=RANKINGS,
            by_default=BY_DEFAULT,
            progress=desk.progress(),
            counts=ItemCounts(items=len(statuses), **tally),
            failures=[FailureAnswer.model_validate(one, from_attributes=True) for one in session.failures],
            limits=Limits(points=MAX_POINTS, nuclei=MAX_NUCLEI),
        )

    @routes.get("/queue", responses=BAD)
    def get_queue(
        by: Ranking = BY_DEFAULT,
        stratified: bool = True,
        seed: Seed = 0,
        status: Literal["open", "reviewed", "skipped", "all"] = "all",
    ) -> QueueAnswer:
        """The items that the model has looked at, in the order in which they should be reviewed."""
        queue = desk.queue(by, stratified=stratified, seed=seed)
        statuses = known_statuses([one.field.name for one in queue])
        chosen = [
            QueuedAnswer(
                id=id_of(one.field.name),
                name=one.field.name,
                image=session.item(id_of(one.field.name)).image,
                window=one.field.window,
                stratum=one.field.stratum,
                rank=one.rank,
                of=one.of,
                reason=one.reason,
                status=statuses[one.field.name],
                nuclei=one.field.area.size,
            )
            for one in queue
            if status in ("all", statuses[one.field.name])
        ]
        return QueueAnswer(progress=desk.progress(), items=chosen)

    return routes


def item_routes(desk: ItemDesk) -> APIRouter:
    """The routes under /items."""
    routes, session, journal = APIRouter(tags=["items"]), desk.session, desk.journal
    maps = ByteCache(MAP_BYTES)

    @routes.get("/items/{id}", responses=READING)
    def get_item(id: Id, author: Author | None = None) -> ItemAnswer:
        """An item as it is now; `author` says whose undo is meant."""
        return desk.answer(desk.find(id), author)

    @routes.get("/items/{id}/nuclei", responses=READING)
    def get_nuclei(id: Id) -> NucleiAnswer:
        """All nuclei of an item, also those rejected."""
        state = desk.state(desk.find(id))
        nuclei = answer_nuclei(state, state, session.figures(id))
        return NucleiAnswer.model_construct(version=state.version, nuclei=nuclei)

    @routes.get("/items/{id}/changes", responses=READING)
    def get_changes(id: Id, after: Whole, author: Author | None = None) -> ChangesAnswer:
        """What has become of an item since a version."""
        return desk.changes(desk.find(id), after, author)

    @routes.post("/items/{id}/edits", responses=WRITING)
    def post_edit(id: Id, request: EditRequest) -> ChangesAnswer:
        """Make a change; what is answered is on the disk."""
        item = desk.find(id)
        edit = make_edit(desk.as_of(item, request.parent), request)
        journal.append(item.name, request.author or desk.author, edit, request.parent)
        return desk.changes(item, request.parent, request.author)

    @routes.post("/items/{id}/undo", responses=WRITING)
    def post_undo(id: Id, request: TurnRequest) -> ChangesAnswer:
        """Take back the author's last change that is not taken back yet."""
        return desk.turn(journal.undo, id, request)

    @routes.post("/items/{id}/redo", responses=WRITING)
    def post_redo(id: Id, request: TurnRequest) -> ChangesAnswer:
        """Make again what the author took back last."""
        return desk.turn(journal.redo, id, request)

    @routes.get("/items/{id}/proposal", responses=READING)
    def get_proposal(id: Id, x: Annotated[Finite, Query()], y: Annotated[Finite, Query()]) -> ProposalAnswer:
        """The model's outline at a point of an item."""
        item = desk.find(id)
        height, width = desk.state(item).item.shape
        if not (0 <= x < width and 0 <= y < height):
            raise HTTPException(404, f"{item.name}: ({x:g}, {y:g}) lies outside of its {width} x {height} px")
        ring = session.propose(id, x, y)
        return ProposalAnswer(points=None if ring is None else open_points(ring))

    @routes.get("/items/{id}/maps/{kind}.png", responses=bytes_of("image/png") | READING)
    def get_map(id: Id, kind: Literal["probability", "entropy"]) -> Response:
        """A map of an item as gray values: 255 is a probability of 1, or an entropy of log 2."""
        desk.find(id)
        content = maps.get((id, kind), lambda: encode_png(session.maps(id, kind)))
        return Response(content, media_type="image/png")

    return routes
