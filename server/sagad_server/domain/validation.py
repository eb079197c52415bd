"""Checks of requests, before anything looks at the state of the system. Every fault is named at once, by field path."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import semver
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1 import common_pb2, saga_pb2, saga_service_pb2
from sagad_server.domain.checks import Bounds, Checker, ValidationLimits, shown
from sagad_server.domain.definition_rules import (
    DEFINITION_ID,
    DEFINITION_ID_ALLOWED,
    SAGA_TIMEOUT_MS,
    STEP_ID,
    STEP_ID_ALLOWED,
    VERSION_LENGTH,
    definition_violations,
)
from sagad_server.domain.errors import Violation
from sagad_server.domain.payloads import json_fault

__all__ = ["RequestChecker", "ValidationLimits", "definition_violations", "start_violations"]
