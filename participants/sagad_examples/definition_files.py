"""The definitions that the examples take part in, as files for `sagactl definition apply`."""

from pathlib import Path


def definition_files() -> list[Path]:
    """order.yaml and order-pivot.yaml."""
    return sorted((Path(__file__).parent / "definitions").glob("*.yaml"))
