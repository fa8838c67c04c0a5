"""Drills: a steady load, a fault for real, what clients noticed, and the site made whole again."""
