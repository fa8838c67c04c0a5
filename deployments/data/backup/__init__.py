"""Backups: base backups and WAL of PostgreSQL, blobs, configs and keys, sealed, kept elsewhere."""
