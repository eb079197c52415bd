"""The rules that a definition must keep to be stored."""

from collections.abc import Collection

from sagad.v1 import definition_pb2
from sagad_server.domain import graph
from sagad_server.domain.checks import (
    DAY_MS,
    HOUR_MS,
    SAGA_TIMEOUT_MS,
    SECOND_MS,
    Bounds,
    Checker,
    ValidationLimits,
    shown,
)
from sagad_server.domain.definition import DEFAULT_INITIAL_BACKOFF_MS, milliseconds
from sagad_server.domain.errors import Violation
from sagad_server.domain.expressions import Expression, ExpressionError, compile_expression
from sagad_server.domain.locks import MAX_LOCKS
from sagad_server.domain.states import StepKind

GRPC_CODES = frozenset(
    {
        "ABORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN",
    }
)
_MONTH_MS = Bounds(SECOND_MS, 30 * DAY_MS)


def definition_violations(
    message: definition_pb2.Definition, limits: ValidationLimits, *, participants: Collection[str]
) -> list[Violation]:
    """Every fault of the definition, by field path such as `definition.steps[2].timeout`; without any it compiles."""
    return _DefinitionChecker(message, limits, participants).run()


class _DefinitionChecker(Checker):
    def __init__(
        self, message: definition_pb2.Definition, limits: ValidationLimits, participants: Collection[str]
    ) -> None:
        super().__init__(limits)
        self._message = message
        self._participants = participants
        self._step_ids = tuple(step.step_id for step in message.steps)

    def run(self) -> list[Violation]:
        message, limits = self._message, self.limits
        self.definition_id("definition.definition_id", message.definition_id)
        self.version("definition.version", message.version)
        self.text("definition.name", message.name, limits.definition_name)
        self.text("definition.description", message.description, limits.definition_description)
        if message.HasField("timeout"):
            self.duration("definition.timeout", message.timeout, SAGA_TIMEOUT_MS)
        count = Bounds(1, limits.max_steps_per_definition)
        if len(message.steps) not in count:
            self.fail("definition.steps", f"has {len(message.steps)} steps; {count} are allowed")
            return self.violations
        for i, step in enumerate(message.steps):
            self._step(f"definition.steps[{i}]", step)
        self._graph()
        self._locks()
        return self.violations

    def _step(self, path: str, step: definition_pb2.StepDefinition) -> None:
        limits = self.limits
        self.step_id(f"{path}.step_id", step.step_id)
        self.text(f"{path}.name", step.name, limits.step_name)
        self.text(f"{path}.description", step.description, limits.step_description)
        self.one_of(f"{path}.participant", step.participant, self._participants, "participants")
        self.text(f"{path}.action", step.action, limits.action)
        self._kind(path, step)
        if step.HasField("max_retries"):
            self.number(f"{path}.max_retries", step.max_retries, limits.max_retries)
        if step.HasField("timeout"):
            self.duration(f"{path}.timeout", step.timeout, limits.step_timeout_ms)
        if step.HasField("completion_timeout"):
            self.duration(f"{path}.completion_timeout", step.completion_timeout, _MONTH_MS)
        self._retry(f"{path}.retry", step.retry)

    def _kind(self, path: str, step: definition_pb2.StepDefinition) -> None:
        kind = step.kind or StepKind.COMPENSATABLE
        if kind not in list(StepKind):
            self.fail(f"{path}.kind", f"is {kind}, which is no kind of step")
        elif kind != StepKind.COMPENSATABLE and step.compensation:
            self.fail(f"{path}.compensation", f"a {StepKind(kind).name} step is never undone: leave it empty")
        elif step.read_only and step.compensation:
            self.fail(f"{path}.compensation", "a read_only step has nothing to undo: leave it empty")
        elif kind == StepKind.PIVOT and step.read_only:
            self.fail(f"{path}.read_only", "a pivot is the point of no return: a step that changes nothing is none")
        elif kind == StepKind.COMPENSATABLE and not step.read_only:
            if step.compensation:
                self.text(f"{path}.compensation", step.compensation, self.limits.compensation)
            else:
                self.fail(f"{path}.compensation", "is required; a step that changes nothing says read_only: true")

    def _retry(self, path: str, retry: definition_pb2.RetryPolicy) -> None:
        initial_ms = DEFAULT_INITIAL_BACKOFF_MS
        if retry.HasField("initial_backoff") and self.duration(
            f"{path}.initial_backoff", retry.initial_backoff, Bounds(1, HOUR_MS)
        ):
            initial_ms = milliseconds(retry.initial_backoff)
        if retry.HasField("max_backoff"):
            self.duration(f"{path}.max_backoff", retry.max_backoff, Bounds(initial_ms, DAY_MS))
        if retry.multiplier != 0:
            self.number(f"{path}.multiplier", retry.multiplier, Bounds(1, 10))
        if retry.HasField("retry_for"):
            self.duration(f"{path}.retry_for", retry.retry_for, _MONTH_MS)
        seen: set[str] = set()
        for field, codes in (("retryable_codes", retry.retryable_codes), ("final_codes", retry.final_codes)):
            for i, code in enumerate(codes):
                if self.one_of(f"{path}.{field}[{i}]", code, GRPC_CODES, "codes") and code in seen:
                    self.fail(f"{path}.{field}[{i}]", f"names {code} again; a code stands once in the two lists")
                seen.add(code)

    def _graph(self) -> None:
        duplicates = self._duplicate_steps()
        unknown = [i for i, step in enumerate(self._message.steps) if not self._depends_on(i, step)]
        ancestors = None
        if not duplicates and not unknown:
            requires = graph.direct_dependencies(self._message.steps)
            cycle = graph.find_cycle(requires)
            if cycle:
                path = " -> ".join(self._step_ids[i] for i in [*cycle, cycle[0]])
                self.fail(f"definition.steps[{cycle[0]}].depends_on", f"makes a cycle: {path}")
            else:
                ancestors = graph.ancestors(requires)
        self._pivot(ancestors)
        for i, step in enumerate(self._message.steps):
            self._expression(f"definition.steps[{i}].when", i, step.when, ancestors, condition=True)
            self._expression(f"definition.steps[{i}].input", i, step.input, ancestors)

    def _duplicate_steps(self) -> bool:
        first: dict[str, int] = {}
        for i, step_id in enumerate(self._step_ids):
            if first.setdefault(step_id, i) != i and step_id:
                self.fail(f"definition.steps[{i}].step_id", f"{shown(step_id)} is taken by steps[{first[step_id]}]")
        return len(first) < len(self._step_ids)

    def _depends_on(self, index: int, step: definition_pb2.StepDefinition) -> bool:
        right = True
        seen: set[str] = set()
        for j, name in enumerate(step.depends_on):
            field = f"definition.steps[{index}].depends_on[{j}]"
            if not self.one_of(field, name, self._step_ids, "steps"):
                right = False
            elif name in seen:
                self.fail(field, f"names {shown(name)} again")
            seen.add(name)
        return right

    def _pivot(self, ancestors: list[int] | None) -> None:
        kinds = [step.kind or StepKind.COMPENSATABLE for step in self._message.steps]
        pivots = [i for i, kind in enumerate(kinds) if kind == StepKind.PIVOT]
        for i in pivots[1:]:
            self.fail(f"definition.steps[{i}].kind", f"is a second PIVOT; steps[{pivots[0]}] is one already")
        if not pivots:
            for i, kind in enumerate(kinds):
                if kind == StepKind.RETRIABLE:
                    self.fail(f"definition.steps[{i}].kind", "is RETRIABLE, which needs a PIVOT before it")
        if len(pivots) != 1 or ancestors is None:
            return
        pivot = pivots[0]
        name = shown(self._step_ids[pivot])
        for i, kind in enumerate(kinds):
            field = f"definition.steps[{i}].kind"
            if ancestors[pivot] >> i & 1:
                if kind != StepKind.COMPENSATABLE:
                    self.fail(field, f"comes before the pivot {name} and must be COMPENSATABLE")
            elif ancestors[i] >> pivot & 1:
                if kind != StepKind.RETRIABLE:
                    self.fail(field, f"comes after the pivot {name} and must be RETRIABLE")
            elif i != pivot:
                self.fail(
                    f"definition.steps[{i}].depends_on",
                    f"leaves the step beside the pivot {name}: each step must come before or after the pivot",
                )

    def _expression(
        self, field: str, index: int, source: str, ancestors: list[int] | None, *, condition: bool = False
    ) -> None:
        expression = self._compiled(field, source, condition=condition) if source else None
        if expression is None or ancestors is None:
            return
        for i, step_id in enumerate(self._step_ids):
            if step_id in expression.references and not ancestors[index] >> i & 1:
                name = self._step_ids[index]
                self.fail(field, f"reads the output of {shown(step_id)}, on which {shown(name)} does not depend")

    def _locks(self) -> None:
        locks = self._message.locks
        if len(locks) > MAX_LOCKS:
            self.fail("definition.locks", f"has {len(locks)} locks; at most {MAX_LOCKS} are allowed")
            return
        for i, source in enumerate(locks):
            field = f"definition.locks[{i}]"
            expression = self._compiled(field, source, condition=False)
            if expression is not None and expression.references:
                self.fail(field, "reads the output of a step; locks are taken before the first step: use input alone")

    def _compiled(self, field: str, source: str, *, condition: bool) -> Expression | None:
        if "\0" in source:
            self.fail(field, "holds a NUL character, which cannot be stored")
            return None
        try:
            return compile_expression(source, step_ids=self._step_ids, condition=condition)
        except ExpressionError as error:
            self.fail(field, str(error))
            return None
