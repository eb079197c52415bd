"""The sections of `sagad project`. The text under a key is its line in docs/reference/configuration.md."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from sagad_server.config_sections import Section
from sagad_server.config_values import MongoUrl


class Mongo(Section):
    url: MongoUrl = SecretStr("")
    """How `sagad project` reaches MongoDB: `mongodb://USER:PASSWORD@HOST:PORT/?replicaSet=NAME`."""
    database: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,63}$")] = "sagad"
    """Database of the read model."""


class Projection(Section):
    group_id: Annotated[str, Field(min_length=1, max_length=200)] = "sagad-projection"
    """Group of Kafka's consumers that `sagad project` belongs to. A new one reads the topic from its beginning."""
    gaps: Literal["stop", "mark"] = "stop"
    """Where the topic lacks events of a saga: stop, or go on and count the saga as incomplete."""
