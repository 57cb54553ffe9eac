"""The API keeps to its own schema, whatever it is sent: schemathesis tries every operation, and chains of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.config import SchemathesisConfig

CASES = int(os.environ.get("POPS_TEST_CASES", "25"))  # an operation; 200 take minutes

# An expression is a language of its own, which no JSON schema describes: a text that fits the schema may be refused.
# DELETE of a job cancels it, and the job stays in the history: it can be asked for still. PUT of a project names the
# revision that it changes, and 409 is the answer to an old one.
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", "422", "429", "503"]},
            "use_after_free": {"enabled": False},
        }
    }
)
QUIET: dict[str, Any] = {
    "suppress_health_check": list(HealthCheck),
    "deadline": None,
    "database": None,
    "derandomize": True,
}


@pytest.fixture
def schema(client: Callable[..., TestClient]) -> Any:
    """The schema of a server whose jobs wait."""
    one = client(hosts=("testserver",))
    one.app.state.core.renderers = {one.app.state.core.settings.default: []}  # type: ignore[attr-defined]
    return schemathesis.openapi.from_asgi("/openapi.json", one.app, config=CONFIG)


def test_every_answer_is_one_that_the_schema_names(schema: Any) -> None:
    for found in schema.get_all_operations():

        @given(case=found.ok().as_strategy())
        @settings(max_examples=CASES, **QUIET)
        def check(case: Any) -> None:
            case.call_and_validate()

        check()


def test_chains_of_requests_keep_to_the_schema(schema: Any) -> None:
    """A job that was queued is asked for and cancelled."""
    machine = schema.as_state_machine()
    machine.run(settings=settings(max_examples=CASES, stateful_step_count=4, **QUIET))
