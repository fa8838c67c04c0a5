"""What a FHIR client asks for by headers: JSON, versions, preferences.

http://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, cast
from urllib.parse import parse_qsl

from starlette.requests import Request

from deployments.data.errors import Invalid, Unsupported
from serve_app.errors import HttpError

FHIR_JSON = "application/fhir+json"
MEDIA_TYPES = (FHIR_JSON, "application/json")

Return = Literal["minimal", "representation", "OperationOutcome"]

_FORMATS = ("json", "application/json", "text/json", FHIR_JSON, "fhir+json")
_VERSION = re.compile(r'(?:W/)?"([0-9]{1,9})"|([0-9]{1,9})')
_FHIR_VERSION = re.compile(r";\s*fhirversion\s*=\s*\"?([0-9.]*)\"?", re.IGNORECASE)


class NotAcceptable(HttpError):
    """The caller's fault: only JSON is spoken here."""

    status = 406
    code = "not_acceptable"


def check_acceptable(headers: Mapping[str, str], parameters: Sequence[tuple[str, str]]) -> None:
    """Raise `NotAcceptable` unless JSON is what `_format`, or else `Accept`, asks for."""
    asked = [value for name, value in parameters if name == "_format"]
    if len(asked) > 1:
        raise Invalid("_format is given more than once.", param="_format")
    if asked:
        # In a query string a plus sign that was not escaped has become a space.
        if asked[0].replace(" ", "+").lower() not in _FORMATS:
            raise NotAcceptable("Only FHIR's JSON is offered.", param="_format")
        return
    accept = headers.get("accept", "").strip()
    if accept and not any(_is_json(each) for each in accept.split(",")):
        raise NotAcceptable("Only application/fhir+json is offered.", param="Accept")


def _is_json(media_range: str) -> bool:
    name, *parameters = (part.strip().lower() for part in media_range.split(";"))
    if any(re.fullmatch(r"q\s*=\s*0(\.0*)?", each) for each in parameters):
        return False
    versions = [each.partition("=")[2] for each in parameters if each.startswith("fhirversion")]
    if any(version.strip('" ') not in ("4.0", "4.0.1") for version in versions):
        return False
    return name in (*MEDIA_TYPES, "text/json", "application/*", "*/*")


def without_fhir_version(request: Request) -> None:
    """Take `fhirVersion=4.0` out of the content type, for readers that know a charset only."""
    headers = request.scope["headers"]
    for position, (name, value) in enumerate(headers):
        if name != b"content-type":
            continue
        text = value.decode("latin-1")
        if (found := _FHIR_VERSION.search(text)) is not None:
            if found[1] not in ("4.0", "4.0.1"):
                raise Unsupported("Only FHIR version 4.0 is read.", param="Content-Type")
            headers[position] = (name, _FHIR_VERSION.sub("", text).encode("latin-1"))


def version_of(request: Request, header: str) -> int | None:
    """The version that `If-Match` or `If-None-Match` names, None without the header."""
    text = request.headers.get(header)
    if text is None:
        return None
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise Invalid(f'{header} takes one version, as W/"3".', param=header)
    # Quotes are left out by clients that copy meta.versionId, fhirpy for one.
    return int(found[1] or found[2])


def preferred_return(request: Request) -> Return:
    """What `Prefer: return=…` asks for. Other preferences change nothing here."""
    for each in request.headers.get("prefer", "").split(","):
        name, _, value = each.partition(";")[0].strip().partition("=")
        if name.strip().lower() != "return":
            continue
        value = value.strip().strip('"')
        if value not in ("minimal", "representation", "OperationOutcome"):
            problem = "Prefer: return takes minimal, representation or OperationOutcome."
            raise Invalid(problem, param="Prefer")
        return cast(Return, value)
    return "representation"


def refuse_headers(request: Request, *names: str) -> None:
    """Raise `Unsupported` for a header whose condition would silently not hold."""
    for name in names:
        if name in request.headers:
            raise Unsupported(f"{name} is not offered here.", param=name)


def pairs_of(text: str | bytes) -> list[tuple[str, str]]:
    """The parameters of a query string or form. Raises `Invalid` for one that is not UTF-8."""
    try:
        plain = text.decode("ascii") if isinstance(text, bytes) else text
        return parse_qsl(plain, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise Invalid("The query is not form data in percent-encoded UTF-8.") from None
