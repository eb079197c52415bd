"""The kinds of values in a configuration: durations, addresses, the DSN."""

import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, GetCoreSchemaHandler, SecretStr
from pydantic_core import CoreSchema, core_schema

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([\d.]+)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")
_PARTICIPANT = re.compile(r"[A-Za-z0-9._-]{2,100}")
_PASSWORD_PARAMETER = re.compile(r"(?i)([?&](?:ssl)?password=)[^&]*")
HIDDEN = "***"
_DSN_SCHEMES = ("postgresql://", "postgres://")
_REDIS_SCHEMES = ("redis://", "rediss://")
_MONGO_SCHEMES = ("mongodb://", "mongodb+srv://")


def parse_duration(text: str) -> float:
    """Seconds of a text such as 500ms, 30s, 1h30m or 90d. Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError("must be a duration with a unit, such as 500ms, 30s, 5m, 1h or 90d")
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNIT_S[unit] and seconds % _UNIT_S[unit] == 0:
            return f"{seconds / _UNIT_S[unit]:.0f}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks a float as seconds that the configuration gives as a text with a unit, between two such texts."""

    minimum: str
    maximum: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: object) -> float:
        if not isinstance(value, str):
            raise ValueError("must be a duration with a unit, such as 500ms, 30s, 5m, 1h or 90d")  # noqa: TRY004
        seconds = parse_duration(value)
        if not parse_duration(self.minimum) <= seconds <= parse_duration(self.maximum):
            raise ValueError(f"must be {self}")
        return seconds

    def __str__(self) -> str:
        return f"{self.minimum} - {self.maximum}"


def _check_address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if not found or int(found["port"]) > 65_535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400; port 0 takes a free one")
    return value


def _check_dsn(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(_DSN_SCHEMES):
        raise ValueError("must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return value


def _check_redis_url(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        right = f"{parts.scheme}://" in _REDIS_SCHEMES and parts.hostname and (parts.port or 6379) > 0
    except ValueError:  # of the port; its text may quote the password
        right = False
    if not right or not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("must be redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS; DATABASE is a number")
    return value


def _check_mongo_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if url and not url.startswith(_MONGO_SCHEMES):
        raise ValueError("must be mongodb://USER:PASSWORD@HOST:PORT or mongodb+srv://USER:PASSWORD@HOST")
    return value


def _check_participant(value: str) -> str:
    if not _PARTICIPANT.fullmatch(value):
        raise ValueError("a participant's name has 2-100 characters of a-z, A-Z, 0-9, '.', '_' and '-'")
    return value


Address = Annotated[str, AfterValidator(_check_address)]
"""Where to listen, as HOST:PORT."""

Dsn = Annotated[SecretStr, AfterValidator(_check_dsn)]
"""How to reach PostgreSQL. Holds a password: shown by `masked_dsn` only."""

RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
"""How to reach Redis. Holds a password, as a DSN does."""

MongoUrl = Annotated[SecretStr, AfterValidator(_check_mongo_url)]
"""How to reach MongoDB. May hold a password: never shown."""

ParticipantName = Annotated[str, AfterValidator(_check_participant)]
"""What definitions call a participant."""


def masked(secret: SecretStr) -> str:
    """What may be shown of a secret: a DSN or URL without its passwords, and nothing of any other."""
    value = secret.get_secret_value()
    return masked_dsn(value) if value.startswith((*_DSN_SCHEMES, *_REDIS_SCHEMES)) else value and HIDDEN


def masked_dsn(dsn: str) -> str:
    """The DSN with every password in it hidden; rather too much than too little where it is malformed."""
    scheme, _, rest = dsn.partition("://")
    user_and_password, at, location = rest.rpartition("@")
    user, colon, _ = user_and_password.partition(":")
    password = colon and f":{HIDDEN}"
    return f"{scheme}://{user}{password}{at}" + _PASSWORD_PARAMETER.sub(rf"\1{HIDDEN}", location)
