"""Modes over HTTP: the gate before every route, the mode itself, and what an emergency adds."""
