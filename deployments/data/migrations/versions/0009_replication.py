"""How far each standby is behind, as PostgreSQL's primary measures it; for the application's role."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# An idle standby has no lag to tell (null): what was written last has arrived long ago.
FUNCTION = """
CREATE FUNCTION public.medrec_replication()
RETURNS TABLE (standby text, synchronous boolean, lag_ms double precision, lag_bytes bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT r.application_name,
        r.sync_state IN ('sync', 'quorum'),
        coalesce(extract(epoch FROM greatest(r.write_lag, r.flush_lag)) * 1000, 0),
        coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), r.flush_lsn), 0)::bigint
    FROM pg_stat_replication AS r
    WHERE NOT pg_is_in_recovery() AND r.state = 'streaming'
      AND EXISTS (
          SELECT 1 FROM pg_replication_slots AS s
          WHERE s.active_pid = r.pid AND s.slot_type = 'physical'
      )
$$;
REVOKE ALL ON FUNCTION public.medrec_replication() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.medrec_replication() TO medrec_app;
"""


def upgrade() -> None:
    """Make the function."""
    op.execute(FUNCTION)


def downgrade() -> None:
    """Refused, as every way back is."""
    raise NotImplementedError("records are not migrated backwards")
