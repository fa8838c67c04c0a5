"""The primitive types of FHIR R4: which JSON a value must be, and how it is written.

http://hl7.org/fhir/R4/datatypes.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from deployments.data.records.dates import range_of

MAX_STRING = 1024 * 1024

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")
_ZONED = r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
_DATE_TIME = re.compile(rf"[0-9]{{4}}(-[0-9]{{2}}(-[0-9]{{2}}({_ZONED})?)?)?")
_INSTANT = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{_ZONED}")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?")
_CODE = re.compile(r"\S+( \S+)*")
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_OID = re.compile(r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+")
_UUID = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_URI = re.compile(r"\S+")
# The alphabet alone; group sizes are counted afterwards.
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]*={0,2}\s*")


def _text(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_STRING
        and not value.isspace()
        and not _CONTROL.search(value)
    )


def _written(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return _text(value) and pattern.fullmatch(value) is not None

    return fits


def _moment(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            return False
        try:
            range_of(_in_nanoseconds(value))
        except ValueError:
            return False
        return True

    return fits


def _in_nanoseconds(value: str) -> str:
    return re.sub(r"(\.[0-9]{9})[0-9]+", r"\1", value)


def _whole(least: int) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31

    return fits


def _decimal(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _base64(value: Any) -> bool:
    if not isinstance(value, str) or not _BASE64.fullmatch(value):
        return False
    return sum(not char.isspace() for char in value) % 4 == 0 and bool(value)


FORMATS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "base64Binary": _base64,
        "boolean": lambda value: isinstance(value, bool),
        "canonical": _written(_URI),
        "code": _written(_CODE),
        "date": _moment(_DATE),
        "dateTime": _moment(_DATE_TIME),
        "decimal": _decimal,
        "id": _written(_ID),
        "instant": _moment(_INSTANT),
        "integer": _whole(-(2**31)),
        "markdown": _text,
        "oid": _written(_OID),
        "positiveInt": _whole(1),
        "string": _text,
        "time": _written(_TIME),
        "unsignedInt": _whole(0),
        "uri": _written(_URI),
        "url": _written(_URI),
        "uuid": _written(_UUID),
        "xhtml": _text,
    }
)
"""By type name: whether a JSON value is one of its values."""
