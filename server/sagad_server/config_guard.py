"""The sections of the configuration about rate limits, and about Redis, by which nodes share what they know."""

import re
from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, FilePath, model_validator

from sagad_server.config_sections import Section
from sagad_server.config_values import Duration, ParticipantName, RedisUrl

_DEFINITION = re.compile(r"[^/\s]+/[^/\s]+")


def _check_client(name: str) -> str:
    if name == "unix":
        return name
    try:
        return str(ip_address(name))
    except ValueError:
        raise ValueError("a client's name is its IP address, or 'unix' for a socket of this machine") from None


def _check_definition(name: str) -> str:
    if not _DEFINITION.fullmatch(name):
        raise ValueError("must be NAMESPACE/DEFINITION_ID, such as default/order")
    return name


ClientName = Annotated[str, AfterValidator(_check_client)]
DefinitionName = Annotated[str, AfterValidator(_check_definition)]


class Redis(Section):
    url: RedisUrl | None = None
    """How to reach Redis: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, with TLS `rediss://`. Needs the extra `redis`."""
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "sagad"
    """Begin of all keys. Nodes of one sagad have the same one, and those of another one a different one."""
    ca_file: FilePath | None = None
    """PEM file of the authorities that Redis' certificate is checked against; none: those of the system."""
    timeout: Annotated[float, Duration("10ms", "5s")] = 0.2
    """How long Redis may take for an answer before it counts as away."""

    @model_validator(mode="after")
    def _ca_needs_tls(self) -> Self:
        if self.ca_file is not None and (self.url is None or not self.url.get_secret_value().startswith("rediss://")):
            raise ValueError("ca_file has no effect without a url that begins with rediss://")
        return self


class Rate(Section):
    per_second: Annotated[float, Field(ge=0.001, le=1_000_000)]
    """How many a second, in the long run."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many at once, after a pause that is long enough."""


class ClientRates(Section):
    default: Rate | None = None
    """Rate of new sagas of each client that has none of its own."""
    overrides: dict[ClientName, Rate] = {}
    """Rates of clients by their IP address."""


class DefinitionRates(Section):
    default: Rate | None = None
    """Rate of new sagas of each definition that has none of its own, all its versions together."""
    overrides: dict[DefinitionName, Rate] = {}
    """Rates of definitions by `NAMESPACE/DEFINITION_ID`."""


class ParticipantRates(Section):
    default: Rate | None = None
    """Rate of calls of each participant that has none of its own."""
    overrides: dict[ParticipantName, Rate] = {}
    """Rates of participants by their name."""


class RateLimits(Section):
    when_redis_is_away: Literal["open", "closed"] = "open"
    """While Redis does not answer: open, nothing is limited; closed, what has a limit is refused, or waits."""
    clients: ClientRates = ClientRates()
    definitions: DefinitionRates = DefinitionRates()
    participants: ParticipantRates = ParticipantRates()

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return any(each.default or each.overrides for each in (self.clients, self.definitions, self.participants))
