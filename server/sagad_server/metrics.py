"""Prometheus metrics of a node. docs/reference/metrics.md lists them."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sagad_server.domain.draft import Event
from sagad_server.domain.inputs import Failed, Outcome
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import EventCause, SagaState
from sagad_server.engine.ports import Call
from sagad_server.engine.requests import describe
from sagad_server.storage.rows import Key
from sagad_server.transport.state import LinkState

log = structlog.get_logger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """What the engine and the services tell, counted. An `Observer` of the engine."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        new = self.registry
        self.started = Counter("sagad_sagas_started", "Sagas started.", ["definition"], registry=new)
        self.ended = Counter("sagad_sagas_ended", "Sagas ended, by end state.", ["definition", "state"], registry=new)
        self.duration = Histogram(
            "sagad_saga_duration_seconds",
            "From create_time to the end.",
            ["definition", "state"],
            buckets=_SECONDS,
            registry=new,
        )
        self.parked = Counter("sagad_sagas_parked", "Times that a saga was parked.", ["definition"], registry=new)
        self.attempts = Counter(
            "sagad_step_attempts",
            "Ended calls of participants.",
            ["participant", "direction", "outcome", "category"],
            registry=new,
        )
        self.attempt_seconds = Histogram(
            "sagad_step_attempt_seconds",
            "Time of a call of a participant.",
            ["participant", "direction"],
            buckets=_SECONDS[:15],
            registry=new,
        )
        self.transitions = Counter("sagad_transitions", "Durable transitions of sagas.", registry=new)
        self.commits = Counter("sagad_commits", "Commits of the writer.", registry=new)
        self.batch = Histogram("sagad_commit_batch_size", "Transitions in a commit.", buckets=_BATCH, registry=new)
        self.commit_seconds = Histogram(
            "sagad_commit_seconds", "Time of a commit.", buckets=_SECONDS[:15], registry=new
        )
        self.commit_failures = Counter(
            "sagad_commit_failures", "Commits that did not succeed at once.", ["reason"], registry=new
        )
        self.incidents = Counter("sagad_incidents", "Sagas parked because sagad failed on their data.", registry=new)
        self.starts_refused = Counter(
            "sagad_starts_refused", "New sagas that were not taken on.", ["reason"], registry=new
        )
        self.requests = Counter("sagad_requests", "Requests to sagad.", ["method", "code"], registry=new)
        self.request_seconds = Histogram(
            "sagad_request_seconds", "Time of a request to sagad.", ["method"], buckets=_SECONDS[:15], registry=new
        )
        self.sagas = Gauge("sagad_sagas", "Sagas in the database that have not ended.", ["state"], registry=new)
        self.queue = Gauge(
            "sagad_participant_queue", "Calls of a participant, by state.", ["participant", "state"], registry=new
        )
        self.breaker = Gauge(
            "sagad_participant_breaker", "1 closed, 2 open, 3 half open.", ["participant"], registry=new
        )
        self.sessions = Gauge("sagad_participant_session", "1 if calls go by a session.", ["participant"], registry=new)
        self._started = lru_cache(maxsize=4096)(lambda definition: self.started.labels(definition))
        self._ended = lru_cache(maxsize=4096)(lambda *labels: self.ended.labels(*labels))
        self._duration = lru_cache(maxsize=4096)(lambda *labels: self.duration.labels(*labels))
        self._attempts = lru_cache(maxsize=4096)(lambda *labels: self.attempts.labels(*labels))
        self._attempt_seconds = lru_cache(maxsize=4096)(lambda *labels: self.attempt_seconds.labels(*labels))
        self._requests = lru_cache(maxsize=4096)(lambda *labels: self.requests.labels(*labels))
        self._request_seconds = lru_cache(maxsize=4096)(lambda method: self.request_seconds.labels(method))
        self.ended_by_state: dict[int, int] = {}
        self.started_count = 0
        self.commit_count = 0
        self.transition_count = 0

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def watch_participants(self, states: Callable[[], Mapping[str, LinkState]]) -> None:
        """How the calls of each participant go, read when it is asked for."""

        def read(name: str, field: str) -> float:
            return float(getattr(states()[name], field))

        for name in states():
            self.queue.labels(name, "in_flight").set_function(partial(read, name, "in_flight"))
            self.queue.labels(name, "waiting").set_function(partial(read, name, "queued"))
            self.breaker.labels(name).set_function(partial(read, name, "breaker"))
            self.sessions.labels(name).set_function(partial(read, name, "session"))

    def transition(self, saga: Saga, event: Event, age_s: float) -> None:
        definition = saga.definition.definition_id
        if event.cause is EventCause.STARTED:
            self.started_count += 1
            self._started(definition).inc()
        if saga.ended:
            self.ended_by_state[saga.state] = self.ended_by_state.get(saga.state, 0) + 1
            self._ended(definition, saga.state.name).inc()
            self._duration(definition, saga.state.name).observe(age_s)
        elif saga.state is SagaState.PARKED:
            self.parked.labels(definition).inc()
            log.warning(
                "saga parked",
                namespace=saga.namespace,
                saga_id=saga.saga_id,
                reasons=[s.parking_reason.name for s in saga.steps if s.parking_reason is not None],
            )

    def attempt_ended(self, call: Call, outcome: Outcome, seconds: float) -> None:
        category = outcome.failure.category.name if isinstance(outcome, Failed) else ""
        direction = call.direction.name
        self._attempts(call.participant, direction, describe(outcome), category).inc()
        self._attempt_seconds(call.participant, direction).observe(seconds)
        if isinstance(outcome, Failed):
            log.info(
                "attempt failed",
                namespace=call.key[0],
                saga_id=call.key[1],
                participant=call.participant,
                direction=direction,
                attempt=call.attempt,
                reason=outcome.failure.reason,
                ambiguous=outcome.ambiguous,
            )

    def committed(self, writes: int, seconds: float) -> None:
        self.commit_count += 1
        self.transition_count += writes
        self.commits.inc()
        self.transitions.inc(writes)
        self.batch.observe(writes)
        self.commit_seconds.observe(seconds)

    def commit_failed(self, reason: str) -> None:
        self.commit_failures.labels(reason).inc()
        log.warning("commit did not succeed at once", reason=reason)

    def incident(self, key: Key, incident_id: str, error: BaseException) -> None:
        self.incidents.inc()
        log.error("incident", namespace=key[0], saga_id=key[1], incident_id=incident_id, exc_info=error)

    def start_refused(self, reason: str) -> None:
        self.starts_refused.labels(reason).inc()

    def on_request(self, method: str, code: str, seconds: float | None) -> None:
        self._requests(method, code).inc()
        if seconds is not None:
            self._request_seconds(method).observe(seconds)
