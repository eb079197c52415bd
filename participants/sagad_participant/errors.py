"""How a call can fail without an outcome. Each error knows the gRPC status that the coordinator reads."""

from typing import ClassVar

import grpc


class CallError(Exception):
    """A call that ends with a gRPC status instead of an outcome. The message travels: it holds no internals."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        """`retry_after_s`: the pause to ask the caller for; None leaves it to the caller."""
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class UnknownHandler(CallError):  # noqa: N818 - these names state what happened
    """The participant has no such action or compensation. A definite refusal."""

    code = grpc.StatusCode.UNIMPLEMENTED


class InvalidCall(CallError):  # noqa: N818
    """The request cannot be served as it is. A definite refusal."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class Fenced(CallError):  # noqa: N818
    """A newer owner of the saga has called with this key. Ambiguous: the caller's own view is what is out of date."""

    code = grpc.StatusCode.ABORTED


class Unavailable(CallError):  # noqa: N818
    """The barrier cannot answer now, or another call with the same key is still running. Ambiguous, worth a retry."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlinePassed(CallError):  # noqa: N818
    """The caller's time was over before the handler was done; its transaction is rolled back. Ambiguous."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class BadAnswer(CallError):  # noqa: N818
    """A handler gave something that cannot be sent. A fault of the participant; its transaction is rolled back."""

    code = grpc.StatusCode.INTERNAL


class HandlerFailed(CallError):  # noqa: N818
    """A handler raised what it should not; its transaction is rolled back, the traceback logged. Ambiguous."""

    code = grpc.StatusCode.UNKNOWN


class CompletionError(Exception):
    """Pending work cannot be completed. The block's transaction is rolled back."""

    why: ClassVar[str]

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(f"{idempotency_key!r} {self.why}")
        self.idempotency_key = idempotency_key


class PendingClosed(CompletionError):  # noqa: N818
    """The step was compensated meanwhile: drop the work, its effect must not happen."""

    why = "was compensated meanwhile: drop its work"


class AlreadyCompleted(CompletionError):  # noqa: N818
    """The work was completed before, perhaps by another worker, or never was pending."""

    why = "is not pending (any more): it has its answer"


class UnknownWork(CompletionError):  # noqa: N818
    """The barrier has no such key: it never answered pending, or its row was pruned."""

    why = "is not known to the barrier: it never was pending here, or is pruned"
