"""The exit codes of sagactl."""

from __future__ import annotations

from sagad_client.errors import DeadlineExceeded, SagadError, Unavailable

OK = 0
REFUSED = 1
USAGE = 2
UNAVAILABLE = 3
NOT_SUCCEEDED = 4
INTERRUPTED = 130
CLOSED_PIPE = 141

HELP = """Exit codes:
  0    done
  1    sagad refused, or lint has found something
  2    usage: an argument, an input or a file is wrong
  3    sagad is away, unhealthy, or took too long
  4    the saga that was awaited or watched did not succeed
  130  interrupted"""


class UsageError(Exception):
    """An argument, an input or a file is wrong; the message says which, and what would be right."""


def code_of(error: SagadError) -> int:
    """The exit code for a call that did not succeed."""
    return UNAVAILABLE if isinstance(error, Unavailable | DeadlineExceeded) else REFUSED
