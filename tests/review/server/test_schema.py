"""The schema of the interface: it is valid, and the server does as it says, whatever is sent."""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from hemalum.review.server import create_app, security
from hemalum.review.session import Session
from hemalum.review.sources import id_of

TOKEN = "a-token-of-these-tests"
HEADERS = {"Host": "127.0.0.1:8765", "Authorization": f"Bearer {TOKEN}"}
OPENAPI = "/api/v1/openapi.json"
CHECKS = (not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("known", [False, True], ids=["any id", "an item"])
def test_the_server_does_as_its_schema_says(
    session: Session, monkeypatch: pytest.MonkeyPatch, mode: schemathesis.GenerationMode, known: bool
) -> None:
    monkeypatch.setattr(security, "BURST", 1_000_000)  # nothing is refused for its number
    app = create_app(session, token=TOKEN, author="Anna")
    operations = [
        one.ok() for one in schemathesis.openapi.from_asgi(OPENAPI, app, headers=HEADERS).get_all_operations()
    ]
    assert len(operations) == 16
    statuses: Counter[int] = Counter()
    for operation in operations:
        if known and "{id}" not in operation.path:
            continue
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.path.endswith(("/project", "/images")):
            continue  # there is nothing in it that could be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=30, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
        def call(case: schemathesis.Case) -> None:
            if known:
                case.path_parameters["id"] = id_of("kidney_1.png")
            response = case.call(headers=HEADERS)
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        call()
    expected = {200, 422} if known and mode is schemathesis.GenerationMode.POSITIVE else {422}
    assert expected <= set(statuses), statuses  # the server was reached, and not refused by its guard


def test_the_schema_lists_what_the_page_needs(client: TestClient) -> None:
    content = client.get(OPENAPI).json()
    operations = {f"{method} {path}": one for path, ways in content["paths"].items() for method, one in ways.items()}
    assert list(operations) == [
        "get /api/v1/project",
        "get /api/v1/queue",
        "get /api/v1/images",
        "get /api/v1/images/{id}",
        "get /api/v1/images/{id}/item",
        "get /api/v1/images/{id}/tiles/{level}/{x}_{y}.jpg",
        "get /api/v1/images/{id}/outlines/{level}/{x}_{y}.bin",
        "get /api/v1/images/{id}/density/{level}/{x}_{y}.png",
        "get /api/v1/items/{id}",
        "get /api/v1/items/{id}/nuclei",
        "get /api/v1/items/{id}/changes",
        "post /api/v1/items/{id}/edits",
        "post /api/v1/items/{id}/undo",
        "post /api/v1/items/{id}/redo",
        "get /api/v1/items/{id}/proposal",
        "get /api/v1/items/{id}/maps/{kind}.png",
    ]
    for name, operation in operations.items():
        expected = {"200", "401", "403", "422"} | ({"409", "413", "429"} if name.startswith("post") else set())
        assert expected <= set(operation["responses"]), name
        assert operation["description"], name
