"""The configuration, checked as a whole: flags win over the environment (SAGAD_*), that over a YAML file, that over
defaults. Durations have a unit in the file (30s, 1h) and are float seconds in the code.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sagad_server.config_guard import RateLimits, Redis
from sagad_server.config_projection import Mongo, Projection
from sagad_server.config_sections import (
    Grpc,
    Http,
    Kafka,
    Limits,
    Log,
    LongText,
    Mirror,
    Node,
    Participant,
    Postgres,
    Section,
    Service,
    ShortText,
    Validation,
)
from sagad_server.config_sources import (
    ENV_FILE,
    SourceError,
    Tree,
    leaves,
    merge,
    read_environment,
    read_file,
    variable,
)
from sagad_server.config_values import Duration, ParticipantName, format_duration, masked
from sagad_server.domain.checks import Bounds, ValidationLimits

_MAY_HOLD_SECRETS = frozenset({"postgres", "postgres.dsn", "redis", "redis.url", "mongo", "mongo.url"})
_NO_POSTGRES = "postgresql://"

__all__ = ["Config", "ConfigError", "Participant", "keys", "load_config"]


class ConfigError(Exception):
    """The configuration is wrong. `faults` has a line for each fault, with its key and its source."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("the configuration is wrong:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = faults


class Config(Section):
    """All sections. Immutable."""

    grpc: Grpc = Grpc()
    http: Http = Http()
    postgres: Postgres
    participants: dict[ParticipantName, Participant] = {}
    service: Service = Service()
    node: Annotated[Node, Field(default_factory=Node)]
    kafka: Kafka = Kafka()
    mirror: Mirror = Mirror()
    redis: Redis = Redis()
    mongo: Mongo = Mongo()
    projection: Projection = Projection()
    limits: Limits = Limits()
    rate_limits: RateLimits = RateLimits()
    validation: Validation = Validation()
    log: Log = Log()

    @model_validator(mode="after")
    def _mirror_has_kafka(self) -> Self:
        if self.mirror.enabled and not self.kafka.bootstrap_servers:
            raise ValueError("mirror.enabled needs kafka.bootstrap_servers")
        return self

    @model_validator(mode="after")
    def _limited_participants_exist(self) -> Self:
        unknown = self.rate_limits.participants.overrides.keys() - self.participants.keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"rate_limits.participants.overrides has {names}, which participants has not")
        return self

    def validation_limits(self) -> ValidationLimits:
        """The bounds as the domain takes them."""
        rules, definition, step = self.validation, self.validation.definition, self.validation.step
        return ValidationLimits(
            definition_id=_length(definition.id),
            definition_name=_length(definition.name),
            definition_description=_length(definition.description),
            step_id=_length(step.id),
            step_name=_length(step.name),
            step_description=_length(step.description),
            action=_length(step.action),
            compensation=_length(step.compensation),
            max_retries=Bounds(step.max_retries.min, step.max_retries.max),
            step_timeout_ms=Bounds(round(step.timeout.min * 1000), round(step.timeout.max * 1000)),
            max_steps_per_definition=rules.max_steps_per_definition,
            max_definitions=rules.max_definitions,
            max_steps=rules.max_steps,
            max_payload_bytes=self.limits.max_payload_bytes,
            max_labels=self.limits.max_labels,
        )

    def masked(self) -> dict[str, Any]:
        """The whole configuration as it would stand in a file, with every secret hidden."""
        return _masked(self)


def load_config(
    path: Path | None, environment: Mapping[str, str], overrides: Tree | None = None, *, needs_postgres: bool = True
) -> Config:
    """The configuration of a file (else the one that SAGAD_CONFIG names, else none), the environment and flags.

    `overrides` is nested as the file is. Raises ConfigError with every fault at once; unknown keys and unknown SAGAD_*
    variables are faults.
    """
    if path is None and environment.get(ENV_FILE):
        path = Path(environment[ENV_FILE])
    try:
        from_file = read_file(path) if path else {}
        from_environment = read_environment(environment)
    except SourceError as error:
        raise ConfigError([str(error)]) from None
    from_flags = overrides or {}
    origins = dict.fromkeys(leaves(from_file), str(path))
    origins |= {key: variable(key) for key in leaves(from_environment)}
    origins |= dict.fromkeys(leaves(from_flags), "flag")
    # The empty section makes the fault, where there is no DSN, one of the key and not of the section.
    lowest: Tree = {"postgres": {} if needs_postgres else {"dsn": _NO_POSTGRES}}
    try:
        return Config.model_validate(merge(lowest, merge(merge(from_file, from_environment), from_flags)))
    except ValidationError as error:
        raise ConfigError([_fault(each, origins) for each in error.errors(include_url=False)]) from None


def keys(model: type[BaseModel] = Config, path: tuple[str, ...] = ()) -> Iterator[tuple[str, FieldInfo]]:
    """Every key, such as `postgres.dsn` or `participants.<name>.target`, with what pydantic knows of it."""
    for name, info in model.model_fields.items():
        section = next((kind for kind in _kinds(info.annotation) if issubclass(kind, BaseModel)), None)
        if section is None:
            yield ".".join((*path, name)), info
        else:
            named = get_origin(info.annotation) is dict
            yield from keys(section, (*path, name, "<name>") if named else (*path, name))


def _kinds(annotation: Any) -> Iterator[type]:
    """The classes in an annotation."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _length(text: ShortText | LongText) -> Bounds:
    return Bounds(text.min_length, text.max_length)


def _fault(error: ErrorDetails, origins: Mapping[tuple[str, ...], str]) -> str:
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    key = ".".join(path)
    if error["type"] == "missing":
        return f"{key}: is required (environment: {variable(path)})"
    origin = next((origin for leaf, origin in origins.items() if leaf[: len(path)] == path), "default")
    if error["type"] == "extra_forbidden":
        known = [_filled(each, path) for each, _ in keys()]
        similar = get_close_matches(key, known, n=1, cutoff=0.8)
        return f"{key} ({origin}): is no key" + "".join(f"; did you mean {each}?" for each in similar)
    if error["type"] in ("model_type", "dict_type"):
        return f"{key} ({origin}): must hold keys"
    what = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = error["input"]
    if isinstance(given, str | int | float) and key not in _MAY_HOLD_SECRETS:
        what += f" (given: {given!r})"
    return f"{key} ({origin}): {what}"


def _filled(key: str, path: tuple[str, ...]) -> str:
    """The key with the names that stand at their places in a path."""
    parts = enumerate(key.split("."))
    return ".".join(path[i] if part == "<name>" and i < len(path) else part for i, part in parts)


def _masked(section: Section) -> dict[str, Any]:
    return {name: _plain(getattr(section, name), info) for name, info in type(section).model_fields.items()}


def _plain(value: object, info: FieldInfo) -> Any:
    if isinstance(value, Section):
        return _masked(value)
    if isinstance(value, dict):
        return {key: _plain(each, info) for key, each in value.items()}
    if isinstance(value, SecretStr):
        return masked(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float | int) and any(isinstance(each, Duration) for each in info.metadata):
        return format_duration(value)
    return value
