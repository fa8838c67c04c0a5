"""One file for each revision, raw SQL; there are no downgrades."""
