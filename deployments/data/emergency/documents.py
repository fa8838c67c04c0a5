"""An emergency note as the record keeps it: a DocumentReference, and the Provenance that says whence."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from deployments.data.emergency.notes import Note

KINDS = "urn:medical-record:emergency-note"
ACTIVITY = "urn:medical-record:provenance"
_PROVENANCE = uuid.UUID("8f2f0c1a-2f6a-5d0e-9a41-7b0c6f0f9d11")


def provenance_id(note: str) -> str:
    """The id of a note's Provenance: the same each time, so that nothing is written twice."""
    return str(uuid.uuid5(_PROVENANCE, note))


def document_of(note: Note, author: str | None) -> dict[str, Any]:
    """The note's text with its original time; `author` is a Practitioner that is held on site."""
    text = base64.b64encode(note.text.encode()).decode("ascii")
    authors = {"author": [{"reference": f"Practitioner/{author}"}]} if author else {}
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "category": [{"coding": [{"system": KINDS, "code": "emergency"}]}],
        "type": {"coding": [{"system": KINDS, "code": note.kind}]},
        "subject": {"reference": f"Patient/{note.patient}"},
        "date": note.written_at.isoformat(timespec="milliseconds"),
        **authors,
        "content": [{"attachment": {"contentType": "text/plain; charset=utf-8", "data": text}}],
    }


def provenance_of(note: Note, author: str | None, recorded: str) -> dict[str, Any]:
    """That the document was written in an emergency, when, and by which account."""
    who: dict[str, Any] = {
        "identifier": {"system": "urn:medical-record:account", "value": note.account}
    }
    if author:
        who["reference"] = f"Practitioner/{author}"
    return {
        "resourceType": "Provenance",
        "target": [{"reference": f"DocumentReference/{note.id}"}],
        "occurredDateTime": note.written_at.isoformat(timespec="milliseconds"),
        "recorded": recorded,
        "activity": {"coding": [{"system": ACTIVITY, "code": "emergency"}]},
        "agent": [{"who": who}],
    }


def text_of(document: dict[str, Any]) -> str | None:
    """The text of such a document; None where it is none."""
    try:
        data = document["content"][0]["attachment"]["data"]
        return base64.b64decode(data, validate=True).decode()
    except (KeyError, IndexError, TypeError, ValueError):
        return None
