"""Neural engines: weights in, results out. No Ray, no HTTP, no database."""
