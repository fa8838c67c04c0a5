"""Mirrors the tree: a test stands at the path of what it tests."""
