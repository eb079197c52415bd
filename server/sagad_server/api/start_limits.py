"""Rate limits of starts, by who starts a saga and of which definition. A repeat of a start is never refused."""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

from sagad_server.api.interceptor import actor
from sagad_server.domain.errors import ResourceExhausted, SagadError, Unavailable
from sagad_server.engine.engine import Engine
from sagad_server.engine.starts import Start
from sagad_server.guard.rate_limits import Denied, RateLimits

_LOOK_AGAIN_S = 0.05


class StartLimits:
    """Asks the limits for every new saga. Without limits it does nothing."""

    def __init__(self, limits: RateLimits | None, engine: Engine) -> None:
        self._limits = limits
        self._engine = engine

    async def refuse(self, command: Start) -> None:
        """Returns if the saga may be started, or is there already.

        Raises ResourceExhausted; Unavailable where the limits cannot be asked for.
        """
        denied = await self._first_asked(command)
        if denied is not None:
            error = refused(denied)
            self._engine.observer.start_refused(error.reason)
            raise error

    async def wait(self, command: Start, stops: Callable[[], bool]) -> None:
        """Returns once the saga may be started, at once if it is there already; or when it `stops`."""
        denied = await self._first_asked(command)
        while denied is not None and not stops():
            await asyncio.sleep(min(denied.later.pause_s, _LOOK_AGAIN_S))
            denied = await self._asked(command)

    async def _first_asked(self, command: Start) -> Denied | None:
        if self._limits is None or command.key in self._engine.sagas:
            return None
        denied = await self._asked(command)
        if denied is None or await self._is_known(command):
            return None
        self._limits.observer.limited(denied.subject.kind)
        return denied

    async def _asked(self, command: Start) -> Denied | None:
        assert self._limits is not None
        definition = f"{command.key[0]}/{command.definition_id}"
        return await self._limits.admit(client_name(actor.get()), definition)

    async def _is_known(self, command: Start) -> bool:
        return command.key in self._engine.sagas or await self._engine.store.get_row(command.key) is not None


def refused(denied: Denied) -> SagadError:
    """What a start is refused with."""
    subject, retry_after_ms = denied.subject, max(1, round(denied.later.pause_s * 1000 + 0.5))
    if denied.later.away:
        return Unavailable(
            f"Redis, which counts the sagas of {subject.kind.value} {subject.name!r} for rate_limits, does not answer:"
            " try again later",
            reason="RATE_LIMITS_UNAVAILABLE",
            retry_after_ms=retry_after_ms,
        )
    rate = subject.rate
    return ResourceExhausted(
        f"{subject.kind.value} {subject.name!r} starts more sagas than rate_limits.{subject.kind.value}s allows"
        f" ({rate.per_second:g} a second, {rate.burst} at once): try again in {retry_after_ms} ms",
        reason="RATE_LIMITED",
        metadata={
            "kind": subject.kind.value,
            "name": subject.name,
            "per_second": f"{rate.per_second:g}",
            "burst": str(rate.burst),
        },
        retry_after_ms=retry_after_ms,
    )


@lru_cache(maxsize=4096)
def client_name(actor: str) -> str:
    """The actor without its port: `ipv4:10.0.0.1:5060` is 10.0.0.1, over whatever connection it comes."""
    kind, _, place = actor.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    host = unquote(place).rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
