"""Accounts, sessions, passkeys, API keys, and the attempts that lock-outs are counted by.

The application's role makes neither accounts nor keys: only the owner's does, by `medrec user` and
`medrec key`. What it may change is named column by column.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE accounts.account (
    id uuid PRIMARY KEY,
    organization text NOT NULL CHECK (organization ~ '^[A-Za-z0-9.-]{1,64}$'),
    username text NOT NULL CHECK (length(username) BETWEEN 1 AND 128),
    password_hash text,
    role text NOT NULL CHECK (role IN ('physician', 'nurse', 'analyst', 'auditor', 'admin')),
    practitioner text CHECK (practitioner ~ '^[A-Za-z0-9.-]{1,64}$'),
    openid_sub text UNIQUE CHECK (length(openid_sub) BETWEEN 1 AND 255),
    disabled boolean NOT NULL DEFAULT false,
    demo boolean NOT NULL DEFAULT false,
    password_changed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL
);
CREATE UNIQUE INDEX account_username ON accounts.account (lower(username));

CREATE TABLE accounts.session (
    id uuid PRIMARY KEY,
    account uuid NOT NULL REFERENCES accounts.account ON DELETE CASCADE,
    address text NOT NULL,
    methods text[] NOT NULL,
    scopes text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    signed_in_at timestamptz NOT NULL DEFAULT now(),
    idle_until timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    refreshes integer NOT NULL DEFAULT 0,
    revoked_at timestamptz
);
CREATE INDEX session_account ON accounts.session (account, address);
CREATE INDEX session_ends_at ON accounts.session (ends_at);

CREATE TABLE accounts.refresh_token (
    hash bytea PRIMARY KEY CHECK (length(hash) = 32),
    session uuid NOT NULL REFERENCES accounts.session ON DELETE CASCADE,
    issued_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz
);
CREATE INDEX refresh_token_session ON accounts.refresh_token (session);

CREATE TABLE accounts.passkey (
    id bytea PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 1023),
    account uuid NOT NULL REFERENCES accounts.account ON DELETE CASCADE,
    public_key bytea NOT NULL,
    sign_count bigint NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz
);
CREATE INDEX passkey_account ON accounts.passkey (account);

CREATE TABLE accounts.challenge (
    id uuid PRIMARY KEY,
    purpose text NOT NULL CHECK (purpose IN ('register', 'sign-in')),
    account uuid REFERENCES accounts.account ON DELETE CASCADE,
    challenge bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX challenge_expires_at ON accounts.challenge (expires_at);

CREATE TABLE accounts.api_key (
    id text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{12}$'),
    uuid uuid NOT NULL UNIQUE,
    hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    organization text NOT NULL CHECK (organization ~ '^[A-Za-z0-9.-]{1,64}$'),
    role text NOT NULL DEFAULT 'service' CHECK (role = 'service'),
    scopes text NOT NULL,
    demo boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

-- Failures of a name, and sign-ins of an address: counted here so that every replica agrees.
CREATE TABLE accounts.attempt (
    subject bytea PRIMARY KEY CHECK (length(subject) = 32),
    count integer NOT NULL,
    until timestamptz NOT NULL
);
CREATE INDEX attempt_until ON accounts.attempt (until);
"""

# What has no more use. Sessions stay 30 days past their end: from where somebody has signed in
# lately decides which counter judges an attempt.
PURGE = """
CREATE FUNCTION accounts.purge(at_most integer) RETURNS TABLE (what text, rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found bigint;
BEGIN
    DELETE FROM accounts.attempt WHERE subject IN (
        SELECT a.subject FROM accounts.attempt a WHERE a.until < now() LIMIT at_most);
    GET DIAGNOSTICS found = ROW_COUNT;
    RETURN QUERY SELECT 'attempts', found;
    DELETE FROM accounts.challenge WHERE id IN (
        SELECT c.id FROM accounts.challenge c WHERE c.expires_at < now() LIMIT at_most);
    GET DIAGNOSTICS found = ROW_COUNT;
    RETURN QUERY SELECT 'challenges', found;
    DELETE FROM accounts.refresh_token WHERE hash IN (
        SELECT t.hash FROM accounts.refresh_token t JOIN accounts.session s ON s.id = t.session
        WHERE s.ends_at < now() LIMIT at_most);
    GET DIAGNOSTICS found = ROW_COUNT;
    RETURN QUERY SELECT 'refresh_tokens', found;
    DELETE FROM accounts.session WHERE id IN (
        SELECT s.id FROM accounts.session s WHERE s.ends_at < now() - interval '30 days'
        LIMIT at_most);
    GET DIAGNOSTICS found = ROW_COUNT;
    RETURN QUERY SELECT 'sessions', found;
END
$$;
REVOKE ALL ON FUNCTION accounts.purge(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION accounts.purge(integer) TO medrec_app;
"""

# Replicas remember for seconds whom they know; what ends a right is told to them at once.
NOTICES = """
CREATE FUNCTION accounts.tell() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_TABLE_NAME = 'session' THEN
        PERFORM pg_notify('medrec_accounts', 'session ' || OLD.id);
    ELSE
        PERFORM pg_notify('medrec_accounts', 'changed');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_revoked AFTER UPDATE ON accounts.session FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION accounts.tell();
CREATE TRIGGER tell_changed AFTER UPDATE ON accounts.account FOR EACH ROW
    WHEN ((OLD.disabled, OLD.role, OLD.organization, OLD.practitioner, OLD.openid_sub)
        IS DISTINCT FROM
        (NEW.disabled, NEW.role, NEW.organization, NEW.practitioner, NEW.openid_sub))
    EXECUTE FUNCTION accounts.tell();
CREATE TRIGGER tell_removed AFTER DELETE ON accounts.account FOR EACH ROW
    EXECUTE FUNCTION accounts.tell();
CREATE TRIGGER tell_revoked AFTER UPDATE ON accounts.api_key FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION accounts.tell();
CREATE TRIGGER tell_removed AFTER DELETE ON accounts.api_key FOR EACH ROW
    EXECUTE FUNCTION accounts.tell();
"""

RIGHTS = """
GRANT SELECT ON accounts.account, accounts.session, accounts.refresh_token, accounts.passkey,
    accounts.challenge, accounts.api_key, accounts.attempt TO medrec_app;
GRANT UPDATE (password_hash, password_changed_at) ON accounts.account TO medrec_app;
GRANT INSERT ON accounts.session TO medrec_app;
GRANT UPDATE (methods, signed_in_at, idle_until, refreshes, revoked_at)
    ON accounts.session TO medrec_app;
GRANT INSERT ON accounts.refresh_token TO medrec_app;
GRANT UPDATE (used_at) ON accounts.refresh_token TO medrec_app;
GRANT INSERT, DELETE ON accounts.passkey, accounts.challenge TO medrec_app;
-- Without it a row cannot be locked while it is swept.
GRANT UPDATE (expires_at) ON accounts.challenge TO medrec_app;
GRANT UPDATE (sign_count, last_used_at) ON accounts.passkey TO medrec_app;
GRANT UPDATE (last_used_at) ON accounts.api_key TO medrec_app;
GRANT INSERT, UPDATE, DELETE ON accounts.attempt TO medrec_app;
"""


def upgrade() -> None:
    """The tables of the schema `accounts`, their purge, their notices, the application's rights."""
    op.execute(TABLES)
    op.execute(PURGE)
    op.execute(NOTICES)
    op.execute(RIGHTS)


def downgrade() -> None:
    """There is no way back: restore a backup."""
    raise NotImplementedError
