"""The emergency service: what a site publishes for it, and what the emergency cell writes down.

One schema for both sides, since the same code runs on both. A site keeps the last vital signs of each
patient beside the records, says every few seconds that it lives, and publishes the emergency subset;
the emergency cell subscribes. What happens there is a journal: activations, notes and the chain.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE SCHEMA emergency;
REVOKE ALL ON SCHEMA emergency FROM PUBLIC;
GRANT USAGE ON SCHEMA emergency TO medrec_app;

-- `since` is the moment from which the edge that called found no cell; what the copy may miss is
-- stated once, when it takes over. `first_seq` is where the cell's own audit chain stood.
CREATE TABLE emergency.activation (
    id           uuid        PRIMARY KEY,
    reason       text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 512),
    host         text        NOT NULL,
    since        timestamptz NOT NULL,
    activated_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    ended_by     text,
    copied_at    timestamptz,
    copy_age_s   double precision,
    patients     bigint      NOT NULL,
    first_seq    bigint      NOT NULL,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE UNIQUE INDEX one_activation ON emergency.activation ((true)) WHERE ended_at IS NULL;

CREATE TABLE emergency.note (
    id           uuid        PRIMARY KEY,
    organization text        NOT NULL CHECK (organization <> ''),
    activation   uuid        NOT NULL REFERENCES emergency.activation (id),
    patient      text        NOT NULL,
    kind         text        NOT NULL CHECK (kind ~ '^[a-z-]{1,32}$'),
    account      text        NOT NULL,
    practitioner text,
    request_id   text        NOT NULL,
    written_at   timestamptz NOT NULL,
    sealed       bytea       NOT NULL,
    key_id       text        NOT NULL,
    wrapped_key  bytea       NOT NULL
);
CREATE INDEX note_by_patient ON emergency.note (organization, patient, written_at DESC, id);

-- What became of a note that was brought back to the site: a resource, or the reason why not.
CREATE TABLE emergency.outcome (
    note         uuid        PRIMARY KEY REFERENCES emergency.note (id),
    organization text        NOT NULL,
    outcome      text        NOT NULL CHECK (outcome IN ('merged', 'conflict')),
    reason       text        CHECK (reason ~ '^[a-z_]{1,64}$'),
    resource     text,
    at           timestamptz NOT NULL DEFAULT now(),
    CHECK ((outcome = 'conflict') = (reason IS NOT NULL))
);

-- The emergency cell's chain of one activation, as it was brought back: for the review on site.
CREATE TABLE emergency.entry (
    activation   uuid        NOT NULL REFERENCES emergency.activation (id),
    seq          bigint      NOT NULL,
    organization text        NOT NULL,
    body         text        NOT NULL,
    previous     bytea       NOT NULL CHECK (octet_length(previous) = 32),
    hash         bytea       NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (activation, seq)
);

CREATE TABLE emergency.heartbeat (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    at timestamptz
);
INSERT INTO emergency.heartbeat (at) VALUES (NULL);

-- The last vital sign of each patient and code, whole as in records.resource.
CREATE TABLE emergency.vital (
    LIKE records.resource,
    code text NOT NULL,
    PRIMARY KEY (organization, patient, code)
);
CREATE INDEX vital_by_id ON emergency.vital (organization, id);
"""

_COLUMNS = (
    *("organization", "type", "id", "version", "updated_at", "deleted", "method", "patient"),
    *("content", "sealed", "key_id", "wrapped_key", "identifiers", "names", "codes"),
    *("categories", "status", "birth_date", "date_from", "date_to", "refs"),
)
_LISTED = ", ".join(_COLUMNS)
_NEW = ", ".join(f"NEW.{name}" for name in _COLUMNS)
_FOUND = ", ".join(f"r.{name}" for name in _COLUMNS)
_EXCLUDED = ", ".join(f"EXCLUDED.{name}" for name in _COLUMNS)
_VITAL = """{row}.categories && ARRAY['vital-signs'] AND cardinality({row}.codes) > 0
    AND NOT {row}.deleted AND {row}.status IS DISTINCT FROM 'entered-in-error'
    AND {row}.patient IS NOT NULL"""

# A new measurement is one comparison; only a corrected or deleted one looks for its predecessor.
# The first token of a code is that of its system (records/words.py).
VITALS = f"""
CREATE FUNCTION emergency.find_vital(in_organization text, in_patient text, in_code text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DELETE FROM emergency.vital AS v
    WHERE v.organization = in_organization AND v.patient = in_patient AND v.code = in_code;
    INSERT INTO emergency.vital ({_LISTED}, code)
    SELECT {_FOUND}, in_code FROM records.resource_observation AS r
    WHERE r.organization = in_organization AND r.patient = in_patient AND r.codes[1] = in_code
      AND {_VITAL.format(row="r")}
    ORDER BY r.date_from DESC NULLS LAST, r.updated_at DESC LIMIT 1
    ON CONFLICT (organization, patient, code) DO UPDATE SET ({_LISTED}) = ROW({_EXCLUDED});
$$;
REVOKE ALL ON FUNCTION emergency.find_vital(text, text, text) FROM PUBLIC;

CREATE FUNCTION emergency.keep_vital() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM emergency.find_vital(OLD.organization, OLD.patient, OLD.codes[1])
        WHERE OLD.categories && ARRAY['vital-signs'] AND cardinality(OLD.codes) > 0;
    END IF;
    IF {_VITAL.format(row="NEW")} THEN
        INSERT INTO emergency.vital AS v ({_LISTED}, code) VALUES ({_NEW}, NEW.codes[1])
        ON CONFLICT (organization, patient, code) DO UPDATE SET ({_LISTED}) = ROW({_EXCLUDED})
        WHERE coalesce(EXCLUDED.date_from, '-infinity') >= coalesce(v.date_from, '-infinity');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_vital_new AFTER INSERT ON records.resource_observation
    FOR EACH ROW EXECUTE FUNCTION emergency.keep_vital();
CREATE TRIGGER keep_vital_changed AFTER UPDATE ON records.resource_observation
    FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION emergency.keep_vital();

INSERT INTO emergency.vital ({_LISTED}, code)
SELECT DISTINCT ON (r.organization, r.patient, r.codes[1]) {_FOUND}, r.codes[1]
FROM records.resource_observation AS r WHERE {_VITAL.format(row="r")}
ORDER BY r.organization, r.patient, r.codes[1], r.date_from DESC NULLS LAST, r.updated_at DESC;

-- On the emergency cell, and only while a copy is applied: the records hold what is copied.
CREATE FUNCTION emergency.spread_vital() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM records.resource_observation AS r
        WHERE r.organization = OLD.organization AND r.id = OLD.id AND NOT EXISTS (
            SELECT FROM emergency.vital AS v
            WHERE v.organization = OLD.organization AND v.id = OLD.id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO records.resource_observation ({_LISTED}) VALUES ({_NEW})
        ON CONFLICT (type, organization, id) DO UPDATE SET ({_LISTED}) = ROW({_EXCLUDED});
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER spread_vital AFTER INSERT OR UPDATE OR DELETE ON emergency.vital
    FOR EACH ROW EXECUTE FUNCTION emergency.spread_vital();
ALTER TABLE emergency.vital ENABLE REPLICA TRIGGER spread_vital;
"""

# At most 50, whoever inserts: there are no more places. The account itself says that it is enrolled,
# since a publication's filter sees one row of one table; its whole old row tells when it was.
ENROLLED = """
ALTER TABLE accounts.account ADD COLUMN emergency boolean NOT NULL DEFAULT false;
ALTER TABLE accounts.account REPLICA IDENTITY FULL;
CREATE TABLE accounts.emergency_user (
    account     uuid        PRIMARY KEY REFERENCES accounts.account ON DELETE CASCADE,
    place       smallint    NOT NULL UNIQUE CHECK (place BETWEEN 1 AND 50),
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    enrolled_by text        NOT NULL
);
CREATE FUNCTION accounts.mark_enrolled() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE accounts.account SET emergency = true WHERE id = NEW.account;
    ELSE
        UPDATE accounts.account SET emergency = false WHERE id = OLD.account;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER mark_enrolled AFTER INSERT OR DELETE ON accounts.emergency_user
    FOR EACH ROW EXECUTE FUNCTION accounts.mark_enrolled();
"""

RIGHTS = """
ALTER TABLE emergency.note ENABLE ROW LEVEL SECURITY;
ALTER TABLE emergency.note FORCE ROW LEVEL SECURITY;
CREATE POLICY visible ON emergency.note FOR ALL TO medrec_app
    USING (organization = current_setting('medrec.organization', true)
        AND records.sees(patient))
    WITH CHECK (organization = current_setting('medrec.organization', true)
        AND records.sees(patient));
CREATE POLICY owner ON emergency.note FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);
ALTER TABLE emergency.entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON emergency.entry FOR SELECT TO medrec_app
    USING (organization = current_setting('medrec.organization', true));
ALTER TABLE emergency.outcome ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON emergency.outcome FOR ALL TO medrec_app
    USING (organization = current_setting('medrec.organization', true))
    WITH CHECK (organization = current_setting('medrec.organization', true));

GRANT SELECT, INSERT ON emergency.activation, emergency.note TO medrec_app;
GRANT UPDATE (expires_at, ended_at, ended_by) ON emergency.activation TO medrec_app;
GRANT SELECT, INSERT, UPDATE ON emergency.outcome TO medrec_app;
GRANT SELECT ON emergency.entry TO medrec_app;
GRANT SELECT, UPDATE (at) ON emergency.heartbeat TO medrec_app;
GRANT SELECT ON accounts.emergency_user TO medrec_app;
"""

# What the emergency cell may read of a site: these, and the changes of the publication.
PARTITIONS = (
    *("patient", "allergyintolerance", "medicationrequest", "medicationstatement", "condition"),
    *("consent", "practitioner", "organization"),
)
_PARTITIONS = ", ".join(f"records.resource_{name}" for name in PARTITIONS)
COPY = f"""
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'medrec_copy') THEN
        CREATE ROLE medrec_copy LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO medrec_copy', current_database());
END
$$;
CREATE VIEW emergency.enrolled AS SELECT * FROM accounts.account WHERE emergency;
CREATE VIEW emergency.care AS SELECT * FROM records.care;
CREATE VIEW emergency.switch AS SELECT * FROM interactions.switch;
CREATE VIEW emergency.alert AS SELECT * FROM alerts.alert;
CREATE VIEW emergency.event AS SELECT * FROM alerts.event;
GRANT USAGE ON SCHEMA records, emergency TO medrec_copy;
GRANT SELECT ON {_PARTITIONS}, emergency.vital, emergency.heartbeat, emergency.enrolled,
    emergency.care, emergency.switch, emergency.alert, emergency.event TO medrec_copy;
CREATE PUBLICATION emergency FOR TABLE {_PARTITIONS}, records.care, emergency.vital,
    emergency.heartbeat, interactions.switch, alerts.alert, alerts.event,
    accounts.account WHERE (emergency)
    WITH (publish = 'insert, update, delete');
"""


def upgrade() -> None:
    """Make the schema `emergency`, the enrolment, and the publication."""
    for statements in (TABLES, VITALS, ENROLLED, RIGHTS, COPY):
        op.execute(statements)


def downgrade() -> None:
    """There is no way back: restore a backup."""
    raise NotImplementedError
