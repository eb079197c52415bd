"""A TCP proxy that loses what a network loses, when a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class _Link:
    """One client's connection and the server's connection behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.loses_answers = False
        self.cut_by_answer = False

    def cut(self) -> None:
        """Both sides see a broken connection."""
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Stands between clients and one server on 127.0.0.1.

    Answers are bytes from the server to a client; requests always pass. `marker` picks the connection over which a
    request with these bytes goes next: `acted` is set when that has happened and had its effect.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        """Where new connections go: a server may come back on another port."""
        self.delay_s = 0.0
        """How long each piece of data is held up, in both directions."""
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._marker = b""
        self._cuts = False
        self._refuses = False
        self.acted = asyncio.Event()
        self.port = 0
        self.request_bytes = 0
        self.answer_bytes = 0

    def cut(self) -> None:
        """Breaks all connections; new ones are let through."""
        for link in list(self._links):
            link.cut()

    def refuse(self, refuses: bool = True) -> None:
        """Breaks all connections and, until told otherwise, new ones at once."""
        self._refuses = refuses
        if refuses:
            self.cut()

    def blackhole(self) -> None:
        """From now on no answer comes through on the present connections, which stay open. New ones work."""
        for link in self._links:
            link.loses_answers = True

    def cut_answer_to(self, marker: bytes) -> None:
        """The server gets the request; its answer is lost, and the connection breaks."""
        self._expect(marker, cuts=True)

    def lose_answer_to(self, marker: bytes) -> None:
        """The server gets the request; its answer is lost, and the connection stays open and silent."""
        self._expect(marker, cuts=False)

    def _expect(self, marker: bytes, *, cuts: bool) -> None:
        self.acted.clear()
        self._marker, self._cuts = marker, cuts

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refuses:
            client.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(client_reader, link), self._answers(server_reader, link))
        finally:
            link.cut()
            self._links.discard(link)

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await _read(reader):
            self.request_bytes += len(data)
            if self._marker and self._marker in data:
                self._marker = b""
                link.loses_answers, link.cut_by_answer = True, self._cuts
            await asyncio.sleep(self.delay_s)
            link.server.write(data)
        link.cut()

    async def _answers(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await _read(reader):
            self.answer_bytes += len(data)
            if not link.loses_answers:
                await asyncio.sleep(self.delay_s)
                link.client.write(data)
                continue
            self.acted.set()
            if link.cut_by_answer:
                break
        link.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            if self._tasks:
                await asyncio.wait(self._tasks)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of a DSN, and the DSN that leads through it."""
    parts = urlsplit(dsn)
    assert parts.hostname in ("127.0.0.1", "localhost"), "the proxy stands before servers of this machine"
    async with Proxy(parts.port or 5432).running() as proxy:
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}"))
