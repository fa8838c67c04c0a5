"""Patient records in PostgreSQL: by type, with every version, sealed, and on record when seen."""
