from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from sagad_client import InvalidArgument, SagadError, Unavailable, Violation
from sagad_client.errors import from_rpc_error

DETAILS = "grpc-status-details-bin"


def rpc_error(code: grpc.StatusCode, message: str, *details: Any, trailer: bytes | None = None) -> AioRpcError:
    number: Any = code.value[0]
    status = status_pb2.Status(code=number, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    trailers = Metadata((DETAILS, status.SerializeToString() if trailer is None else trailer))
    return AioRpcError(code, Metadata(), trailers, details=message)


def test_every_detail_of_an_error_is_read() -> None:
    faults = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field="labels", description="too many"),
            error_details_pb2.BadRequest.FieldViolation(field="timeout", description="too short"),
        ]
    )
    error = from_rpc_error(
        rpc_error(
            grpc.StatusCode.INVALID_ARGUMENT,
            "2 faults",
            error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain="sagad", metadata={"category": "VALIDATION"}),
            faults,
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
            error_details_pb2.Help(),
        )
    )
    assert type(error) is InvalidArgument
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "2 faults",
    )
    assert error.violations == [Violation("labels", "too many"), Violation("timeout", "too short")]
    assert error.retry_after_s == 1.5
    assert error.metadata == {"category": "VALIDATION"}
    assert str(error) == "INVALID_ARGUMENT INVALID_REQUEST: 2 faults\n  labels: too many\n  timeout: too short"


def test_a_fault_that_the_message_tells_is_not_told_twice() -> None:
    error = InvalidArgument(
        "1 fault in the request: labels: too many",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        violations=[Violation("labels", "too many")],
    )
    assert str(error) == "INVALID_ARGUMENT INVALID_REQUEST: 1 fault in the request: labels: too many"


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_becomes_an_error_of_its_own_kind_or_the_common_one(code: grpc.StatusCode) -> None:
    error = from_rpc_error(AioRpcError(code, Metadata(), Metadata(), details="x"))
    assert error.code is code
    named = type(error).__name__.upper() == code.name.replace("_", "")
    assert named or type(error) is (Unavailable if code is grpc.StatusCode.CANCELLED else SagadError)


@pytest.mark.parametrize(
    "trailer",
    [b"\xff\xff", status_pb2.Status(code=3, message="x").SerializeToString(), b"\x12\x01y"],
    ids=["no protobuf", "another code", "another message"],
)
def test_details_that_are_not_sagads_are_left_out(trailer: bytes) -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "gone", trailer=trailer))
    assert (error.code, error.message, error.reason) == (grpc.StatusCode.UNAVAILABLE, "gone", "")
