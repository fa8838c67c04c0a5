"""The Binary that an upload makes, from headers or from FHIR's JSON; never with its content."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from deployments.data.errors import Invalid, Unprocessable, Unsupported
from serve_app.fhir import content

TYPE = "Binary"

_PATIENT = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")
_ELEMENTS = {"resourceType", "id", "meta", "language", "contentType", "securityContext", "data"}


def of_headers(content_type: Any, context: str | None) -> dict[str, Any]:
    """A Binary of this media type in the compartment of the patient `context`, as Patient/id."""
    if not isinstance(content_type, str) or not content.is_media_type(content_type):
        raise Unprocessable("contentType is not a media type.", param="Binary.contentType")
    resource: dict[str, Any] = {"resourceType": TYPE, "contentType": content_type}
    if context is not None:
        if not _PATIENT.fullmatch(context):
            message = "The security context is a patient, as Patient/id."
            raise Invalid(message, param="X-Security-Context")
        resource["securityContext"] = {"reference": context}
    return resource


def of_json(body: Any) -> tuple[dict[str, Any], bytes]:
    """The Binary and the content of one in JSON. Raises `Invalid` or `Unprocessable`."""
    if not isinstance(body, dict) or body.get("resourceType") != TYPE:
        raise Invalid("This takes a Binary.", param=TYPE)
    if unknown := set(body) - _ELEMENTS:
        known = ", ".join(sorted(_ELEMENTS))
        raise Unsupported(f"{len(unknown)} elements are not known; {known} are.", param=TYPE)
    try:
        # FHIR's base64 may hold white space.
        data = base64.b64decode("".join(body.get("data", "").split()), validate=True)
    except (binascii.Error, ValueError, AttributeError):
        raise Unprocessable("data is not base64.", param="Binary.data") from None
    context = body.get("securityContext")
    reference = context.get("reference") if isinstance(context, dict) else context
    if reference is not None and not isinstance(reference, str):
        raise Unprocessable("A reference is a string.", param="Binary.securityContext")
    return of_headers(body.get("contentType"), reference), data


def patient_of(resource: dict[str, Any]) -> str | None:
    """The id of the patient whose compartment it is to lie in."""
    reference: str | None = resource.get("securityContext", {}).get("reference")
    return reference.removeprefix("Patient/") if reference else None
