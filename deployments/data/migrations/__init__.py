"""The revisions of the database, applied in order by deployments/data/migrate.py."""
