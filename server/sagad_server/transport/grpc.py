"""All participants of the configuration, over gRPC."""

import asyncio
from collections.abc import Mapping

from sagad.v1.participant_service_pb2 import DescribeResponse
from sagad_server.domain.inputs import NotSent
from sagad_server.engine.ports import Call, Clock, Observer, Random
from sagad_server.transport.channel import ParticipantConfig
from sagad_server.transport.dispatcher import Pace
from sagad_server.transport.link import Link
from sagad_server.transport.state import LinkState

_NOT_CONFIGURED_RETRY_MS = 30_000  # nothing changes before the next start, and each try is journaled


class GrpcTransport:
    """Hands each call to the link of its participant. Made in a running event loop."""

    def __init__(
        self,
        participants: Mapping[str, ParticipantConfig],
        clock: Clock,
        random: Random,
        observer: Observer,
        paces: Mapping[str, Pace] | None = None,
    ) -> None:
        """`paces` by participant, for those that have one."""
        self._clock = clock
        self._links = {
            name: Link(name, config, clock, random, observer, (paces or {}).get(name))
            for name, config in participants.items()
        }

    @property
    def configs(self) -> dict[str, ParticipantConfig]:
        return {name: link.config for name, link in self._links.items()}

    def states(self) -> dict[str, LinkState]:
        """Of each participant."""
        return {name: link.state() for name, link in self._links.items()}

    def send(self, call: Call) -> None:
        link = self._links.get(call.participant)
        if link is None:
            message = f"participant {call.participant!r} is not in the configuration"
            outcome = NotSent(message, _NOT_CONFIGURED_RETRY_MS)
            self._clock.call_at(self._clock.monotonic(), lambda: call.on_outcome(call, outcome))
        else:
            link.dispatcher.send(call)

    async def describe(self, name: str) -> DescribeResponse | str:
        """What a participant says it implements, or why it does not say."""
        link = self._links.get(name)
        return await link.describe() if link is not None else f"participant {name!r} is not in the configuration"

    async def drain(self) -> None:
        """Sends nothing more, and waits for what is under way, each call at most for its timeout."""
        await asyncio.gather(*(link.drain() for link in self._links.values()))

    async def close(self) -> None:
        """Gives up what is still under way."""
        await asyncio.gather(*(link.close() for link in self._links.values()))
