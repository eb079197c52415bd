"""What can be seen of a participant's link."""

from dataclasses import dataclass

from sagad_server.transport.breaker import BreakerState


@dataclass(slots=True, frozen=True)
class LinkState:
    """How a participant's calls go now."""

    breaker: BreakerState
    session: bool
    in_flight: int
    queued: int
