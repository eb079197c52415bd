"""The projection's metrics. docs/reference/metrics.md lists them."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ProjectionMetrics:
    """What a process has projected, and how far it is behind."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter("sagad_projection_events", "Events read and done with.", registry=registry)
        self.documents = Counter("sagad_projection_documents", "Documents written.", registry=registry)
        self.failures = Counter(
            "sagad_projection_failures", "Times that it had to start again.", ["system"], registry=registry
        )
        self.lag_events = Gauge(
            "sagad_projection_lag_events", "Records not projected yet.", ["partition"], registry=registry
        )
