"""Sealing: what is sensitive is encrypted under keys that are not in the database."""
