"""What schemathesis draws from our OpenAPI document is answered, or refused with a reason."""

from __future__ import annotations

from collections import Counter

from starlette.testclient import TestClient

from tests.serve.conftest import KINDS
from tests.serve.schema_cases import Drawn, draw_requests, wrong_in


def test_requests_drawn_from_the_document_are_answered_or_refused(client: TestClient) -> None:
    statuses: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}

    def ask(drawn: Drawn) -> None:
        reply = client.request(drawn.method, drawn.path, headers=dict(drawn.headers), content=drawn.body)
        statuses[drawn.fits][reply.status_code] += 1
        assert (found := wrong_in(drawn, reply.status_code, reply.text)) is None, found

    draw_requests(client.get("/openapi.json").json(), KINDS, 2, 1, ask)
    assert sum(statuses[True].values()) > 40
    assert sum(statuses[False].values()) > 40
    assert statuses[False][200] < statuses[False][422]
