"""The metrics of limits. docs/reference/metrics.md lists them."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from sagad_server.guard.limit import Kind


class LimitMetrics:
    """A `LimitObserver`. Registered in any case, so that they can be asked for before there is a limit."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._limited = Counter(
            "sagad_rate_limited", "Times that a limit refused or delayed something.", ["kind"], registry=registry
        )
        self._leases = Counter("sagad_rate_limit_leases", "Answers of Redis.", registry=registry)
        self._away = Gauge("sagad_redis_away", "1 while Redis does not answer.", registry=registry)

    def limited(self, kind: Kind) -> None:
        self._limited.labels(kind.value).inc()

    def leased(self) -> None:
        self._leases.inc()

    def away(self, away: bool) -> None:
        self._away.set(away)
