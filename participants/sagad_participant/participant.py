"""A participant: named actions and compensations over one barrier."""

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sagad_participant.barrier import Barrier
from sagad_participant.calls import Action, Compensation
from sagad_participant.errors import BadAnswer, UnknownHandler
from sagad_participant.outcomes import Refused
from sagad_participant.rows import Kind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,99}\Z")
_MARK = "__sagad_handler__"

Handler = Callable[[Any], Awaitable[object]]
BatchHandler = Callable[[Sequence[Any]], Awaitable[Sequence[object]]]
_ActionBatch = TypeVar("_ActionBatch", bound=Callable[[Sequence[Action]], Awaitable[Sequence[object]]])
_CompensationBatch = TypeVar(
    "_CompensationBatch", bound=Callable[[Sequence[Compensation]], Awaitable[Sequence[object]]]
)
_ActionHandler = TypeVar("_ActionHandler", bound=Callable[[Action], Awaitable[object]])
_CompensationHandler = TypeVar("_CompensationHandler", bound=Callable[[Compensation], Awaitable[object]])
_Method = TypeVar("_Method", bound=Callable[[Any, Any], Awaitable[object]])


@dataclass(frozen=True, slots=True)
class _Mark:
    kind: Kind
    name: str


def action(name: str) -> Callable[[_Method], _Method]:
    """Marks a method as the action `name`, for Participant.register."""
    return _marker(_Mark(Kind.ACTION, name))


def compensation(name: str) -> Callable[[_Method], _Method]:
    """Marks a method as the compensation `name`, for Participant.register."""
    return _marker(_Mark(Kind.COMPENSATION, name))


class Participant:
    """A service that takes part in sagas. Give its handlers here, then hand it to `serve`.

        payment = Participant("payment", barrier=PostgresBarrier(pool))

        @payment.action("charge_card")
        async def charge(call: Action) -> dict[str, object]: ...

        @payment.compensation("refund_card")
        async def refund(call: Compensation) -> None: ...

    A handler is an async function of the call. It returns its output (JSON, bytes or None) or Pending, or raises
    Refused. It works in one transaction with the barrier, on `call.connection`: for each key it is committed at most
    once. Any other exception is rolled back, logged, and answered as ambiguous, so that the coordinator tries again.

    A handler of batches (`action_batch`, `compensation_batch`) takes up to 64 calls at once, all on one connection, and
    returns as many results in their order; a Refused among them is returned, not raised, and its call must have done
    nothing. Calls come together on a session, with a barrier that takes several claims at once, as PostgresBarrier
    does; else one by one. Where the handler raises, or one of the calls is to be forgotten (a refusal that is
    retryable, or of a compensation), all is rolled back and each call is run again by itself, so that one bad call does
    not fail the others.

    name: 2-100 characters of a-z, A-Z, 0-9, '.', '_', '-', the first a letter or digit; so are the handlers' names.
    Raises ValueError for a malformed or repeated name, TypeError for a handler that is not async.
    """

    def __init__(self, name: str, *, barrier: Barrier) -> None:
        self.name = _checked(name, "a participant")
        self.barrier = barrier
        self._handlers: dict[Kind, dict[str, Handler]] = {Kind.ACTION: {}, Kind.COMPENSATION: {}}
        self._batches: dict[Kind, dict[str, BatchHandler]] = {Kind.ACTION: {}, Kind.COMPENSATION: {}}

    def action(self, name: str) -> Callable[[_ActionHandler], _ActionHandler]:
        """Registers the decorated function as the action `name`."""

        def register(handler: _ActionHandler) -> _ActionHandler:
            self._add(Kind.ACTION, name, handler)
            return handler

        return register

    def compensation(self, name: str) -> Callable[[_CompensationHandler], _CompensationHandler]:
        """Registers the decorated function as the compensation `name`."""

        def register(handler: _CompensationHandler) -> _CompensationHandler:
            self._add(Kind.COMPENSATION, name, handler)
            return handler

        return register

    def action_batch(self, name: str) -> Callable[[_ActionBatch], _ActionBatch]:
        """Registers the decorated function as the action `name`, for many calls at once."""

        def register(handler: _ActionBatch) -> _ActionBatch:
            self._add_batch(Kind.ACTION, name, handler)
            return handler

        return register

    def compensation_batch(self, name: str) -> Callable[[_CompensationBatch], _CompensationBatch]:
        """Registers the decorated function as the compensation `name`, for many calls at once."""

        def register(handler: _CompensationBatch) -> _CompensationBatch:
            self._add_batch(Kind.COMPENSATION, name, handler)
            return handler

        return register

    def register(self, handlers: object) -> None:
        """Registers the methods of an object that `action` and `compensation` have marked.

        Raises ValueError if there are none.
        """
        marked = [
            (mark, getattr(handlers, attribute))
            for attribute, member in inspect.getmembers_static(type(handlers))
            if (mark := getattr(member, _MARK, None)) is not None
        ]
        if not marked:
            raise ValueError(f"{type(handlers).__name__} has no methods marked with @action or @compensation")
        for mark, method in marked:
            self._add(mark.kind, mark.name, method)

    def names(self, kind: Kind) -> list[str]:
        """The names of the registered handlers, sorted."""
        return sorted(self._handlers[kind])

    def handler(self, kind: Kind, name: str) -> Handler:
        """The registered handler. Raises UnknownHandler, which names those there are."""
        try:
            return self._handlers[kind][name]
        except KeyError:
            known = ", ".join(self.names(kind)) or "none"
            raise UnknownHandler(
                f"{self.name} has no {kind.name.lower()} {name[:100]!r}; its {kind.name.lower()}s are: {known}"
            ) from None

    def batch_handler(self, kind: Kind, name: str) -> BatchHandler | None:
        """The handler that takes many calls of `name` at once, if that is how it was registered."""
        return self._batches[kind].get(name)

    def _add_batch(self, kind: Kind, name: str, handler: BatchHandler) -> None:
        self._add(kind, name, handler)
        self._batches[kind][name] = handler
        self._handlers[kind][name] = _one_by_one(handler)

    def _add(self, kind: Kind, name: str, handler: Handler) -> None:
        _checked(name, f"an {kind.name.lower()}" if kind is Kind.ACTION else f"a {kind.name.lower()}")
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"the handler of {name!r} must be an async function")
        if name in self._handlers[kind]:
            raise ValueError(f"{self.name} has two handlers for the {kind.name.lower()} {name!r}")
        self._handlers[kind][name] = handler


def _one_by_one(handler: BatchHandler) -> Handler:
    async def handle(call: Any) -> object:
        (result,) = checked_results(await handler((call,)), 1)
        if isinstance(result, Refused):
            raise result
        return result

    return handle


def checked_results(results: Sequence[object], calls: int) -> Sequence[object]:
    """A batch handler's results, one for each call. Raises BadAnswer."""
    if not isinstance(results, Sequence) or len(results) != calls:
        found = f"{len(results)}" if isinstance(results, Sequence) else type(results).__name__
        raise BadAnswer(f"a handler of batches must return a sequence of {calls} results, not {found}")
    return results


def _marker(mark: _Mark) -> Callable[[_Method], _Method]:
    def decorate(method: _Method) -> _Method:
        setattr(method, _MARK, mark)
        return method

    return decorate


def _checked(name: str, what: str) -> str:
    if not _NAME.match(name):
        raise ValueError(
            f"{name!r} cannot name {what}: 2-100 of a-z, A-Z, 0-9, '.', '_', '-', the first a letter or digit"
        )
    return name
