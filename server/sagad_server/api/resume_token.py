"""Places in the journal as texts that clients keep, and bring to any node."""

from sagad_server.api.paging import Pages
from sagad_server.domain.errors import InvalidArgument, Violation
from sagad_server.storage.journal import Cursor

_TOKENS = Pages("WatchSagas", "")


def resume_token(cursor: Cursor) -> str:
    """The text."""
    return _TOKENS.token(f"{cursor.xid} {cursor.position} {cursor.history}")


def read_resume_token(token: str) -> Cursor | None:
    """The place; None for an empty text. Raises InvalidArgument."""
    try:
        return _TOKENS.position(token, _read)
    except InvalidArgument:
        what = "is not one that WatchSagas has sent: give the last one as it came, or none to begin now"
        raise InvalidArgument.of([Violation("resume_token", what)]) from None


def _read(text: str) -> Cursor:
    xid, position, history = text.split(" ")
    cursor = Cursor(int(xid), int(position), history)
    if not (0 <= cursor.xid < 2**63 and 0 <= cursor.position < 2**63) or "\0" in history:
        raise ValueError(text)
    return cursor
