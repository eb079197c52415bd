"""The schema as text, made from the catalogs: two databases with the same text have the same schema.

`python -m sagad_server.storage.postgres.schema DSN` prints it.
"""

import asyncio
import sys

from sagad_server.storage.postgres.connect import Connection, close, connect
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.settings import PostgresSettings

HEADER = "-- The schema that the migrations give. Made from a database; a test compares the two."


async def describe_schema(connection: Connection) -> str:
    """Tables with their columns and constraints, indexes and comments, each in order of its name."""
    sql = load_queries("schema")
    lines = [HEADER]
    for table in await connection.fetch(sql["tables"]):
        columns = await connection.fetch(sql["columns"], table["oid"])
        constraints = await connection.fetch(sql["constraints"], table["oid"])
        parts = [row["definition"] for row in (*columns, *constraints)]
        body = ",\n".join(f"    {part}" for part in parts)
        options = f" WITH ({', '.join(sorted(table['options']))})" if table["options"] else ""
        lines += ["", f"CREATE TABLE sagad.{table['name']} (", body, f"){options};"]
        lines += [f"{row['definition']};" for row in await connection.fetch(sql["indexes"], table["oid"])]
        lines += [f"{row['definition']};" for row in await connection.fetch(sql["comments"], table["oid"])]
    return "\n".join(lines) + "\n"


async def _main(dsn: str) -> None:
    connection = await connect(PostgresSettings(dsn=dsn))
    try:
        sys.stdout.write(await describe_schema(connection))
    finally:
        await close(connection)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
