"""The oldest code that may work on this schema: two cells run different versions during an upgrade."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# One row. A migration that older code cannot live with writes its own revision here; one that only
# adds leaves it alone, and a cell that is upgraded later can still be started meanwhile.
TABLE = """
CREATE TABLE public.medrec_least_code (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision text    NOT NULL
);
INSERT INTO public.medrec_least_code (revision) VALUES ('0011');
"""


def upgrade() -> None:
    """Make the table. Code before it refuses every newer schema, so it is the first that can say."""
    op.execute(TABLE)


def downgrade() -> None:
    """Refused, as every way back is."""
    raise NotImplementedError("records are not migrated backwards")
