"""Pages: opaque tokens that say where the next one begins, and a bound of bytes as well as of items."""

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from sagad_server.domain.errors import InvalidArgument, Violation

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_BYTES = 2 * 1024 * 1024
"""A page ends early rather than hold more: gRPC clients take 4 MiB by default, and one item has at most about 1.5."""

_DIGEST_BYTES = 12

Position = TypeVar("Position")


class Pages:
    """The tokens of one listing: bound to its method, namespace and `scope`, such as its filter.

    A token tells nothing that its holder has not seen, so it needs no secret; a digest finds foreign and garbled ones.
    """

    def __init__(self, method: str, namespace: str, *scope: Message | str) -> None:
        self._scope = hashlib.sha256()
        for part in (method, namespace, *scope):
            data = part.SerializeToString(deterministic=True) if isinstance(part, Message) else part.encode()
            self._scope.update(b"%d:%b" % (len(data), data))

    def token(self, position: str) -> str:
        """For the page that begins behind the position."""
        data = position.encode()
        return base64.urlsafe_b64encode(self._digest(data) + data).decode()

    def position(self, token: str, read: Callable[[str], Position]) -> Position | None:
        """What `read` makes of the token's position; None for the first page. Raises InvalidArgument."""
        if not token:
            return None
        try:
            data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
            digest, position = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if digest == self._digest(position):
                return read(position.decode())
        except (binascii.Error, ValueError, OverflowError) as error:
            raise _foreign() from error
        raise _foreign()

    def _digest(self, position: bytes) -> bytes:
        digest = self._scope.copy()
        digest.update(position)
        return digest.digest()[:_DIGEST_BYTES]


class Page:
    """Room for the items of one page."""

    def __init__(self, page_size: int) -> None:
        self.size = page_size or DEFAULT_PAGE_SIZE
        self._left = self.size
        self._room = MAX_PAGE_BYTES

    def take(self, item: Message) -> bool:
        """Whether the item goes on the page. The first one always does."""
        if self._left == 0:
            return False
        size = item.ByteSize()
        if size > self._room and self._left < self.size:
            return False
        self._left -= 1
        self._room -= size
        return True


def _foreign() -> InvalidArgument:
    what = "is not one that this call has returned with the same namespace and filter: begin again without it"
    return InvalidArgument.of([Violation("page_token", what)])
