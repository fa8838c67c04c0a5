"""The one kind of error that the command line tells in a sentence; imports nothing."""

from __future__ import annotations


class CellError(Exception):
    """The operator can act on it: a cell cannot start, was not found, or did not stop."""
