"""A TCP proxy that cuts each connection after so many bytes from the server."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Stands between a client and a server, as a bad line does.

    Args:
        target: address of the server, `host:port`.
        after_bytes: what the server may say on a connection before it is cut.
    """

    def __init__(self, target: str, *, after_bytes: int) -> None:
        self.cuts = 0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._after_bytes = after_bytes
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        sending = asyncio.create_task(_copy(reader, upstream_writer, None))
        try:
            if await _copy(upstream_reader, writer, self._after_bytes):
                self.cuts += 1
        finally:
            sending.cancel()
            writer.transport.abort()
            upstream_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> bool:
    """Copy until the reader ends, or `limit` bytes have gone; return whether it was the limit."""
    copied = 0
    while limit is None or copied < limit:
        try:
            data = await reader.read(4096 if limit is None else min(4096, limit - copied))
            if not data:
                return False
            writer.write(data)
            await writer.drain()
        except ConnectionError:
            return False
        copied += len(data)
    return True
