"""The statements of the alerts, fixed texts all of them; `a` is the alert, `e` the event."""

from __future__ import annotations

# In the order that alert.read takes them.
COLUMNS = """
a.id, a.organization, a.severity, a.code, a.origin, a.patient, a.resource, a.raised_by, a.to_kind,
a.to_id, a.to_role, a.to_all, a.raised_at, a.state, a.level, a.escalations, a.sealed, a.key_id,
a.wrapped_key, a.due_at, (
    SELECT coalesce(jsonb_agg(jsonb_build_object('actor', k.actor, 'role', k.role, 'at', k.at)
        ORDER BY k.at, k.id), '[]')
    FROM alerts.event AS k WHERE k.alert = a.id AND k.kind = 'acknowledged'
)
"""
_OWN = "a.organization = current_setting('medrec.organization')"
# account, practitioner, role
FOR_ME = "alerts.is_for(a, %s, %s, %s)"

# Seen by others only once it is as safe as the cluster makes it: what a client was shown must still
# be there after a failover, and its number must not come again for something else.
DURABLE = "SET LOCAL synchronous_commit = on"

RAISE = """
INSERT INTO alerts.alert (id, organization, severity, code, origin, patient, resource, raised_by,
    to_kind, to_id, to_role, raised_at, state, due_at, sealed, key_id, wrapped_key)
VALUES (%s, current_setting('medrec.organization'), %s, %s, %s, %s, %s, %s, %s, %s, %s,
    statement_timestamp(), 'raised', statement_timestamp() + make_interval(secs => %s), %s, %s, %s)
"""
# The same value written again: its alert is open already.
RAISE_ONCE = (
    RAISE
    + " ON CONFLICT (organization, resource, code)"
    + (" WHERE origin = 'rule' AND state <> 'resolved' DO NOTHING")
)
HAPPENED = """
INSERT INTO alerts.event (id, alert, organization, kind, at, actor, role, level)
VALUES (%s, %s, current_setting('medrec.organization'), %s, statement_timestamp(), %s, %s, %s)
"""
ACKNOWLEDGE = """
UPDATE alerts.alert SET state = 'acknowledged', due_at = NULL
WHERE id = %s AND state IN ('raised', 'escalated')
"""
RESOLVE = "UPDATE alerts.alert SET state = 'resolved', due_at = NULL WHERE id = %s"
ESCALATE = """
UPDATE alerts.alert SET state = 'escalated', level = %s, escalations = %s, to_all = %s,
    due_at = statement_timestamp() + make_interval(secs => %s)
WHERE id = %s
"""

ONE = f"SELECT {COLUMNS} FROM alerts.alert AS a WHERE {_OWN} AND a.id = %s AND {FOR_ME}"
LOCKED = f"SELECT {COLUMNS} FROM alerts.alert AS a WHERE {_OWN} AND a.id = %s"
LOCK = " FOR NO KEY UPDATE OF a"
DUE = f"{LOCKED} AND a.due_at <= statement_timestamp() FOR NO KEY UPDATE OF a SKIP LOCKED"
PAGE = f"""
SELECT {COLUMNS} FROM alerts.alert AS a
WHERE {_OWN} AND (%s OR a.state <> 'resolved') AND {FOR_ME}
  AND (%s::timestamptz IS NULL OR (a.raised_at, a.id) < (%s, %s::uuid))
ORDER BY a.raised_at DESC, a.id DESC LIMIT %s
"""

_EVENT = "e.seq, e.id, e.kind, e.at, e.actor, e.role, e.level"
_NUMBERED = "e.organization = current_setting('medrec.organization') AND e.seq"
HEAD = f"""
SELECT e.seq, e.id FROM alerts.event AS e WHERE {_NUMBERED} IS NOT NULL ORDER BY e.seq DESC LIMIT 1
"""
KNOWN = f"SELECT 1 FROM alerts.event AS e WHERE {_NUMBERED} = %s AND e.id = %s::uuid"
AFTER = f"""
SELECT {_EVENT}, {COLUMNS} FROM alerts.event AS e JOIN alerts.alert AS a ON a.id = e.alert
WHERE {_NUMBERED} > %s AND e.seq <= %s AND (%s::text IS NULL OR {FOR_ME})
ORDER BY e.seq LIMIT %s
"""
# Which of these people each of these alerts calls, by their positions in the lists.
AUDIENCE = """
SELECT a.id, p.position FROM alerts.alert AS a
CROSS JOIN unnest(%s::text[], %s::text[], %s::text[])
    WITH ORDINALITY AS p(account, practitioner, role, position)
WHERE a.id = ANY(%s::uuid[]) AND alerts.is_for(a, p.account, p.practitioner, p.role)
"""
ROLE_OF = """
SELECT role FROM accounts.account
WHERE organization = current_setting('medrec.organization') AND practitioner = %s AND NOT disabled
  AND role IN ('physician', 'nurse') ORDER BY role DESC LIMIT 1
"""
SEES = "SELECT records.sees(%s), records.by_break_glass(%s)"
