"""${message}."""

from __future__ import annotations

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Raw SQL through `op.execute`; grants `medrec_app` exactly what it needs."""
    op.execute("")


def downgrade() -> None:
    """There is no way back: restore a backup."""
    raise NotImplementedError
