"""The ground: the application's role, the extension vector, and one schema for each part."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMAS = ("records", "audit", "accounts", "interactions")


def upgrade() -> None:
    """Empty schemas. `medrec_app` may look into them and owns nothing."""
    op.execute(
        """
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'medrec_app') THEN
                CREATE ROLE medrec_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
            END IF;
            IF EXISTS (
                SELECT FROM pg_roles
                WHERE rolname = 'medrec_app' AND (rolsuper OR rolbypassrls)
            ) THEN
                RAISE EXCEPTION 'role medrec_app may not be superuser nor bypass row security';
            END IF;
            EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO medrec_app', current_database());
        END
        $$
        """
    )
    op.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    op.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
    op.execute("GRANT USAGE ON SCHEMA public TO medrec_app")  # vector's types live there
    for schema in SCHEMAS:
        op.execute(f"CREATE SCHEMA {schema}")
        op.execute(f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC")
        op.execute(f"GRANT USAGE ON SCHEMA {schema} TO medrec_app")
    # The application checks at its start that the database is of its revision.
    op.execute("GRANT SELECT ON public.alembic_version TO medrec_app")


def downgrade() -> None:
    """There is no way back: restore a backup."""
    raise NotImplementedError
