"""A mirror of two processes and a broker behind a proxy, and what may befall them while sagas run."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sagad_server.storage.postgres import PostgresStore
from support.kafka import KafkaBroker, kafka_broker
from support.mirror import MirrorProcess, write_sagas
from support.processes import free_port
from support.proxy import Proxy

TOPIC = "saga-events"
PLACE = b'"start_id"'
"""In the last record that a transaction writes before its end."""
END = b"\x00\x1a\x00"
"""EndTxn's number in the head of its request. Seldom elsewhere: then another answer is lost."""
FAULT_S = 60


@dataclass
class MirrorWorld:
    """The faults return when they have had their effect, and what was stopped runs again."""

    proxy: Proxy
    broker: KafkaBroker
    relays: list[MirrorProcess]
    store: PostgresStore
    random: Random

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"

    async def open_transaction(self) -> None:
        """Returns when a relay has written all of a transaction, and does not know it yet: it is still open."""
        await self._lost_answer(PLACE)

    async def _lost_answer(self, marker: bytes) -> None:
        async with asyncio.timeout(FAULT_S):
            while not await self._loses_answer(marker):
                continue  # whoever sent it had died before, so that there was no answer to lose

    async def _loses_answer(self, marker: bytes) -> bool:
        self.proxy.lose_answer_to(marker)
        try:
            async with asyncio.timeout(FAULT_S / 10):
                await self.proxy.acted.wait()
        except TimeoutError:
            return False
        return True

    async def relays_die(self) -> None:
        """Both, by SIGKILL: one of them has a transaction open."""
        await self.open_transaction()
        for relay in self.relays:
            relay.kill()
            relay.start()

    async def relay_dies(self) -> None:
        """One, by SIGKILL, at any moment."""
        await asyncio.sleep(self.random.uniform(0, 0.5))
        relay = self.random.choice(self.relays)
        relay.kill()
        relay.start()

    async def broker_dies(self) -> None:
        """By SIGKILL, with a transaction open."""
        await self.open_transaction()
        await asyncio.to_thread(self.broker.kill)
        await asyncio.to_thread(self.broker.start)

    async def all_die(self) -> None:
        """Relays and broker at once, by SIGKILL, with a transaction open."""
        await self.open_transaction()
        await self._kill_all()

    async def all_die_at_an_end(self) -> None:
        """The same when Kafka has decided to commit a transaction, and may not have marked it as committed yet."""
        await self._lost_answer(END)
        await self._kill_all()

    async def _kill_all(self) -> None:
        for relay in self.relays:
            relay.kill()
        await asyncio.to_thread(self.broker.kill)
        await asyncio.to_thread(self.broker.start)
        for relay in self.relays:
            relay.start()

    async def relay_freezes(self) -> None:
        """Until the other has its lanes; then it wakes up, and may go on with what it had in hand."""
        await self.open_transaction()
        frozen, other = self.random.sample(self.relays, 2)
        os.kill(frozen.child.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(FAULT_S):
                while {lag.relay_name for lag in await self.store.mirror().lag(TOPIC)} != {other.name}:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        finally:
            os.kill(frozen.child.pid, signal.SIGCONT)

    async def end_is_unknown(self) -> None:
        """Kafka ends a transaction, and the relay does not hear of it."""
        await self._lost_answer(END)

    async def ends_are_late(self) -> None:
        """Each piece of data is held up for half a second, so that transactions stay open for seconds."""
        self.proxy.delay_s = 0.5
        await asyncio.sleep(5)
        self.proxy.delay_s = 0.0

    def plan(self, kills: int) -> list[Callable[[], Awaitable[None]]]:
        """So many SIGKILLs, and for every six of them one of each other fault, in an order by chance."""
        all_at_once, broker_kills, pairs = kills // 15, kills // 6, kills // 6
        singles = kills - 6 * all_at_once - broker_kills - 2 * pairs
        others = [self.relay_freezes, self.end_is_unknown, self.ends_are_late] * (kills // 6)
        faults = [
            *[self.all_die, self.all_die_at_an_end] * all_at_once,
            *[self.broker_dies] * broker_kills,
            *[self.relays_die] * pairs,
            *[self.relay_dies] * singles,
            *others,
        ]
        self.random.shuffle(faults)
        return faults


@asynccontextmanager
async def mirror_world(folder: Path, store: PostgresStore, dsn: str, random: Random) -> AsyncIterator[MirrorWorld]:
    """Running, with a broker of its own. The relays are ended by SIGTERM in the end, and must end well."""
    port = free_port()
    async with Proxy(port).running() as proxy:
        with kafka_broker(port, proxy.port) as broker:
            servers = f"127.0.0.1:{proxy.port}"
            relays = [MirrorProcess(folder, dsn, servers, TOPIC, name) for name in ("one", "two")]
            try:
                yield MirrorWorld(proxy, broker, relays, store, random)
                for relay in relays:
                    code = await asyncio.to_thread(relay.terminate)
                    assert code == 0, relay.log()[-3000:]
            finally:
                for relay in relays:
                    relay.kill()


@asynccontextmanager
async def sagas_under_way(store: PostgresStore) -> AsyncIterator[None]:
    """Writes sagas until the end."""
    over = asyncio.Event()

    async def write() -> None:
        for round_number in itertools.count():
            if over.is_set():
                return
            await write_sagas(store, [f"saga-{round_number}-{number}" for number in range(10)], 3, {})
            await asyncio.sleep(0.02)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        over.set()
        await task
