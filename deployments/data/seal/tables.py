"""Which columns of the database hold keys that a site key wraps. Whoever seals a column adds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table with the columns `key_id` and `wrapped_key`, both NULL where nothing is sealed."""

    schema: str
    table: str

    @property
    def name(self) -> str:
        """`schema.table`, as people write it."""
        return f"{self.schema}.{self.table}"

    @property
    def identifier(self) -> sql.Identifier:
        """The same, quoted for a statement."""
        return sql.Identifier(self.schema, self.table)

    def leaves(self, connection: psycopg.Connection[Any]) -> list[SealedTable]:
        """The tables that hold its rows: its partitions, or itself."""
        rows = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_partition_tree(to_regclass(%s)) AS t"
            " JOIN pg_class AS c ON c.oid = t.relid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE t.isleaf ORDER BY 1, 2",
            (self.name,),
        ).fetchall()
        return [SealedTable(schema, table) for schema, table in rows] or [self]


SEALED_TABLES = (
    SealedTable("records", "resource"),
    SealedTable("records", "history"),
    SealedTable("records", "break_glass"),
    SealedTable("records", "break_glass_review"),
    SealedTable("records", "blob"),
    SealedTable("interactions", "short_lived"),
    SealedTable("alerts", "alert"),
    SealedTable("emergency", "note"),
    SealedTable("emergency", "vital"),
)
