"""The store on PostgreSQL, version 15 or newer."""

from sagad_server.storage.postgres.migrate import migrate
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.postgres.store import PostgresStore

__all__ = ["PostgresSettings", "PostgresStore", "migrate"]
