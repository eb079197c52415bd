"""A definition as the engine uses it: immutable, with every default filled in and the graph as bit masks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import semver
from google.protobuf.duration_pb2 import Duration

from sagad.v1 import definition_pb2
from sagad_server.domain import graph
from sagad_server.domain.expressions import Expression, compile_expression
from sagad_server.domain.states import StepKind

DEFAULT_MAX_RETRIES = 3
DEFAULT_INITIAL_BACKOFF_MS = 200
DEFAULT_MAX_BACKOFF_MS = 30_000
DEFAULT_MULTIPLIER = 2.0
DEFAULT_RETRY_FOR_MS = 24 * 3_600_000
DEFAULT_COMPLETION_TIMEOUT_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One node of the graph. `requires`, `ancestors` and `descendants` are masks: bit i stands for steps[i]."""

    index: int
    step_id: str
    participant: str
    action: str
    compensation: str  # empty: there is nothing to undo
    kind: StepKind
    max_retries: int
    timeout_ms: int | None  # None: the participant's default
    initial_backoff_ms: int
    max_backoff_ms: int
    multiplier: float
    retry_for_ms: int
    completion_timeout_ms: int
    retryable_codes: frozenset[str]
    final_codes: frozenset[str]
    when: Expression | None
    input: Expression | None  # None: the saga's input
    read_only: bool
    active: bool
    requires: int  # depended on directly
    ancestors: int  # depended on directly or not
    descendants: int


@dataclass(frozen=True, slots=True)
class Definition:
    """A named, versioned recipe. `pivot` is an index of `steps`, `index` finds it by step_id."""

    definition_id: str
    version: str
    steps: tuple[StepDefinition, ...]
    pivot: int | None
    timeout_ms: int | None  # None: sagas have no deadline of their own
    index: Mapping[str, int]
    locks: tuple[Expression, ...] = ()


def compile_definition(message: definition_pb2.Definition) -> Definition:
    """Build the definition from a message without violations (see `validation.definition_violations`)."""
    requires = graph.direct_dependencies(message.steps)
    ancestors = graph.ancestors(requires)
    descendants = graph.inverse(ancestors)
    step_ids = tuple(step.step_id for step in message.steps)
    steps = tuple(
        _compile_step(i, step, step_ids, requires[i], ancestors[i], descendants[i])
        for i, step in enumerate(message.steps)
    )
    return Definition(
        definition_id=message.definition_id,
        version=message.version,
        steps=steps,
        pivot=next((step.index for step in steps if step.kind is StepKind.PIVOT), None),
        timeout_ms=milliseconds(message.timeout) if message.HasField("timeout") else None,
        index=MappingProxyType({step_id: i for i, step_id in enumerate(step_ids)}),
        locks=tuple(compile_expression(source, step_ids=()) for source in message.locks),
    )


def _compile_step(
    index: int,
    step: definition_pb2.StepDefinition,
    step_ids: tuple[str, ...],
    requires: int,
    ancestors: int,
    descendants: int,
) -> StepDefinition:
    retry = step.retry
    initial_backoff_ms = _or_default(retry, "initial_backoff", DEFAULT_INITIAL_BACKOFF_MS)
    return StepDefinition(
        index=index,
        step_id=step.step_id,
        participant=step.participant,
        action=step.action,
        compensation=step.compensation,
        kind=StepKind(step.kind or StepKind.COMPENSATABLE),
        max_retries=step.max_retries if step.HasField("max_retries") else DEFAULT_MAX_RETRIES,
        timeout_ms=milliseconds(step.timeout) if step.HasField("timeout") else None,
        initial_backoff_ms=initial_backoff_ms,
        max_backoff_ms=max(initial_backoff_ms, _or_default(retry, "max_backoff", DEFAULT_MAX_BACKOFF_MS)),
        multiplier=retry.multiplier or DEFAULT_MULTIPLIER,
        retry_for_ms=_or_default(retry, "retry_for", DEFAULT_RETRY_FOR_MS),
        completion_timeout_ms=_or_default(step, "completion_timeout", DEFAULT_COMPLETION_TIMEOUT_MS),
        retryable_codes=frozenset(retry.retryable_codes),
        final_codes=frozenset(retry.final_codes),
        when=compile_expression(step.when, step_ids=step_ids, condition=True) if step.when else None,
        input=compile_expression(step.input, step_ids=step_ids) if step.input else None,
        read_only=step.read_only,
        active=step.active if step.HasField("active") else True,
        requires=requires,
        ancestors=ancestors,
        descendants=descendants,
    )


def _or_default(
    message: definition_pb2.StepDefinition | definition_pb2.RetryPolicy, field: str, default_ms: int
) -> int:
    return milliseconds(getattr(message, field)) if message.HasField(field) else default_ms  # type: ignore[arg-type]


def milliseconds(duration: Duration) -> int:
    """The duration in whole milliseconds, rounded down."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000


@lru_cache(maxsize=1024)
def _parse_version(version: str) -> semver.Version:
    return semver.Version.parse(version)


def version_key(version: str) -> tuple[semver.Version, str]:
    """A key that sorts semantic versions by precedence; the text decides between those that differ in build only."""
    return _parse_version(version), version


def is_prerelease(version: str) -> bool:
    """Whether StartSaga takes this version only when it is named."""
    return _parse_version(version).prerelease is not None


def highest_active(versions: Iterable[tuple[str, bool]]) -> str | None:
    """The version that StartSaga takes where none is named: the highest active one that is no pre-release, or None.

    `versions` are pairs (version, active).
    """
    candidates = (version for version, active in versions if active and not is_prerelease(version))
    return max(candidates, key=version_key, default=None)
