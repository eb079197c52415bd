"""Unary gRPC calls by bare HTTP/2 frames: a load that costs little, since what it costs the server cannot have.

After RFC 9113 and gRPC's PROTOCOL-HTTP2.md; only what sagad's server needs of its client.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import cast

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_MOST = 2**31 - 1
_STATUS = re.compile(rb"grpc-status.(\d+)", re.DOTALL)
"""A header field that is not compressed: its name, its value's length, its value."""

Ended = Callable[[int | None, bool], None]
"""The gRPC code, None where the stream was reset; and whether the status has details."""


class Calls(asyncio.Protocol):
    """One connection, on which any number of calls of one method are under way."""

    def __init__(self, path: str, timeout_s: int) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        """Done when the server has said what it takes; fails with the connection."""
        self._headers = _header_block(path, timeout_s)
        self._calls: dict[int, Ended] = {}
        self._next_id = 1
        self._window = 65_535
        """Bytes of messages that the server still takes."""
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Frames, and how much of the window they need."""
        self._received = bytearray()

    @property
    def under_way(self) -> int:
        return len(self._calls)

    def call(self, request: bytes, ended: Ended) -> None:
        """Starts a call with a serialized message; `ended` hears of its end."""
        stream, self._next_id = self._next_id, self._next_id + 2
        self._calls[stream] = ended
        message = b"\0" + len(request).to_bytes(4, "big") + request
        headers = _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        self._waiting.append((headers + _frame(_DATA, _END_STREAM, stream, message), len(message)))
        self._flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        uncompressed = (1).to_bytes(2, "big") + (0).to_bytes(4, "big")  # SETTINGS_HEADER_TABLE_SIZE: none
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, uncompressed)
            + _frame(_WINDOW_UPDATE, 0, 0, (_MOST - 65_535).to_bytes(4, "big"))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("the server has closed the connection"))
        calls, self._calls = self._calls, {}
        for ended in calls.values():
            ended(None, False)

    def data_received(self, data: bytes) -> None:
        self._received += data
        at = 0
        while len(self._received) >= at + 9:
            end = at + 9 + int.from_bytes(self._received[at : at + 3], "big")
            if len(self._received) < end:
                break
            kind, flags = self._received[at + 3], self._received[at + 4]
            stream = int.from_bytes(self._received[at + 5 : at + 9], "big")
            self._take(kind, flags, stream, bytes(self._received[at + 9 : end]))
            at = end
        del self._received[:at]
        self._flush()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS and flags & _END_STREAM:
            found = _STATUS.search(payload)
            assert found is not None, payload
            assert flags & _END_HEADERS, payload
            self._end(stream, int(found[1]), b"grpc-status-details-bin" in payload)
        elif kind == _RST_STREAM:
            self._end(stream, None, False)
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        else:
            assert kind != _GOAWAY, payload

    def _end(self, stream: int, code: int | None, detailed: bool) -> None:
        ended = self._calls.pop(stream, None)  # a stream that has ended may be reset as well
        if ended is not None:
            ended(code, detailed)

    def _flush(self) -> None:
        ready = []
        while self._waiting and self._window >= self._waiting[0][1]:
            frames, needed = self._waiting.popleft()
            ready.append(frames)
            self._window -= needed
        if ready:
            self._transport.write(b"".join(ready))


def _header_block(path: str, timeout_s: int) -> bytes:
    """HPACK, RFC 7541, without its tables but the static one."""
    fields = {b"content-type": b"application/grpc", b"te": b"trailers", b"grpc-timeout": b"%dS" % timeout_s}
    block = b"\x83\x86" + b"\x04" + _string(path.encode()) + b"\x01" + _string(b"bench")
    return block + b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())


def _string(value: bytes) -> bytes:
    assert len(value) < 127, value
    return bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
