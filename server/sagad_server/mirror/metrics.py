"""The mirror's metrics. docs/reference/metrics.md lists them."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class MirrorMetrics:
    """What a process has relayed, and how far its lanes are behind. Registered in any case, so that they can be asked
    for before there is a mirror."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter("sagad_mirror_events", "Events relayed.", registry=registry)
        self.transactions = Counter("sagad_mirror_transactions", "Transactions committed in Kafka.", registry=registry)
        self.aborts = Counter("sagad_mirror_aborts", "Sessions with Kafka given up.", ["reason"], registry=registry)
        self.lag_events = Gauge(
            "sagad_mirror_lag_events", "Events not known to be relayed.", ["lane"], registry=registry
        )
        self.lag_seconds = Gauge(
            "sagad_mirror_lag_seconds", "Age of the oldest event not known to be relayed.", ["lane"], registry=registry
        )
        self.lanes = Gauge("sagad_mirror_lanes", "Lanes that this process relays.", registry=registry)
        self.diverged = Gauge("sagad_mirror_diverged", "Lanes that stand still.", registry=registry)
        self.oldest_transaction = Gauge(
            "sagad_mirror_oldest_transaction_seconds", "Age of PostgreSQL's oldest transaction.", registry=registry
        )
