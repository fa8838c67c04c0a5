"""Refusals that name what was asked for, so that the audit can: the caller is told no more."""

from __future__ import annotations

import re

from deployments.data.errors import Gone, NotFound, Unprocessable

# http://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")


class Missing(NotFound):
    """The caller's fault: not held, or nothing that this caller may know of; both look alike."""

    def __init__(self, type: str, id: str) -> None:
        super().__init__(f"No {type} of this id is held here.")
        self.type = type
        self.id = id


class Deleted(Gone):
    """The caller's fault: it was deleted; earlier versions can still be read."""

    def __init__(self, type: str, id: str) -> None:
        super().__init__(f"This {type} was deleted; its history remains.")
        self.type = type
        self.id = id


class UnknownReference(Unprocessable):
    """The caller's fault: a reference to something not held, deleted, or not this caller's."""

    code = "reference_not_found"

    def __init__(self, type: str, id: str) -> None:
        message = f"A reference names a {type} that is not held here."
        super().__init__(message, param="Reference.reference")
        self.type = type
        self.id = id


def look_for(type: str, id: str) -> None:
    """Raise `Missing` for what cannot be an id, before the database is asked for it."""
    if not _ID.fullmatch(id):
        raise Missing(type, id)
