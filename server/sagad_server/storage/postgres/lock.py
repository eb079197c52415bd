"""One live process serves a database: an advisory lock, held by a connection of its own."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import asyncpg

from sagad_server.storage.postgres.connect import AWAY, CLOSE_TIMEOUT_S, Connection, close, connect
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.store import NodeAlreadyRunning

LOCK = 0x73616761640000  # "sagad" and a number
PREDECESSOR_S = 2  # for so long the connections of a process that was just killed may linger
BEAT_S = 5
NODES = load_queries("nodes")


class DatabaseLock:
    """Holds the lock, and takes it again when its connection is lost.

    The rows of sagas are guarded by their epochs, with or without this lock: it keeps a second process from starting.
    `on_lost` is called once when another process has taken the database over: this one should end.
    """

    def __init__(self, settings: PostgresSettings, node_name: str, on_lost: Callable[[], None]) -> None:
        self._settings = settings
        self._name = f"sagad {node_name}"[:63]
        self._on_lost = on_lost
        self._connection: Connection | None = None
        self._held = False
        self._keeper: asyncio.Task[None] | None = None

    async def take(self) -> Connection:
        """Takes the lock and returns its connection. Raises NodeAlreadyRunning, or one of AWAY."""
        self._connection = await self._connect()
        try:
            limit_s = PREDECESSOR_S + self._settings.connect_timeout_s
            await self._connection.execute(NODES["lock"], LOCK, timeout=limit_s)
        except asyncpg.LockNotAvailableError:
            raise NodeAlreadyRunning(_refusal(await self._connection.fetchrow(NODES["holder"], LOCK))) from None
        self._held = True
        return self._connection

    def keep(self, instance_id: UUID) -> None:
        """From now on looks every few seconds whether this registered instance still is the one."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(instance_id))

    async def close(self, instance_id: UUID) -> None:
        """Notes that the node has ended well, if the database can be asked, and gives the lock back."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if self._connection is None:
            return
        try:
            await self._connection.execute(NODES["stop"], instance_id, timeout=CLOSE_TIMEOUT_S)
        except AWAY:
            self._connection.terminate()
        await close(self._connection)

    def terminate(self) -> None:
        """Gives the lock back without waiting for anything."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._connection is not None:
            self._connection.terminate()

    async def _connect(self) -> Connection:
        session = {"application_name": self._name, "lock_timeout": f"{PREDECESSOR_S}s"}
        return await connect(self._settings, self._settings.command_timeout_s, **session)

    async def _keep(self, instance_id: UUID) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                if not await self._beat(instance_id):
                    break
            except AWAY:  # all others notice too that the database is away
                if self._connection is not None:
                    self._connection.terminate()
            except asyncpg.PostgresError:  # the tables are not ours any more
                break
        self._on_lost()

    async def _beat(self, instance_id: UUID) -> bool:
        """False if another process has taken the database over.

        A lock that cannot be had although nobody has taken over is held by our own lost connection, for some seconds.
        """
        if self._connection is None or self._connection.is_closed():
            self._held = False
            self._connection = await self._connect()
        if not self._held:
            self._held = await self._connection.fetchval(NODES["try_lock"], LOCK)
        live: bool = await self._connection.fetchval(NODES["beat"], instance_id)
        return live


def _refusal(holder: asyncpg.Record | None) -> str:
    who = "another sagad"
    if holder is not None:
        who += f" ({holder['application_name']!r} from {holder['client']}, since {holder['since']})"
    where = "this database" if holder is None else f"database {holder['database']!r} at {holder['server']}"
    return f"{who} serves {where}, and only one may at a time: stop it, or give this one a database of its own"
