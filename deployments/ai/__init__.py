"""Serve actors around the engines of the AI virtual node."""
