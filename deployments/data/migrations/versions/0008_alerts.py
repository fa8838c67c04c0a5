"""Critical alerts: one row each as it stands now, and every event of it, numbered at its commit."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# `to_role` is the role of whoever is called beside a named practitioner; `to_all` says that every
# physician of the organisation is called by now. `escalations` counts calls, reminders included.
TABLES = """
CREATE SCHEMA alerts;
REVOKE ALL ON SCHEMA alerts FROM PUBLIC;
GRANT USAGE ON SCHEMA alerts TO medrec_app;

CREATE TABLE alerts.alert (
    id           uuid        PRIMARY KEY,
    organization text        NOT NULL CHECK (organization <> ''),
    severity     text        NOT NULL CHECK (severity IN ('critical', 'high')),
    code         text        NOT NULL CHECK (code ~ '^[a-z0-9-]{1,64}$'),
    origin       text        NOT NULL CHECK (origin IN ('staff', 'rule')),
    patient      text,
    resource     text,
    raised_by    text        NOT NULL,
    to_kind      text        NOT NULL CHECK (to_kind IN ('practitioner', 'role', 'care')),
    to_id        text,
    to_role      text        CHECK (to_role IN ('physician', 'nurse')),
    to_all       boolean     NOT NULL DEFAULT false,
    raised_at    timestamptz NOT NULL,
    state        text        NOT NULL
        CHECK (state IN ('raised', 'escalated', 'acknowledged', 'resolved')),
    level        smallint    NOT NULL DEFAULT 0,
    escalations  integer     NOT NULL DEFAULT 0,
    due_at       timestamptz,
    sealed       bytea,
    key_id       text,
    wrapped_key  bytea,
    CHECK ((to_kind = 'practitioner') = (to_id IS NOT NULL)),
    CHECK ((to_kind = 'care') = (to_role IS NULL)),
    CHECK (to_kind <> 'care' OR patient IS NOT NULL),
    CHECK (due_at IS NULL OR state IN ('raised', 'escalated')),
    CHECK ((sealed IS NULL) = (key_id IS NULL) AND (sealed IS NULL) = (wrapped_key IS NULL))
);
CREATE INDEX alert_by_raised ON alerts.alert (organization, raised_at, id);
CREATE INDEX alert_open ON alerts.alert (organization, raised_at, id) WHERE state <> 'resolved';
CREATE INDEX alert_due ON alerts.alert (due_at) WHERE due_at IS NOT NULL;
-- A value that is written again raises nothing new while its alert is open.
CREATE UNIQUE INDEX alert_of_rule ON alerts.alert (organization, resource, code)
    WHERE origin = 'rule' AND state <> 'resolved';

CREATE TABLE alerts.event (
    id           uuid        PRIMARY KEY,
    alert        uuid        NOT NULL REFERENCES alerts.alert (id),
    organization text        NOT NULL CHECK (organization <> ''),
    seq          bigint,
    kind         text        NOT NULL
        CHECK (kind IN ('raised', 'escalated', 'acknowledged', 'resolved')),
    at           timestamptz NOT NULL,
    actor        text        NOT NULL,
    role         text        NOT NULL,
    level        smallint    NOT NULL
);
CREATE INDEX event_by_seq ON alerts.event (organization, seq);
CREATE INDEX event_by_alert ON alerts.event (alert, at);

CREATE TABLE alerts.head (
    organization text        PRIMARY KEY,
    seq          bigint      NOT NULL
);
"""

# Whoever sees a number sees every smaller one: the counter is locked from here to the commit's end.
# At the commit and not at the insertion, so that it is locked for a moment only. A copy that was
# replicated into this database may be ahead of the counter.
NUMBERS = """
CREATE FUNCTION alerts.number() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    next_seq bigint;
BEGIN
    INSERT INTO alerts.head AS h (organization, seq) VALUES (NEW.organization, 0)
        ON CONFLICT (organization) DO UPDATE SET seq = h.seq;
    SELECT greatest(h.seq, coalesce((
            SELECT max(e.seq) FROM alerts.event AS e WHERE e.organization = h.organization
        ), 0)) + 1
        INTO STRICT next_seq FROM alerts.head AS h WHERE h.organization = NEW.organization;
    UPDATE alerts.head SET seq = next_seq WHERE organization = NEW.organization;
    UPDATE alerts.event SET seq = next_seq WHERE id = NEW.id;
    PERFORM pg_notify('medrec_alerts', NEW.organization);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION alerts.number() FROM PUBLIC;
CREATE CONSTRAINT TRIGGER number AFTER INSERT ON alerts.event
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION alerts.number();
"""

OWN = "organization = current_setting('medrec.organization', true)"
IN_CARE = """EXISTS (
    SELECT 1 FROM records.care AS c
    WHERE c.organization = {alert}.organization AND c.patient = {alert}.patient
      AND c.practitioner = {practitioner}
      AND c.starts_at <= statement_timestamp()
      AND (c.ends_at IS NULL OR c.ends_at > statement_timestamp())
)"""
_PRACTITIONER = "current_setting('medrec.practitioner', true)"

# The fence: organisation and patient's compartment, opened by whom an alert calls. Whom it calls
# (`is_for`) is narrower, and depends on the role, which no transaction tells.
POLICIES = f"""
ALTER TABLE alerts.alert ENABLE ROW LEVEL SECURITY;
ALTER TABLE alerts.alert FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON alerts.alert FOR SELECT TO medrec_app USING (
    {OWN} AND (
        patient IS NULL
        OR current_setting('medrec.compartment', true) = 'all'
        OR (
            current_setting('medrec.compartment', true) = 'care'
            AND (
                to_all
                OR (to_kind = 'practitioner' AND to_id = {_PRACTITIONER})
                OR {IN_CARE.format(alert="alert", practitioner=_PRACTITIONER)}
            )
        )
    )
);
CREATE POLICY added ON alerts.alert FOR INSERT TO medrec_app
    WITH CHECK ({OWN} AND (patient IS NULL OR records.sees(patient)));
CREATE POLICY changed ON alerts.alert FOR UPDATE TO medrec_app USING ({OWN}) WITH CHECK ({OWN});
CREATE POLICY owner ON alerts.alert FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);

ALTER TABLE alerts.event ENABLE ROW LEVEL SECURITY;
ALTER TABLE alerts.event FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON alerts.event FOR SELECT TO medrec_app
    USING ({OWN} AND EXISTS (SELECT 1 FROM alerts.alert AS a WHERE a.id = alert));
CREATE POLICY added ON alerts.event FOR INSERT TO medrec_app
    WITH CHECK ({OWN} AND EXISTS (SELECT 1 FROM alerts.alert AS a WHERE a.id = alert));
CREATE POLICY owner ON alerts.event FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON alerts.alert TO medrec_app;
GRANT UPDATE (state, level, escalations, due_at, to_all) ON alerts.alert TO medrec_app;
GRANT SELECT ON alerts.event TO medrec_app;
GRANT INSERT (id, alert, organization, kind, at, actor, role, level) ON alerts.event TO medrec_app;
"""

FUNCTIONS = f"""
-- Whether an alert calls somebody, by account, practitioner and role; a machine watches for everyone.
CREATE FUNCTION alerts.is_for(a alerts.alert, account text, practitioner text, role text)
RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT role = 'service'
        OR a.raised_by = account
        OR (a.to_kind = 'practitioner' AND a.to_id = practitioner)
        OR (a.to_all AND role = 'physician')
        OR (
            (a.to_kind = 'care' OR (a.to_role = role AND (a.to_kind = 'role' OR a.level > 0)))
            AND (a.patient IS NULL OR {IN_CARE.format(alert="a", practitioner="is_for.practitioner")})
        )
$$;
REVOKE ALL ON FUNCTION alerts.is_for(alerts.alert, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION alerts.is_for(alerts.alert, text, text, text) TO medrec_app;

-- For the custodian, who serves every organisation: what nobody has acknowledged in time.
CREATE FUNCTION alerts.due(most integer) RETURNS TABLE (organization text, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT a.organization, a.id FROM alerts.alert AS a
    WHERE a.due_at <= now() ORDER BY a.due_at LIMIT most
$$;
CREATE FUNCTION alerts.figures()
RETURNS TABLE (severity text, open bigint, unacknowledged_age_s double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT a.severity, count(*),
        coalesce(extract(epoch FROM now() - min(a.raised_at)
            FILTER (WHERE a.state IN ('raised', 'escalated'))), 0)::float8
    FROM alerts.alert AS a WHERE a.state <> 'resolved' GROUP BY a.severity
$$;
REVOKE ALL ON FUNCTION alerts.due(integer), alerts.figures() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION alerts.due(integer), alerts.figures() TO medrec_app;
"""


def upgrade() -> None:
    """Make the schema `alerts`."""
    for statements in (TABLES, NUMBERS, POLICIES, FUNCTIONS):
        op.execute(statements)


def downgrade() -> None:
    """There is no way back: the rows are part of the record."""
    raise NotImplementedError("migrations run forward only")
