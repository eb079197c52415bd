"""Checks of requests, before anything looks at the state of the system. Every fault is named at once, by field path."""

import re
from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1 import common_pb2, saga_pb2, saga_service_pb2
from sagad_server.domain.checks import SAGA_TIMEOUT_MS, Bounds, Checker, ValidationLimits, shown
from sagad_server.domain.definition_rules import definition_violations
from sagad_server.domain.errors import Violation
from sagad_server.domain.payloads import json_fault

__all__ = ["RequestChecker", "ValidationLimits", "definition_violations", "start_violations"]

PAGE_SIZE = Bounds(0, 1000)
REASON_MAX_LENGTH = 500
MAX_METADATA = 16
MAX_METADATA_LENGTH = 4096
"""Keys and values together: gRPC refuses larger headers, and every call of the saga would fail."""
MAX_TOKEN_LENGTH = 4096
_NAMESPACE = re.compile(r"[a-z0-9-]+")
_SAGA_ID = re.compile(r"[A-Za-z0-9._:-]+")
_LABEL_KEY = re.compile(r"[a-z0-9._/-]+")
_METADATA_KEY = re.compile(r"[a-z0-9._-]+")
_PRINTABLE_ASCII = re.compile(r"[ -~]*")
_HTTP_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_NAME_LENGTH = Bounds(1, 63)
_SAGA_ID_LENGTH = Bounds(1, 128)
_CONTENT_TYPE_LENGTH = Bounds(0, 100)
# Years 1 to 9999, as google.protobuf.Timestamp has them.
_TIMESTAMP_SECONDS = Bounds(-62_135_596_800, 253_402_300_799)


def start_violations(request: saga_service_pb2.StartSagaRequest, limits: ValidationLimits) -> list[Violation]:
    """Every fault of a StartSagaRequest that needs no look at the definition."""
    check = RequestChecker(limits)
    check.namespace("namespace", request.namespace)
    check.saga_id("saga_id", request.saga_id, required=False)
    check.definition_id("definition_id", request.definition_id)
    if request.version:
        check.version("version", request.version)
    check.payload("input", request.input)
    check.labels("labels", request.labels)
    check.metadata("metadata", request.metadata)
    if request.HasField("timeout"):
        check.duration("timeout", request.timeout, SAGA_TIMEOUT_MS)
    return check.violations


class RequestChecker(Checker):
    """The checks that the requests of the api share; each notes its faults under the field path that it is given."""

    def namespace(self, field: str, value: str) -> bool:
        """A namespace; empty means "default"."""
        allowed = "a-z, 0-9 and '-' are allowed"
        return not value or self.text(field, value, _NAME_LENGTH, pattern=_NAMESPACE, allowed=allowed)

    def saga_id(self, field: str, value: str, *, required: bool = True) -> bool:
        """The id of a saga."""
        allowed = "a-z, A-Z, 0-9, '.', '_', ':' and '-' are allowed"
        return (not value and not required) or self.text(
            field, value, _SAGA_ID_LENGTH, pattern=_SAGA_ID, allowed=allowed
        )

    def reason(self, field: str, value: str, *, required: bool) -> bool:
        """What a person gives as the reason for a call."""
        return self.text(field, value, Bounds(int(required), REASON_MAX_LENGTH))

    def revision(self, field: str, value: int) -> bool:
        """A revision that the caller has seen."""
        return value >= 1 or self.fail(field, f"is {value}; give the saga's revision as you have seen it, 1 or more")

    def page(self, page_size: int, page_token: str) -> bool:
        """The fields `page_size` and `page_token`."""
        right = self.number("page_size", page_size, PAGE_SIZE)
        return self.token("page_token", page_token) and right

    def token(self, field: str, token: str) -> bool:
        """A text that sagad has made, and that says where to go on; what it says is looked at later."""
        return self.text(field, token, Bounds(0, MAX_TOKEN_LENGTH))

    def enum(self, field: str, value: int, enum: EnumDescriptor, *, required: bool = False) -> bool:
        """A value that the enum, such as `SagaView.DESCRIPTOR`, has; with `required` not its zero."""
        if value in enum.values_by_number and not (required and value == 0):
            return True
        names = ", ".join(each.name for each in enum.values if each.number)
        return self.fail(field, f"is {value or 'not given'}; one of {names} is needed")

    def payload(self, field: str, payload: common_pb2.Payload) -> bool:
        """A payload: its size, and that its JSON can be stored and handed on."""
        size = payload.ByteSize()
        if size > self.limits.max_payload_bytes:
            return self.fail(field, f"has {size:,} bytes; at most {self.limits.max_payload_bytes:,} are allowed")
        right = self.text(f"{field}.content_type", payload.content_type, _CONTENT_TYPE_LENGTH)
        fault = json_fault(payload.json) if payload.HasField("json") else None
        return right if fault is None else self.fail(f"{field}.json", fault)

    def labels(self, field: str, labels: Mapping[str, str]) -> bool:
        """Labels to find a saga by."""
        if len(labels) > self.limits.max_labels:
            return self.fail(field, f"has {len(labels)} labels; at most {self.limits.max_labels} are allowed")
        allowed = "a-z, 0-9, '.', '_', '/' and '-' are allowed in a key"
        before = len(self.violations)
        for key, value in sorted(labels.items()):
            self.text(_entry(field, key), key, _NAME_LENGTH, pattern=_LABEL_KEY, allowed=allowed)
            self.text(_entry(field, key), value, Bounds(0, 255))
        return len(self.violations) == before

    def metadata(self, field: str, metadata: Mapping[str, str]) -> bool:
        """Metadata to send with every call: what gRPC can carry, and neither gRPC's own, HTTP's own nor sagad's own."""
        if len(metadata) > MAX_METADATA:
            return self.fail(field, f"has {len(metadata)} entries; at most {MAX_METADATA} are allowed")
        allowed = "a-z, 0-9, '.', '_' and '-' are allowed in a key"
        before = len(self.violations)
        for key, value in sorted(metadata.items()):
            entry = _entry(field, key)
            if key.startswith(("grpc-", "sagad-")) or key.endswith("-bin") or key in _HTTP_HEADERS:
                self.fail(entry, "is a reserved key: no grpc- or sagad- in front, no -bin behind, no HTTP header")
            else:
                self.text(entry, key, _NAME_LENGTH, pattern=_METADATA_KEY, allowed=allowed)
            printable = "printable ASCII is allowed in a value"
            self.text(entry, value, Bounds(0, 1024), pattern=_PRINTABLE_ASCII, allowed=printable)
        size = sum(len(key) + len(value) for key, value in metadata.items())
        if size > MAX_METADATA_LENGTH:
            self.fail(field, f"is {size} characters long in all; at most {MAX_METADATA_LENGTH} are allowed")
        return len(self.violations) == before

    def saga_filter(self, field: str, saga_filter: saga_pb2.SagaFilter) -> bool:
        """A filter; what it leaves out selects all."""
        before = len(self.violations)
        if saga_filter.definition_id:
            self.definition_id(f"{field}.definition_id", saga_filter.definition_id)
        if saga_filter.version:
            self.version(f"{field}.version", saga_filter.version)
        self.labels(f"{field}.labels", saga_filter.labels)
        self.enums(f"{field}.states", saga_filter.states, saga_pb2.SagaState.DESCRIPTOR)
        self.enums(f"{field}.parking_reasons", saga_filter.parking_reasons, saga_pb2.ParkingReason.DESCRIPTOR)
        self.enums(f"{field}.categories", saga_filter.categories, common_pb2.FailureCategory.DESCRIPTOR)
        for name in ("create_time", "end_time"):
            self.times(saga_filter, f"{name}_min", f"{name}_max", prefix=f"{field}.")
        return len(self.violations) == before

    def enums(self, field: str, values: Sequence[int], enum: EnumDescriptor) -> None:
        """Values that the enum has, none of them its zero."""
        if len(values) > len(enum.values):
            self.fail(field, f"has {len(values)} values; the enum has {len(enum.values)}")
            return
        for i, value in enumerate(values):
            self.enum(f"{field}[{i}]", value, enum, required=True)

    def times(self, message: Message, lower: str, upper: str, *, prefix: str = "") -> None:
        """Two fields of a message that bound a time, both optional."""
        times: list[Timestamp] = []
        for name in (lower, upper):
            if message.HasField(name):
                time: Timestamp = getattr(message, name)
                if time.seconds not in _TIMESTAMP_SECONDS or not 0 <= time.nanos <= 999_999_999:
                    self.fail(f"{prefix}{name}", f"is no time: {time.seconds} seconds and {time.nanos} nanoseconds")
                else:
                    times.append(time)
        if len(times) == 2 and (times[0].seconds, times[0].nanos) >= (times[1].seconds, times[1].nanos):
            self.fail(f"{prefix}{upper}", f"is not after {lower}, so that nothing can match")


def _entry(field: str, key: str) -> str:
    return f"{field}[{shown(key)}]"
