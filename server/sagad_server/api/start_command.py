"""What a request to start a saga asks of the engine."""

import hashlib

from sagad.v1 import saga_service_pb2 as pb
from sagad_server.api.steering import DEFAULT_NAMESPACE
from sagad_server.domain.definition import milliseconds
from sagad_server.domain.errors import InvalidArgument
from sagad_server.domain.validation import ValidationLimits, start_violations
from sagad_server.engine.starts import Start


def start_command(request: pb.StartSagaRequest, saga_id: str, limits: ValidationLimits) -> Start:
    """What a request asks for; the request is not whole afterwards. Raises InvalidArgument."""
    violations = start_violations(request, limits)
    if violations:
        raise InvalidArgument.of(violations)
    return Start(
        key=(request.namespace or DEFAULT_NAMESPACE, saga_id),
        definition_id=request.definition_id,
        version=request.version,
        input=request.input if request.HasField("input") else None,
        labels=dict(request.labels),
        metadata=dict(request.metadata),
        timeout_ms=milliseconds(request.timeout) if request.HasField("timeout") else None,
        request_hash=_take_hash(request),
    )


def _take_hash(request: pb.StartSagaRequest) -> bytes:
    """SHA-256 over the content of the request, which is no longer whole afterwards."""
    for field in ("namespace", "saga_id", "wait"):
        request.ClearField(field)
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
