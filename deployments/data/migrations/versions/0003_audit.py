"""The audit chain: entries that nobody changes, the head that they move, and the outbox of writes.

The application's role cannot touch a row of `audit.entry`: it can only ask `audit.append`, which
runs as the owner, to chain what it is given (docs/audit.md).
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE SCHEMA IF NOT EXISTS audit;
REVOKE ALL ON SCHEMA audit FROM PUBLIC;

-- `body` is the canonical JSON exactly as it was hashed; the columns before it repeat what is
-- searched for, and verification holds them to the body.
CREATE TABLE audit.entry (
    seq bigint PRIMARY KEY CHECK (seq > 0),
    id uuid NOT NULL UNIQUE,
    at timestamptz NOT NULL,
    organization text NOT NULL,
    actor text NOT NULL,
    role text NOT NULL,
    patient text,
    action text NOT NULL,
    outcome text NOT NULL,
    resource text,
    request_id text NOT NULL,
    patients text[],  -- of an act on several: details.patients
    body text NOT NULL,
    previous bytea NOT NULL CHECK (octet_length(previous) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX entry_patient ON audit.entry (patient, seq) WHERE patient IS NOT NULL;
CREATE INDEX entry_patients ON audit.entry USING gin (patients) WHERE patients IS NOT NULL;
CREATE INDEX entry_actor ON audit.entry (actor, seq);
CREATE INDEX entry_at ON audit.entry USING brin (at);

-- One row: where the chain stands. Sequence 0 is the empty chain, its hash 32 zero bytes.
CREATE TABLE audit.head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seq bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO audit.head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- Entries of writes, committed with them and chained right after. The check refuses a row that
-- `audit.append` could not read, which would otherwise hold up the sweep for ever.
CREATE TABLE audit.outbox (
    id uuid PRIMARY KEY,
    body text NOT NULL CHECK (
        octet_length(body) <= 131072 AND ((body::jsonb)->>'id')::uuid IS NOT DISTINCT FROM id
    ),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_created_at ON audit.outbox (created_at);
"""

# Not even the owner changes an entry by accident; ALWAYS: also while replication applies.
GUARDS = """
CREATE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% of audit.% is not permitted: the chain is insert-only',
        lower(TG_OP), TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER insert_only;
CREATE TRIGGER one_row BEFORE INSERT OR DELETE OR TRUNCATE ON audit.head
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
ALTER TABLE audit.head ENABLE ALWAYS TRIGGER one_row;

CREATE FUNCTION audit.only_forward() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.seq <= OLD.seq THEN
        RAISE EXCEPTION 'the head of the chain only moves forward'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_forward BEFORE UPDATE ON audit.head
    FOR EACH ROW EXECUTE FUNCTION audit.only_forward();
ALTER TABLE audit.head ENABLE ALWAYS TRIGGER only_forward;
"""

APPEND = """
-- Chains the outbox rows of `outbox_ids` (and deletes them there), then `bodies`, each in order.
-- Returns id and seq of every entry that is in the chain afterwards: an id that already was is left
-- as it is, an outbox row that is not there is not returned. An id that is chained with another
-- body is an error among `bodies`; as an outbox row it stays there, and is not returned.
-- The lock on the head makes the sequence gap-free: it is taken first, held until commit, and a
-- transaction that fails takes its numbers back. Only in READ COMMITTED does each statement see
-- what the last holder committed.
CREATE FUNCTION audit.append(bodies text[], outbox_ids uuid[])
RETURNS TABLE (chained_id uuid, chained_seq bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- Its plans are made while the chain is short and kept when it is long: look ids up, never scan.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    last_seq bigint;
    last_hash bytea;
    now_hash bytea;
    given_ids uuid[];
    new_ids uuid[];
    new_bodies text[];
    previous_hashes bytea[] := '{}';
    hashes bytea[] := '{}';
    amount integer;
BEGIN
    IF coalesce(cardinality(bodies), 0) + coalesce(cardinality(outbox_ids), 0) > 4096 THEN
        RAISE EXCEPTION 'more than 4096 entries at once' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    SELECT h.seq, h.hash INTO STRICT last_seq, last_hash FROM audit.head h FOR UPDATE;

    given_ids := ARRAY(
        SELECT ((g.body::json)->>'id')::uuid FROM unnest(bodies) WITH ORDINALITY g(body, place)
        ORDER BY g.place
    );
    IF EXISTS (
        SELECT FROM unnest(given_ids, bodies) g(id, body)
        JOIN audit.entry e ON e.id = g.id WHERE e.body <> g.body
    ) THEN
        RAISE EXCEPTION 'an entry of this id is chained with another body'
            USING ERRCODE = 'unique_violation';
    END IF;

    WITH asked AS (
        SELECT a.id, a.place FROM unnest(outbox_ids) WITH ORDINALITY a(id, place)
    ), taken AS (
        DELETE FROM audit.outbox o USING (SELECT DISTINCT id FROM asked) a
        WHERE o.id = a.id AND NOT EXISTS (
            SELECT FROM audit.entry e WHERE e.id = o.id AND e.body <> o.body
        )
        RETURNING o.id, o.body
    ), given AS (
        SELECT t.id, t.body, 0 AS part, (SELECT min(place) FROM asked WHERE asked.id = t.id) AS place
        FROM taken t
        UNION ALL
        SELECT g.id, g.body, 1, g.place
        FROM unnest(given_ids, bodies) WITH ORDINALITY g(id, body, place)
    ), once AS (
        SELECT DISTINCT ON (g.id) g.id, g.body, g.part, g.place FROM given g
        WHERE NOT EXISTS (SELECT FROM audit.entry e WHERE e.id = g.id)
        ORDER BY g.id, g.part, g.place
    )
    SELECT array_agg(o.id ORDER BY o.part, o.place), array_agg(o.body ORDER BY o.part, o.place)
    INTO new_ids, new_bodies FROM once o;

    amount := coalesce(cardinality(new_ids), 0);
    now_hash := last_hash;
    FOR i IN 1..amount LOOP
        previous_hashes[i] := now_hash;
        now_hash := sha256(now_hash || int8send(last_seq + i) || convert_to(new_bodies[i], 'UTF8'));
        hashes[i] := now_hash;
    END LOOP;

    IF amount > 0 THEN
        INSERT INTO audit.entry (seq, id, at, organization, actor, role, patient, action, outcome,
            resource, request_id, patients, body, previous, hash)
        SELECT last_seq + n.place, n.id, j.at, j.organization, j.actor, j.role, j.patient,
            j.action, j.outcome, j.resource, j.request_id,
            CASE WHEN jsonb_typeof(j.details -> 'patients') = 'array'
                THEN ARRAY(SELECT jsonb_array_elements_text(j.details -> 'patients')) END,
            n.body, n.previous, n.hash
        FROM unnest(new_ids, new_bodies, previous_hashes, hashes)
            WITH ORDINALITY n(id, body, previous, hash, place)
        CROSS JOIN LATERAL jsonb_to_record(n.body::jsonb) AS j(at timestamptz, organization text,
            actor text, role text, patient text, action text, outcome text, resource text,
            request_id text, details jsonb)
        ORDER BY n.place;
        UPDATE audit.head h SET seq = last_seq + amount, hash = now_hash;
    END IF;

    RETURN QUERY
        SELECT e.id, e.seq FROM audit.entry e
        WHERE e.id = ANY (given_ids || outbox_ids)
        AND NOT EXISTS (SELECT FROM audit.outbox o WHERE o.id = e.id);
END $$;

-- Chains what has stood in the outbox for longer than `older_than_s`: rows of processes that died
-- between their commit and the chain's. `stuck` rows bear an id that is chained with another body.
CREATE FUNCTION audit.sweep(older_than_s double precision, most integer)
RETURNS TABLE (chained integer, stuck integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old uuid[];
    done integer;
BEGIN
    old := ARRAY(
        SELECT o.id FROM audit.outbox o
        WHERE o.created_at < clock_timestamp() - make_interval(secs => older_than_s)
        ORDER BY o.created_at, o.id LIMIT least(most, 4096)
    );
    SELECT count(*) INTO done FROM audit.append('{}', old);
    RETURN QUERY SELECT done, (
        SELECT count(*)::integer FROM audit.outbox o
        WHERE o.id = ANY (old) AND EXISTS (SELECT FROM audit.entry e WHERE e.id = o.id)
    );
END $$;
"""

RIGHTS = """
REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;
GRANT USAGE ON SCHEMA audit TO medrec_app;
GRANT EXECUTE ON FUNCTION audit.append(text[], uuid[]) TO medrec_app;
GRANT EXECUTE ON FUNCTION audit.sweep(double precision, integer) TO medrec_app;
GRANT INSERT (id, body) ON audit.outbox TO medrec_app;
GRANT SELECT ON audit.entry, audit.head TO medrec_app;

-- Readers see their organisation's entries. The chain's check, which no caller is behind, sees all.
ALTER TABLE audit.entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY entry_of_organization ON audit.entry FOR SELECT TO medrec_app USING (
    organization = current_setting('medrec.organization', true)
    OR current_setting('medrec.chain', true) = 'verify'
);
"""


def upgrade() -> None:
    for part in (TABLES, GUARDS, APPEND, RIGHTS):
        op.execute(part)


def downgrade() -> None:
    raise NotImplementedError("the audit chain is not taken back")
