"""Copies of blobs: which are on one machine only, and what a cell asks to compare rows with files."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The name of the host that alone has the file; NULL once both cells have it, and in a cell of its own.
TABLES = """
ALTER TABLE records.blob
    ADD COLUMN single_on text CHECK (single_on ~ '^[a-z][a-z0-9-]{0,30}$');
CREATE INDEX blob_single ON records.blob (single_on) WHERE single_on IS NOT NULL;
CREATE INDEX blob_created ON records.blob (created_at);
CREATE INDEX blob_erased ON records.blob (erased_at) WHERE erased_at IS NOT NULL;
"""

# For the custodian of each cell, who compares every row with its folder and may see no record.
FUNCTIONS = """
CREATE FUNCTION records.blobs_changed(host text, seconds double precision, most integer)
RETURNS TABLE (name text, stored_size bigint, erased boolean, single_on text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    (SELECT b.name, b.stored_size, b.erased_at IS NOT NULL, b.single_on FROM records.blob AS b
     WHERE b.created_at > now() - make_interval(secs => seconds) LIMIT most)
    UNION
    (SELECT b.name, b.stored_size, true, b.single_on FROM records.blob AS b
     WHERE b.erased_at > now() - make_interval(secs => seconds) LIMIT most)
    UNION
    (SELECT b.name, b.stored_size, b.erased_at IS NOT NULL, b.single_on FROM records.blob AS b
     WHERE b.single_on IS NOT NULL AND b.single_on <> host LIMIT most)
$$;

CREATE FUNCTION records.blobs_from(beyond text, most integer)
RETURNS TABLE (name text, stored_size bigint, erased boolean, single_on text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT b.name, b.stored_size, b.erased_at IS NOT NULL, b.single_on FROM records.blob AS b
    WHERE b.name > beyond ORDER BY b.name LIMIT most
$$;

-- `host` has these as well now: whichever other host was alone with them no longer is.
CREATE FUNCTION records.blobs_copied(names text[], host text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    UPDATE records.blob AS b SET single_on = NULL WHERE b.name = ANY (names) AND b.single_on <> host
$$;

CREATE FUNCTION records.blobs_single() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT count(*) FROM records.blob AS b WHERE b.single_on IS NOT NULL
$$;

REVOKE ALL ON FUNCTION records.blobs_changed(text, double precision, integer),
    records.blobs_from(text, integer), records.blobs_copied(text[], text), records.blobs_single()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION records.blobs_changed(text, double precision, integer),
    records.blobs_from(text, integer), records.blobs_copied(text[], text), records.blobs_single()
    TO medrec_app;
"""


def upgrade() -> None:
    """Add the mark of single blobs and the functions of reconciliation."""
    for statements in (TABLES, FUNCTIONS):
        op.execute(statements)


def downgrade() -> None:
    """There is no way back: restore a backup."""
    raise NotImplementedError
