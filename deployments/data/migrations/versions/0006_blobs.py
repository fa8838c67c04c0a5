"""Blobs: the row of each content file, its key, and the escrow's bundles; files are no rows."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# `name` is the SHA-256 of the stored, sealed bytes; `id` is bound into them; `sha256` is that of the
# plain bytes. An erased blob keeps its row and loses its key, which makes the content unreadable.
TABLES = """
CREATE TABLE records.blob (
    name         text        PRIMARY KEY CHECK (name ~ '^[0-9a-f]{64}$'),
    id           uuid        NOT NULL UNIQUE,
    organization text        NOT NULL CHECK (organization <> ''),
    type         text        NOT NULL,
    resource     text        NOT NULL,
    version      integer     NOT NULL,
    patient      text,
    content_type text        NOT NULL,
    size         bigint      NOT NULL CHECK (size >= 0),
    stored_size  bigint      NOT NULL CHECK (stored_size > size),
    sha256       text        CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    key_id       text,
    wrapped_key  bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    erased_at    timestamptz,
    UNIQUE (organization, type, resource, version),
    CHECK ((erased_at IS NULL) = (wrapped_key IS NOT NULL)),
    CHECK ((key_id IS NULL) = (wrapped_key IS NULL) AND (sha256 IS NULL) = (key_id IS NULL))
);
CREATE INDEX blob_patient ON records.blob (organization, patient) WHERE patient IS NOT NULL;

-- The site keys sealed to the escrow's public key: opened only by enough of its holders.
CREATE TABLE records.escrow (
    number      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint text        NOT NULL,
    bundle      bytea       NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT now()
);
"""

# A blob is seen by whoever sees the version that it belongs to: history's own policy decides.
POLICIES = """
ALTER TABLE records.blob ENABLE ROW LEVEL SECURITY;
ALTER TABLE records.blob FORCE ROW LEVEL SECURITY;
CREATE POLICY visible ON records.blob FOR ALL TO medrec_app
    USING (
        organization = current_setting('medrec.organization', true)
        AND EXISTS (
            SELECT 1 FROM records.history AS h
            WHERE h.type = blob.type AND h.organization = blob.organization
              AND h.id = blob.resource AND h.version = blob.version
        )
    );
CREATE POLICY owner ON records.blob FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON records.blob TO medrec_app;
"""

# For the custodian, who must tell files without a row from files whose row it may not see.
FUNCTIONS = """
CREATE FUNCTION records.blobs_known(names text[]) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT b.name FROM records.blob AS b WHERE b.name = ANY (names) AND b.erased_at IS NULL
$$;
REVOKE ALL ON FUNCTION records.blobs_known(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION records.blobs_known(text[]) TO medrec_app;
"""


def upgrade() -> None:
    """Make the tables of blobs and escrow in the schema `records`."""
    for statements in (TABLES, POLICIES, FUNCTIONS):
        op.execute(statements)


def downgrade() -> None:
    """There is no way back: restore a backup."""
    raise NotImplementedError
