"""The Python client of sagad, and sagactl."""

from sagad_client.backoff import Backoff
from sagad_client.client import Client
from sagad_client.definition_files import DefinitionFileError, Fault, load_definitions, parse_definitions
from sagad_client.durations import format_duration, parse_duration
from sagad_client.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SagadError,
    Unavailable,
    Violation,
)
from sagad_client.ids import new_saga_id
from sagad_client.outcomes import failed, succeeded
from sagad_client.pages import Page, Pages
from sagad_client.payloads import from_payload, to_payload
from sagad_client.starts import Started

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Backoff",
    "Client",
    "DeadlineExceeded",
    "DefinitionFileError",
    "FailedPrecondition",
    "Fault",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "Page",
    "Pages",
    "PermissionDenied",
    "ResourceExhausted",
    "SagadError",
    "Started",
    "Unavailable",
    "Violation",
    "failed",
    "format_duration",
    "from_payload",
    "load_definitions",
    "new_saga_id",
    "parse_definitions",
    "parse_duration",
    "succeeded",
    "to_payload",
]
