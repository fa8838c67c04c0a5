"""AI interactions, the decisions on them, the switch that turns AI off, and short-lived texts."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE interactions.interaction (
    id text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,80}$'),
    organization text NOT NULL,
    account text NOT NULL,
    account_kind text NOT NULL,
    patient text,
    model text NOT NULL,
    weights_sha256 text NOT NULL,
    prompt_version text NOT NULL,
    input_sha256 text NOT NULL,
    output_sha256 text,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text CHECK (outcome IN ('success', 'failed', 'interrupted')),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX interaction_of_patient
    ON interactions.interaction (organization, patient, started_at DESC, id DESC)
    WHERE patient IS NOT NULL;
CREATE INDEX interaction_of_account
    ON interactions.interaction (organization, account, started_at DESC, id DESC);

CREATE TABLE interactions.decision (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    interaction text NOT NULL REFERENCES interactions.interaction (id),
    organization text NOT NULL,
    account text NOT NULL,
    role text NOT NULL,
    decision text NOT NULL CHECK (decision IN ('accepted', 'edited', 'rejected')),
    output_sha256 text CHECK (output_sha256 ~ '^[0-9a-f]{64}$'),
    reason text CHECK (reason ~ '^[a-z0-9-]{1,64}$'),
    at timestamptz NOT NULL
);
CREATE INDEX decision_of_interaction ON interactions.decision (interaction, number DESC);

CREATE TABLE interactions.switch (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization text NOT NULL,
    capability text NOT NULL CHECK (capability ~ '^[a-z][a-z_]{0,31}$'),
    enabled boolean NOT NULL,
    account text NOT NULL,
    reason text NOT NULL CHECK (reason ~ '^[a-z0-9-]{1,64}$'),
    at timestamptz NOT NULL
);
CREATE INDEX switch_newest ON interactions.switch (organization, capability, version DESC);

CREATE TABLE interactions.short_lived (
    id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('chat', 'audio', 'face_template')),
    part text NOT NULL DEFAULT '',
    interaction text REFERENCES interactions.interaction (id),
    organization text NOT NULL,
    patient text,
    owner text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    key_id text NOT NULL,
    wrapped_key bytea NOT NULL,
    data bytea NOT NULL
);
CREATE INDEX short_lived_expiry ON interactions.short_lived (expires_at);
CREATE INDEX short_lived_of_interaction ON interactions.short_lived (interaction);
CREATE INDEX short_lived_of_patient ON interactions.short_lived (patient);

-- Questions in the chain without an answer, and how far the chain was followed to know it. The
-- ledger's own rows would not do: those of chats without a patient may come late or never.
CREATE TABLE interactions.unanswered (
    interaction text PRIMARY KEY,
    at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    body text NOT NULL
);
CREATE INDEX unanswered_at ON interactions.unanswered (at);
CREATE TABLE interactions.followed (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seq bigint NOT NULL
);
INSERT INTO interactions.followed (seq) VALUES (0);
"""

_POLICIES = """
ALTER TABLE interactions.interaction ENABLE ROW LEVEL SECURITY;
ALTER TABLE interactions.decision ENABLE ROW LEVEL SECURITY;
ALTER TABLE interactions.switch ENABLE ROW LEVEL SECURITY;
ALTER TABLE interactions.short_lived ENABLE ROW LEVEL SECURITY;

CREATE POLICY seen ON interactions.interaction FOR SELECT TO medrec_app USING (
    organization = current_setting('medrec.organization', true)
    AND (patient IS NULL OR records.sees(patient)));
CREATE POLICY added ON interactions.interaction FOR INSERT TO medrec_app WITH CHECK (
    organization = current_setting('medrec.organization', true)
    AND (patient IS NULL OR records.sees(patient)));
-- What has ended stays as it is.
CREATE POLICY ended ON interactions.interaction FOR UPDATE TO medrec_app
    USING (organization = current_setting('medrec.organization', true) AND ended_at IS NULL)
    WITH CHECK (organization = current_setting('medrec.organization', true));

-- The inner query is itself held to the policy of the interactions.
CREATE POLICY seen ON interactions.decision FOR SELECT TO medrec_app USING (
    EXISTS (SELECT 1 FROM interactions.interaction AS i WHERE i.id = interaction));
CREATE POLICY added ON interactions.decision FOR INSERT TO medrec_app WITH CHECK (
    organization = current_setting('medrec.organization', true)
    AND EXISTS (SELECT 1 FROM interactions.interaction AS i WHERE i.id = interaction));

CREATE POLICY own ON interactions.switch TO medrec_app
    USING (organization = current_setting('medrec.organization', true))
    WITH CHECK (organization = current_setting('medrec.organization', true));

CREATE POLICY seen ON interactions.short_lived FOR SELECT TO medrec_app USING (
    organization = current_setting('medrec.organization', true)
    AND (patient IS NULL OR records.sees(patient)));
CREATE POLICY added ON interactions.short_lived FOR INSERT TO medrec_app WITH CHECK (
    organization = current_setting('medrec.organization', true)
    AND (patient IS NULL OR records.sees(patient)));

GRANT SELECT, INSERT ON interactions.interaction, interactions.decision, interactions.switch,
    interactions.short_lived TO medrec_app;
GRANT UPDATE (output_sha256, ended_at, outcome) ON interactions.interaction TO medrec_app;
"""

# What the application may do beyond its rows: nothing that it could choose.
_DUTIES = """
CREATE FUNCTION interactions.switches()
    RETURNS TABLE (organization text, capability text, enabled boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT DISTINCT ON (s.organization, s.capability)
        s.organization, s.capability, s.enabled
    FROM interactions.switch AS s ORDER BY s.organization, s.capability, s.version DESC
$$;

CREATE FUNCTION interactions.purge(most integer)
    RETURNS TABLE (organization text, kind text, texts bigint)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    WITH doomed AS (
        SELECT s.id FROM interactions.short_lived AS s
        WHERE s.expires_at <= now() ORDER BY s.expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM interactions.short_lived AS s USING doomed AS d WHERE s.id = d.id
        RETURNING s.organization, s.kind
    )
    SELECT g.organization, g.kind, count(*) FROM gone AS g GROUP BY g.organization, g.kind
$$;

-- Follows the chain by at most `most` entries; returns by how many. Sequence numbers have no gaps
-- and are seen in their order, so that no entry is passed over.
CREATE FUNCTION interactions.follow(most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    last_seq bigint;
    next_seq bigint;
BEGIN
    SELECT f.seq INTO STRICT last_seq FROM interactions.followed AS f FOR UPDATE;
    SELECT least(h.seq, last_seq + most) INTO STRICT next_seq FROM audit.head AS h;
    INSERT INTO interactions.unanswered (interaction, at, body)
        SELECT e.body::jsonb #>> '{details,interaction}', e.at, e.body FROM audit.entry AS e
        WHERE e.seq > last_seq AND e.seq <= next_seq
          AND e.action = 'ai-request' AND e.outcome = 'success'
          AND e.body::jsonb #>> '{details,interaction}' IS NOT NULL
        ON CONFLICT DO NOTHING;
    DELETE FROM interactions.unanswered AS u USING audit.entry AS e
        WHERE e.seq > last_seq AND e.seq <= next_seq AND e.action = 'ai-answer'
          AND u.interaction = e.body::jsonb #>> '{details,interaction}';
    UPDATE interactions.followed SET seq = next_seq;
    RETURN next_seq - last_seq;
END
$$;

-- Questions older than `older_than_s`, known for `known_s`: whoever asked them is gone.
CREATE FUNCTION interactions.abandoned(
    older_than_s double precision, known_s double precision, most integer)
    RETURNS TABLE (interaction text, body text)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT u.interaction, u.body FROM interactions.unanswered AS u
    WHERE u.at < now() - make_interval(secs => older_than_s)
      AND u.seen_at <= now() - make_interval(secs => known_s)
    ORDER BY u.at LIMIT most FOR UPDATE SKIP LOCKED
$$;

CREATE FUNCTION interactions.close_interrupted(wanted text, moment timestamptz) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DELETE FROM interactions.unanswered AS u WHERE u.interaction = wanted;
    UPDATE interactions.interaction AS i SET ended_at = moment, outcome = 'interrupted'
        WHERE i.id = wanted AND i.ended_at IS NULL;
$$;
"""

_DUTY_FUNCTIONS = (
    "interactions.switches()",
    "interactions.purge(integer)",
    "interactions.follow(integer)",
    "interactions.abandoned(double precision, double precision, integer)",
    "interactions.close_interrupted(text, timestamptz)",
)


def upgrade() -> None:
    """Create the schema `interactions`."""
    for statements in (_TABLES, _POLICIES, _DUTIES):
        op.execute(statements)
    for function in _DUTY_FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO medrec_app")


def downgrade() -> None:
    """There is no way back: the rows are part of the record."""
    raise NotImplementedError("migrations run forward only")
