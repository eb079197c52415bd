"""The other nodes, as this one calls them."""

from collections.abc import Callable
from uuid import UUID

import grpc
import grpc.aio

from sagad_server.api.interceptor import Metadata
from sagad_server.domain.errors import Elsewhere
from sagad_server.storage.nodes import NodeState
from sagad_server.storage.store import Store

_TIMEOUT_S = 60.0
"""Of calls whose caller has set none."""
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A machine that vanished without a word is found out while a watch of its sagas waits for it.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The client's bound is the one that counts.
    ("grpc.max_receive_message_length", -1),
)


class Peers:
    """Channels to other nodes, by the addresses that they have announced."""

    def __init__(self, credentials: grpc.ChannelCredentials | None) -> None:
        self._credentials = credentials
        self._addresses: dict[UUID, str] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.store: Callable[[], Store] | None = None

    async def forward(
        self, owner: UUID, method: str, request: bytes, metadata: Metadata, timeout_s: float | None
    ) -> bytes:
        """See `Forwarder`."""
        address = await self._address(owner)
        if not address:
            raise Elsewhere("the node that drives this saga cannot be reached yet: try again", owner=owner)
        return await self.call(address, method, request, metadata, timeout_s)

    async def call(
        self, address: str, method: str, request: bytes, metadata: Metadata, timeout_s: float | None
    ) -> bytes:
        """Raises grpc.aio.AioRpcError."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._connect(address)
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{method}", _as_it_is, _as_it_is)
        return await ask(request, timeout=timeout_s or _TIMEOUT_S, metadata=metadata)

    async def _address(self, owner: UUID) -> str:
        if owner not in self._addresses:
            assert self.store is not None
            nodes = await self.store().nodes()
            self._addresses = {
                node.instance_id: node.address for node in nodes if node.state == NodeState.LIVE and node.address
            }
        return self._addresses.get(owner, "")

    def _connect(self, address: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS)

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()


def _as_it_is(message: bytes) -> bytes:
    return message
