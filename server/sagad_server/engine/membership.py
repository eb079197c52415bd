"""This node among the others: it renews its lease, and finds out who has died.

A node counts its own lease from before it sent the renewal, and starts no call past it. Others declare it dead only
after they have seen its lease unchanged for longer than that, each on its own clock and with the database reachable all
the while: two machines' clocks are never compared.
"""

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from sagad_server.domain.errors import Unavailable
from sagad_server.engine.ports import Clock, Random
from sagad_server.storage.nodes import Node, NodeState
from sagad_server.storage.rows import Key
from sagad_server.storage.store import Store

_RENEWALS_A_LEASE = 4
_PATIENCE = 1.25
"""Leases that an observer waits: room for clocks that run at different speeds."""


class NodeNameTaken(Exception):  # noqa: N818 - a verdict on this process
    """Another live process runs under this node's name."""


class Listener(Protocol):
    """Who has to act on what this node learns."""

    def lost(self) -> None:
        """This node was declared dead: drop every saga. Told again once it is registered anew."""

    def regained(self) -> None:
        """Calls may be started again."""

    def adopt(self, suspects: Collection[Key]) -> None:
        """A node has died over these, and its sagas may be claimed."""


class Membership:
    """One node's registration and lease."""

    def __init__(self, store: Store, clock: Clock, random: Random, lease_s: float) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._lease_s = lease_s
        self._valid_until_s = 0.0
        self._seen: dict[UUID, tuple[int, float]] = {}
        """The lease of each other node, and since when it is unchanged."""
        self._unanswered = False
        """A registration was sent, and its answer has not come: the process of this name may be this one."""
        self.node: Node | None = None

    @property
    def instance_id(self) -> UUID:
        assert self.node is not None, "not registered yet"
        return self.node.instance_id

    @property
    def holds_lease(self) -> bool:
        """Whether calls may be started."""
        return self._clock.monotonic() < self._valid_until_s

    async def join(self, node_name: str) -> None:
        """Registers. Raises what `Store.open` raises."""
        began_s = self._clock.monotonic()
        self.node = await self._store.open(node_name)
        self._valid_until_s = began_s + self._lease_s

    async def run(self, listener: Listener) -> None:
        """Renews and observes until cancelled. Raises NodeNameTaken."""
        while True:
            pause_s = self._lease_s / _RENEWALS_A_LEASE * (0.8 + 0.2 * self._random.random())
            await self._clock.sleep(pause_s)
            try:
                await self._renew(listener)
                await self._observe(listener)
            except Unavailable:
                # What was not seen while the database was away proves nothing.
                self._seen.clear()

    async def _renew(self, listener: Listener) -> None:
        began_s = self._clock.monotonic()
        if not await self._store.renew():
            self._valid_until_s = 0.0
            listener.lost()
            await self._rejoin(listener)
            return
        self._valid_until_s = began_s + self._lease_s
        if self.holds_lease:
            listener.regained()

    async def _rejoin(self, listener: Listener) -> None:
        """It was declared dead: its sagas belong to others now, and it starts anew."""
        assert self.node is not None
        name, own = self.node.node_name, self.node.incarnation
        # An earlier one that lives is this process's predecessor: the database has lost its last moments.
        later = [r for r in await self._store.nodes() if r.node_name == name and r.incarnation > own]
        if any(row.state == NodeState.LIVE for row in later) and not self._unanswered:
            raise NodeNameTaken(
                f"another live process runs under the node name {name!r}: give each its own by node.name"
            )
        began_s = self._clock.monotonic()
        self._unanswered = True
        self.node = await self._store.register()
        self._unanswered = False
        listener.lost()  # what was claimed meanwhile was claimed by a dead node
        self._seen.clear()
        self._valid_until_s = began_s + self._lease_s
        listener.adopt(self.node.suspects)

    async def _observe(self, listener: Listener) -> None:
        """Declares dead whose lease has not grown for too long."""
        live = {row.instance_id: row for row in await self._store.nodes() if row.state == NodeState.LIVE}
        live.pop(self.instance_id, None)
        now_s = self._clock.monotonic()
        self._seen = {instance_id: seen for instance_id, seen in self._seen.items() if instance_id in live}
        for instance_id, row in live.items():
            lease, since_s = self._seen.get(instance_id, (None, now_s))
            if lease != row.lease:
                self._seen[instance_id] = row.lease, now_s
            elif now_s - since_s > self._lease_s * _PATIENCE:
                suspects = await self._store.declare_dead(instance_id, row.lease)
                if suspects is not None:
                    listener.adopt(suspects)
