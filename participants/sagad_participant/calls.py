"""What a handler gets: the call, as Python data."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

from sagad.v1 import common_pb2, participant_service_pb2
from sagad.v1.participant_service_pb2 import ACTION_OUTCOME_SUCCEEDED
from sagad_participant.payloads import json_of, python_of, struct_as_dict


@final
class Unknown:
    """The type of UNKNOWN."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return False


UNKNOWN: Final = Unknown()
"""Stands for the output of an action whose end is not known."""


@dataclass(frozen=True, slots=True)
class Context:
    """What comes to a call from outside its request."""

    connection: Any
    """Of the barrier's transaction: an asyncpg connection, a MemoryConnection, or a RedisConnection."""
    metadata: Mapping[str, str]
    """The saga's metadata, sent as gRPC metadata."""
    deadline: float | None
    """On the event loop's clock; None: unbounded."""


class _Call:
    """What actions and compensations share."""

    def __init__(
        self,
        request: participant_service_pb2.StepRequest | participant_service_pb2.CompensateRequest,
        context: Context,
    ) -> None:
        self._input = request.input
        self._deadline = context.deadline
        self.connection: Any = context.connection
        self.metadata = context.metadata
        self.namespace = request.namespace
        self.saga_id = request.saga_id
        self.definition_id = request.definition_id
        self.version = request.version
        self.step_id = request.step_id
        self.action = request.action
        self.idempotency_key = request.idempotency_key
        self.attempt = request.attempt
        self.fencing_token = request.fencing_token
        self.completion_token = request.completion_token
        self.labels: Mapping[str, str] = dict(request.labels)
        self.lock_tokens: Mapping[str, int] = dict(request.lock_tokens)
        """Fencing tokens of the locks that the saga holds, by the lock's name."""

    @cached_property
    def json(self) -> Any:
        """The action's input as Python data, whole numbers as int; None without input. Raises InvalidCall for bytes."""
        return json_of(self._input, "input")

    @property
    def data(self) -> bytes:
        """The action's input where it is bytes, else empty."""
        return self._input.data

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the caller gives this attempt up, and the transaction is rolled back; None: unbounded."""
        return None if self._deadline is None else max(0.0, self._deadline - asyncio.get_running_loop().time())


@final
class Action(_Call):
    """A call of an action.

    Do everything on `call.connection`: it commits with the barrier, or not at all. An effect anywhere else (a mail, a
    call of another service) is not guarded: write down what is to be done, return Pending, and let a worker do it.
    """

    def __init__(self, request: participant_service_pb2.StepRequest, context: Context) -> None:
        super().__init__(request, context)
        self._outputs = request.outputs

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of the steps depended on, by step_id: Python data, or bytes, or None."""
        return {step_id: python_of(payload) for step_id, payload in self._outputs.items()}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a saga is compensated."""

    category: str
    """BUSINESS, TIMEOUT ...: a name of sagad.v1.FailureCategory without its prefix."""
    reason: str
    message: str
    step_id: str
    """The step that failed; empty where the saga as a whole did."""
    details: Mapping[str, Any]


@final
class Compensation(_Call):
    """A call of a compensation, for an action that has committed something here. `json` is the action's own input.

    It must succeed in the end. Raise Refused only if a person has to decide: that parks the saga.
    """

    def __init__(
        self,
        request: participant_service_pb2.CompensateRequest,
        context: Context,
        *,
        success: common_pb2.StepSuccess | None,
    ) -> None:
        super().__init__(request, context)
        self._cause = request.cause
        self._has_output = success is not None or request.outcome == ACTION_OUTCOME_SUCCEEDED
        self._output = request.output if success is None else success.output
        self.compensation = request.compensation
        self.was_pending = success is None
        """The action had answered Pending and was not completed; it never will be. With RedisBarrier also: its end is
        not known."""

    @cached_property
    def output(self) -> Any:
        """The action's output: Python data, bytes or None; UNKNOWN if it was pending and nobody knows more."""
        return python_of(self._output) if self._has_output else UNKNOWN

    @cached_property
    def cause(self) -> Cause:
        """Why the saga is compensated."""
        details = struct_as_dict(self._cause.details)
        return Cause(_category(self._cause), self._cause.reason, self._cause.message, self._cause.step_id, details)


def _category(failure: common_pb2.Failure) -> str:
    if failure.category not in common_pb2.FailureCategory.values():  # of a newer coordinator
        return str(failure.category)
    return common_pb2.FailureCategory.Name(failure.category).removeprefix("FAILURE_CATEGORY_")
