"""What the OpenAPI document says is so: requests made from it are answered as it says."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.support.ranking_server import RankingServer

pytestmark = pytest.mark.e2e


def run(server: RankingServer, examples: int) -> None:
    """Ask with bodies that fit the document and bodies that do not; that of a score asks for most."""
    load_all_checks()
    schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
    checks = [
        schemathesis.checks.not_a_server_error,
        content_type_conformance,
        negative_data_rejection,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
        unsupported_method,
    ]
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if operation.method == "get" and mode is schemathesis.GenerationMode.NEGATIVE:
                continue

            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            @hypothesis.settings(
                max_examples=examples if operation.method == "post" else 3,
                deadline=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                database=None,
            )
            def ask(case: schemathesis.Case) -> None:
                nonlocal seen
                seen += 1
                case.validate_response(case.call(timeout=60), checks=checks)

            ask()
    assert seen > examples


def test_generated_requests_are_answered_as_the_document_says(server: RankingServer) -> None:
    run(server, 150)
    assert server.metrics().get('mian_requests_total{status="200"}', 0) > 0


@pytest.mark.long
def test_many_generated_requests_are_answered_as_the_document_says(server: RankingServer) -> None:
    run(server, 500)
    before = server.resident_bytes()
    run(server, 10_000)
    assert server.resident_bytes() <= 1.05 * before
