"""Synthetic patients: invented people with years of plausible care, the same for the same seed."""
