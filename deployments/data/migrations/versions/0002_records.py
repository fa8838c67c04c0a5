"""Patient records: current versions, every version, care relationships, break-glass, idempotency.

Row-level security is forced on every table: a transaction of `medrec_app` sees the organisation that
it names (`medrec.organization`) and, of patients, those that `medrec.compartment` grants: `care`
those with a care relationship of `medrec.practitioner` now, `all`, or `none`. Nothing set, nothing
seen. The owner, who migrates and rotates keys, has a policy of its own.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Spelled out, not imported: a migration stays as it was when the types are changed later.
TYPES = (
    *("Patient", "Practitioner", "Organization", "Encounter", "Condition", "AllergyIntolerance"),
    *("MedicationRequest", "MedicationStatement", "Observation", "DiagnosticReport"),
    *("DocumentReference", "Binary", "Consent", "Provenance"),
)

COLUMNS = """
    organization text        NOT NULL CHECK (organization <> ''),
    type         text        NOT NULL,
    id           text        NOT NULL CHECK (id ~ '^[A-Za-z0-9.-]{1,64}$'),
    version      integer     NOT NULL CHECK (version >= 1),
    updated_at   timestamptz NOT NULL,
    deleted      boolean     NOT NULL DEFAULT false,
    method       text        NOT NULL CHECK (method IN ('POST', 'PUT', 'DELETE')),
    patient      text,
    content      jsonb,
    sealed       bytea,
    key_id       text,
    wrapped_key  bytea,
    CHECK (deleted = (content IS NULL)),
    CHECK ((sealed IS NULL) = (key_id IS NULL) AND (sealed IS NULL) = (wrapped_key IS NULL)),
    CHECK (type <> 'Patient' OR patient = id)
"""

TABLES = f"""
CREATE SCHEMA IF NOT EXISTS records;
GRANT USAGE ON SCHEMA records TO medrec_app;

CREATE TABLE records.resource (
    {COLUMNS},
    identifiers  text[]      NOT NULL DEFAULT '{{}}',
    names        text[]      NOT NULL DEFAULT '{{}}',
    codes        text[]      NOT NULL DEFAULT '{{}}',
    categories   text[]      NOT NULL DEFAULT '{{}}',
    status       text,
    birth_date   date,
    date_from    timestamptz,
    date_to      timestamptz,
    refs         text[]      NOT NULL DEFAULT '{{}}',
    PRIMARY KEY (type, organization, id)
) PARTITION BY LIST (type);

CREATE INDEX resource_by_identifiers ON records.resource USING gin (identifiers);
CREATE INDEX resource_by_names ON records.resource USING gin (names);
CREATE INDEX resource_by_codes ON records.resource USING gin (codes);
CREATE INDEX resource_by_categories ON records.resource USING gin (categories);
CREATE INDEX resource_by_refs ON records.resource USING gin (refs);
CREATE INDEX resource_by_patient ON records.resource
    (organization, patient, date_from DESC NULLS LAST, id DESC);
CREATE INDEX resource_by_date ON records.resource
    (organization, date_from DESC NULLS LAST, id DESC);
CREATE INDEX resource_by_updated ON records.resource (organization, updated_at, id);
CREATE INDEX resource_by_status ON records.resource (organization, status, id);

-- Every version from its birth, the current one too: what the application can only add to.
CREATE TABLE records.history (
    {COLUMNS},
    PRIMARY KEY (type, organization, id, version)
);
CREATE INDEX history_by_patient ON records.history (organization, patient, type, id, version);

CREATE TABLE records.care (
    organization text        NOT NULL CHECK (organization <> ''),
    practitioner text        NOT NULL,
    patient      text        NOT NULL,
    basis        text        NOT NULL
        CHECK (basis IN ('encounter', 'general-practitioner', 'registration', 'break-glass')),
    source       text        NOT NULL,
    starts_at    timestamptz NOT NULL DEFAULT now(),
    ends_at      timestamptz,
    PRIMARY KEY (organization, practitioner, patient, basis, source)
);
CREATE INDEX care_by_source ON records.care (organization, source);
CREATE INDEX care_by_ends ON records.care (ends_at) WHERE ends_at IS NOT NULL;

CREATE TABLE records.break_glass (
    id           uuid        PRIMARY KEY,
    organization text        NOT NULL CHECK (organization <> ''),
    account      text        NOT NULL,
    practitioner text        NOT NULL,
    patient      text        NOT NULL,
    request_id   text        NOT NULL,
    sealed       bytea       NOT NULL,
    key_id       text        NOT NULL,
    wrapped_key  bytea       NOT NULL,
    granted_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);
CREATE INDEX break_glass_by_granted ON records.break_glass (organization, granted_at, id);

CREATE TABLE records.break_glass_review (
    break_glass  uuid        PRIMARY KEY REFERENCES records.break_glass (id),
    organization text        NOT NULL CHECK (organization <> ''),
    reviewer     text        NOT NULL,
    verdict      text        NOT NULL CHECK (verdict IN ('justified', 'unjustified')),
    sealed       bytea,
    key_id       text,
    wrapped_key  bytea,
    reviewed_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE records.idempotency (
    organization text        NOT NULL CHECK (organization <> ''),
    principal    text        NOT NULL,
    key          text        NOT NULL,
    request      text        NOT NULL,
    written      jsonb       NOT NULL DEFAULT '[]',
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, principal, key)
);
CREATE INDEX idempotency_by_created ON records.idempotency (created_at);
"""

# The statement's time and not the transaction's: whoever has waited for a lock must see what the
# one before it has opened meanwhile.
# `resource` and `history` are seen by the same rule; {table} is the one that it stands on.
VISIBLE = """
    organization = current_setting('medrec.organization', true)
    AND (
        type IN ('Practitioner', 'Organization')
        OR current_setting('medrec.compartment', true) = 'all'
        OR (
            current_setting('medrec.compartment', true) = 'care'
            AND EXISTS (
                SELECT 1 FROM records.care AS c
                WHERE c.organization = {table}.organization
                  AND c.practitioner = current_setting('medrec.practitioner', true)
                  AND c.patient = {table}.patient
                  AND c.starts_at <= statement_timestamp()
                  AND (c.ends_at IS NULL OR c.ends_at > statement_timestamp())
            )
        )
    )
"""
OWN = "organization = current_setting('medrec.organization', true)"

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON records.resource TO medrec_app;
GRANT SELECT, INSERT ON records.history TO medrec_app;
GRANT SELECT, INSERT ON records.care TO medrec_app;
GRANT UPDATE (starts_at, ends_at) ON records.care TO medrec_app;
GRANT SELECT, INSERT ON records.break_glass, records.break_glass_review TO medrec_app;
GRANT SELECT, INSERT ON records.idempotency TO medrec_app;
GRANT UPDATE (written) ON records.idempotency TO medrec_app;
"""

FUNCTIONS = """
-- Whether break-glass alone opens this patient to the transaction's practitioner now.
CREATE FUNCTION records.by_break_glass(wanted text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT current_setting('medrec.compartment', true) = 'care' AND coalesce((
        SELECT bool_and(c.basis = 'break-glass') FROM records.care AS c
        WHERE c.organization = current_setting('medrec.organization', true)
          AND c.practitioner = current_setting('medrec.practitioner', true)
          AND c.patient = wanted
          AND c.starts_at <= statement_timestamp()
          AND (c.ends_at IS NULL OR c.ends_at > statement_timestamp())
    ), false)
$$;

-- Whether the transaction may see this patient: row-level security itself answers.
CREATE FUNCTION records.sees(wanted text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT EXISTS (
        SELECT 1 FROM records.resource AS r
        WHERE r.type = 'Patient' AND r.id = wanted
          AND r.organization = current_setting('medrec.organization', true)
    )
$$;

-- What the custodian forgets, of every organisation: the application itself deletes nothing.
CREATE FUNCTION records.purge(keys_s double precision, care_s double precision)
RETURNS TABLE (keys bigint, relationships bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    WITH gone AS (
        DELETE FROM records.idempotency
        WHERE created_at < now() - make_interval(secs => greatest(keys_s, 3600)) RETURNING 1
    ), ended AS (
        DELETE FROM records.care
        WHERE ends_at < now() - make_interval(secs => greatest(care_s, 0)) RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM ended)
$$;
REVOKE ALL ON FUNCTION records.purge(double precision, double precision) FROM PUBLIC;
REVOKE ALL ON FUNCTION records.by_break_glass(text), records.sees(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION records.purge(double precision, double precision) TO medrec_app;
GRANT EXECUTE ON FUNCTION records.by_break_glass(text), records.sees(text) TO medrec_app;

-- Below row-level security the planner uses an index only for operators marked leakproof. Those of
-- arrays are not, although on text they raise no error that could tell a hidden value. Only a
-- superuser may mark them; without one searches are as right, but slower without a patient.
DO $$
BEGIN
    ALTER FUNCTION pg_catalog.arrayoverlap(anyarray, anyarray) LEAKPROOF;
    ALTER FUNCTION pg_catalog.arraycontains(anyarray, anyarray) LEAKPROOF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'array operators stay as they are: the owner is no superuser';
END
$$;
"""


def _protect(table: str, using: str) -> None:
    op.execute(f"ALTER TABLE records.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE records.{table} FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY visible ON records.{table} FOR ALL TO medrec_app "
        f"USING ({using}) WITH CHECK ({using})"
    )
    op.execute(
        f"CREATE POLICY owner ON records.{table} FOR ALL TO CURRENT_USER "
        "USING (true) WITH CHECK (true)"
    )


def upgrade() -> None:
    """Make the tables of the schema `records`, their policies and what the application may do."""
    op.execute(TABLES)
    for type in TYPES:
        op.execute(
            f"CREATE TABLE records.resource_{type.lower()} "
            f"PARTITION OF records.resource FOR VALUES IN ('{type}')"
        )
    for table in ("resource", "history"):
        _protect(table, VISIBLE.format(table=table))
    for table in ("care", "break_glass", "break_glass_review", "idempotency"):
        _protect(table, OWN)
    op.execute(GRANTS)
    op.execute(FUNCTIONS)


def downgrade() -> None:
    """Refused: records are not taken back."""
    raise NotImplementedError("records are not migrated backwards")
