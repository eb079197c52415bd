"""What calls of StartSaga have to pass: a node that is overloaded refuses them unread."""

from collections.abc import Callable

import grpc

from sagad_server.api.errors import Refusal, refusal
from sagad_server.api.interceptor import RequestObserver
from sagad_server.engine.admission import Admission, arrival

START_SAGA = "sagad.v1.SagaService/StartSaga"


class StartGate:
    """The gate of one node. Repeats of what it has started are refused too: who reads them to tell has no time left."""

    def __init__(self, admission: Admission, observer: RequestObserver) -> None:
        self._admission = admission
        self._observer = observer
        self._refusals: dict[int | None, Refusal] = {}
        """By the time to come again, in milliseconds: between one and two thousand."""

    def refusal(self) -> Refusal | None:
        error = self._admission.overload()
        if error is None:
            return None
        self._observer.on_request(START_SAGA, grpc.StatusCode.RESOURCE_EXHAUSTED.name, None)
        known = self._refusals.get(error.retry_after_ms)
        if known is None:
            known = self._refusals[error.retry_after_ms] = refusal(error)
        return known

    def enter(self) -> Callable[[object], None]:
        entered = self._admission.enter()
        arrival.set(entered)
        return entered.call_ended
