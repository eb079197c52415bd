"""What is measured: kinds of load."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mode:
    """So many clients, each of which starts a saga, waits for its end, and starts the next."""

    clients: int
    refuse: bool = False
    """The third step is refused, so that the saga is compensated."""
    sessions: bool = False
    """The participant takes its calls in batches on one stream."""
    stream: bool = False
    """All the clients' starts go by one stream."""
    graph: bool = False
    """Five steps, of which three run side by side; the floor has as many in a chain."""
    workers: int = 1
    """Processes of sagad; the floor has one."""
    watchers: int = 0
    """Each saga of sagad has the label `watcher`, one of so many values in turn."""
    resources: int = 0
    """Each saga of sagad has one of so many for itself, chosen by chance; 0: none."""

    def options(self) -> list[str]:
        """As bench.load takes them."""
        options = ["--clients", str(self.clients), "--definition-id", self.definition_id]
        options += ["--watchers", str(self.watchers), "--resources", str(self.resources)]
        return [*options, *["--stream"] * self.stream]

    @property
    def definition_id(self) -> str:
        if self.resources:
            return "bench-locked"
        return "bench-refused" if self.refuse else "bench-graph" if self.graph else "bench"


MODES = {
    "lone": Mode(clients=1),
    "unary-64": Mode(clients=64),
    "unary-256": Mode(clients=256),
    "compensated-64": Mode(clients=64, refuse=True),
    "parallel-64": Mode(clients=64, graph=True),
    "workers-2": Mode(clients=64, workers=2),
    "session-64": Mode(clients=64, sessions=True),
    "session-256": Mode(clients=256, sessions=True),
    "stream-2000": Mode(clients=2000, sessions=True, stream=True),
}
