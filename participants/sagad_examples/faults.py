"""The switch that makes an example fail on purpose."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sagad_participant import Action, Compensation

logger = logging.getLogger(__name__)

LABEL = "example-fault"
_SYNTAX = re.compile(
    r"(?P<target>[a-z_]+)=(?P<mode>[a-z]+)(?::(?:(?P<first>[1-9][0-9]*)|every=(?P<every>[1-9][0-9]*)))?\Z"
)


class Mode(StrEnum):
    """How a call fails."""

    REFUSE = "refuse"
    """It is refused for good."""
    TIMEOUT = "timeout"
    """It has no effect, and no answer within the caller's time."""
    LATE = "late"
    """It has its effect, and no answer within the caller's time."""
    DIE = "die"
    """It has its effect, and the process dies before the answer."""
    PENDING = "pending"
    """It is answered with pending, and done by the worker. For actions only."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Written TARGET=MODE, TARGET=MODE:N (only the first N calls) or TARGET=MODE:every=N (every Nth call).

    TARGET is a participant, for all its actions, or the name of one action or compensation. In a saga's label, N counts
    the attempts of the step.
    """

    target: str
    mode: Mode
    first: int | None = None
    every: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Raises ValueError for what is not written like that."""
        match = _SYNTAX.match(text)
        if match is None or match["mode"] not in list(Mode):
            modes = ", ".join(Mode)
            raise ValueError(
                f"{text!r} is no fault: write TARGET=MODE, TARGET=MODE:N or TARGET=MODE:every=N; modes: {modes}"
            )
        first, every = (number and int(number) for number in match.group("first", "every"))
        return cls(match["target"], Mode(match["mode"]), first or None, every or None)

    def hits(self, count: int) -> bool:
        """Whether the call with this number, from 1, is one of those meant."""
        if self.first is not None:
            return count <= self.first
        return self.every is None or count % self.every == 0


class Faults:
    """Decides for each call whether it fails: by the command line for all sagas, by its label for one."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = faults
        self._counts: Counter[Fault] = Counter()
        self._after_answer: dict[str, Mode] = {}

    def of(self, participant: str, call: Action | Compensation) -> Mode | None:
        """The fault of a call that is about to have its effect. DIE and LATE strike when its answer is ready."""
        mode = self._by_label(participant, call) or self._by_switch(participant, call)
        if mode in (Mode.DIE, Mode.LATE):
            self._after_answer[call.idempotency_key] = mode
        return mode

    def after_answer(self, idempotency_key: str) -> Mode | None:
        """The fault that strikes a call now that its effect is committed."""
        return self._after_answer.pop(idempotency_key, None)

    def _by_label(self, participant: str, call: Action | Compensation) -> Mode | None:
        if LABEL not in call.labels:
            return None
        try:
            fault = Fault.parse(call.labels[LABEL])
        except ValueError as error:
            logger.warning("saga %s, label %s: %s", call.saga_id, LABEL, error)
            return None
        return fault.mode if _meant(fault, participant, call) and fault.hits(call.attempt) else None

    def _by_switch(self, participant: str, call: Action | Compensation) -> Mode | None:
        for fault in self._faults:
            if _meant(fault, participant, call):
                self._counts[fault] += 1
                if fault.hits(self._counts[fault]):
                    return fault.mode
        return None


def _meant(fault: Fault, participant: str, call: Action | Compensation) -> bool:
    if isinstance(call, Action):
        return fault.target in (participant, call.action)
    return fault.target == call.compensation
