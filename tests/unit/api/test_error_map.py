"""The one map from errors to gRPC statuses."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from sagad_server.api.errors import DETAILS_KEY, Refusal, refusal, unexpected
from sagad_server.domain import errors
from sagad_server.domain.errors import Elsewhere, SagadError, Violation

MAX_TRAILERS_BYTES = 8192


def kinds(base: type[SagadError] = SagadError) -> list[type[SagadError]]:
    below = base.__subclasses__()
    return [*below, *(kind for one in below for kind in kinds(one))]


def details(refused: Refusal) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, list[str]]:
    """(ErrorInfo, BadRequest, the types of all details)."""
    ((key, raw),) = refused.trailers
    assert key == DETAILS_KEY
    status = status_pb2.Status.FromString(raw)
    assert (status.code, status.message) == (refused.code.value[0], refused.message)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return info, bad, [detail.TypeName() for detail in status.details]


def size(refused: Refusal) -> int:
    """Of the trailers, where binary ones travel as base64."""
    message = "".join(c if " " <= c <= "~" and c != "%" else "%XX" * len(c.encode()) for c in refused.message)
    return len(message) + sum(len(key) + (len(value) + 2) // 3 * 4 for key, value in refused.trailers)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_and_says_its_reason(kind: type[SagadError]) -> None:
    refused = refusal(kind("what was wrong", metadata={"revision": "7"}, retry_after_ms=None))
    info, _, types = details(refused)
    named = "Unavailable" if kind is Elsewhere else kind.__name__  # which clients need not tell apart
    assert refused.code.name.replace("_", "").lower() == named.lower()
    assert refused.message == "what was wrong"
    assert (info.reason, info.domain, dict(info.metadata)) == (kind.default_reason, "sagad", {"revision": "7"})
    assert types == ["google.rpc.ErrorInfo"]


def test_a_reason_of_the_error_replaces_that_of_its_class() -> None:
    info, _, _ = details(refusal(errors.FailedPrecondition("no", reason="PAST_PIVOT")))
    assert info.reason == "PAST_PIVOT"


@pytest.mark.parametrize("retry_after_ms", [0, 1, 250, 1000, 61_001])
def test_a_pause_that_helps_is_retry_info(retry_after_ms: int) -> None:
    ((_, raw),) = refusal(errors.Unavailable("not now", retry_after_ms=retry_after_ms)).trailers
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(raw).details)
    assert info.retry_delay.ToMilliseconds() == retry_after_ms


def test_violations_are_a_bad_request() -> None:
    violations = [Violation("saga_id", "is required"), Violation("labels['A']", "is wrong")]
    _, bad, _ = details(refusal(errors.InvalidArgument.of(violations)))
    assert [(one.field, one.description) for one in bad.field_violations] == [
        (v.field, v.description) for v in violations
    ]


@pytest.mark.parametrize("count", [1, 20, 50, 1000])
@pytest.mark.parametrize("description", ["is wrong", "x" * 200, "ü" * 100, "%" * 100], ids=["short", "long", "ü", "%"])
def test_the_status_fits_into_what_every_client_takes(count: int, description: str) -> None:
    violations = [Violation(f"definition.steps[{i}].timeout", description) for i in range(count)]
    refused = refusal(errors.InvalidArgument.of(violations))
    assert size(refused) < MAX_TRAILERS_BYTES - 300  # for the rest of the trailers
    _, bad, _ = details(refused)
    shown = [one for one in bad.field_violations if one.field]
    hidden = count - len(shown)
    assert shown
    assert [one.description for one in bad.field_violations if not one.field] == (
        [f"{hidden} more faults: correct these first"] if hidden else []
    )


def test_what_nobody_expected_shows_a_number_and_logs_all_of_it() -> None:
    with capture_logs() as logs:
        refused = unexpected("sagad.v1.SagaService/GetSaga", ZeroDivisionError("secret detail"))
    info, _, _ = details(refused)
    incident_id = info.metadata["incident_id"]
    assert refused.code is grpc.StatusCode.INTERNAL
    assert refused.message == f"sagad failed on this request: its log has more under incident {incident_id}"
    assert info.reason == "INTERNAL"
    (entry,) = logs
    assert entry["incident_id"] == incident_id
    assert entry["method"] == "sagad.v1.SagaService/GetSaga"
    assert isinstance(entry["exc_info"], ZeroDivisionError)
