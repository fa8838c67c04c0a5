"""A FHIR search, parsed: refused where it cannot be honoured, by name and without its values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from deployments.data.errors import Invalid, Unsupported
from deployments.data.records.conditions import Criterion, criterion
from deployments.data.records.parameters import PARAMETERS, includable, sortable
from deployments.data.records.queries import (
    Include,
    SearchPage,
    SearchQuery,
    SortKey,
    bad_cursor,
    decode_cursor,
    encode_cursor,
)

__all__ = [
    "Include",
    "SearchPage",
    "SearchQuery",
    "SortKey",
    "decode_cursor",
    "encode_cursor",
    "parse",
]

DEFAULT_COUNT = 20
MAX_COUNT = 200
MAX_PARAMETERS = 50
MAX_SORT_KEYS = 4
CONTROLS = ("_sort", "_count", "_include", "_total", "_cursor")

_PLAIN = re.compile(r"_?[A-Za-z][A-Za-z0-9-]{0,31}")
_COLUMNS = {"id": "id", "updated": "updated_at", "date": "date_from", "birthdate": "birth_date"}


def parse(type: str, parameters: Sequence[tuple[str, str]]) -> SearchQuery:
    """Read a search. Raises `Unsupported` for what is not offered, `Invalid` for what is wrong.

    Both name the parameter where its name is a plain short word, and quote no value.
    """
    if type not in PARAMETERS:
        raise Unsupported("Resources of this type cannot be searched.", param="type")
    if len(parameters) > MAX_PARAMETERS:
        raise Invalid(f"At most {MAX_PARAMETERS} parameters are taken.")
    criteria: list[Criterion] = []
    controls: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in CONTROLS:
            controls.setdefault(name, []).append(value)
        else:
            criteria.append(_criterion(type, name, value))
    sort = _sort(type, _single(controls, "_sort"))
    count, total = _count(_single(controls, "_count")), _total(_single(controls, "_total"))
    if count == 0:
        total = True
    query = SearchQuery(
        type=type,
        criteria=tuple(criteria),
        sort=sort,
        count=count,
        total=total,
        includes=tuple(_include(type, value) for value in controls.get("_include", ())),
        honoured=_honoured(parameters, count),
    )
    if (text := _single(controls, "_cursor")) is None:
        return query
    return _continued(query, text)


def _criterion(type: str, name: str, value: str) -> Criterion:
    plain, colon, modifier = name.partition(":")
    parameter = PARAMETERS[type].get(plain)
    if parameter is not None:
        if colon and not modifier:
            raise Unsupported(f"{plain} has an empty modifier.", param=plain)
        return criterion(parameter, modifier, value)
    if plain in CONTROLS:
        raise Unsupported(f"{plain} takes no modifier here.", param=plain)
    if "." in plain:
        head = plain.partition(".")[0]
        shown = head if _PLAIN.fullmatch(head) else None
        raise Unsupported("Chained parameters are not offered.", param=shown)
    if not _PLAIN.fullmatch(plain):
        raise Unsupported(f"A parameter that is not offered on {type} was given.")
    raise Unsupported(f"The parameter {plain} is not offered on {type}.", param=plain)


def _single(controls: dict[str, list[str]], name: str) -> str | None:
    values = controls.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise Invalid(f"{name} is given more than once.", param=name)
    return values[0]


def _sort(type: str, text: str | None) -> tuple[SortKey, ...]:
    """The order asked for, made total by the id. By id alone unless told otherwise: ids never
    change, so that no page skips or repeats anything while others write."""
    keys: list[SortKey] = []
    names = text.split(",") if text is not None else []
    if len(names) > MAX_SORT_KEYS:
        raise Invalid(f"_sort takes at most {MAX_SORT_KEYS} parameters.", param="_sort")
    for each in names:
        name = each.removeprefix("-")
        if name not in sortable(type):
            offered = ", ".join(sortable(type))
            raise Unsupported(f"_sort takes {offered} on {type}.", param="_sort")
        column = _COLUMNS[PARAMETERS[type][name].kind]
        if column in {key.column for key in keys}:
            raise Invalid("_sort names a parameter twice.", param="_sort")
        keys.append(SortKey(column, each.startswith("-")))
        if column == "id":
            return tuple(keys)
    return (*keys, SortKey("id", bool(keys) and keys[-1].descending))


def _count(text: str | None) -> int:
    if text is None:
        return DEFAULT_COUNT
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Invalid("_count takes a whole number.", param="_count")
    return min(int(text), MAX_COUNT)


def _total(text: str | None) -> bool:
    if text not in (None, "none", "accurate"):
        raise Unsupported("_total takes none or accurate.", param="_total")
    return text == "accurate"


def _include(type: str, text: str) -> Include:
    source, _, rest = text.partition(":")
    name, colon, target = rest.partition(":")
    if source != type or f"{source}:{name}" not in includable(type):
        offered = ", ".join(includable(type)) or "nothing"
        raise Unsupported(f"_include takes {offered} on {type}.", param="_include")
    if colon and target not in PARAMETERS[type][name].targets:
        raise Unsupported("_include names a type that cannot be there.", param="_include")
    return Include(name, target or None)


def _honoured(parameters: Sequence[tuple[str, str]], count: int) -> tuple[tuple[str, str], ...]:
    kept = [each for each in parameters if each[0] not in ("_count", "_cursor")]
    return (*kept, ("_count", str(count)))


def _continued(query: SearchQuery, text: str) -> SearchQuery:
    values = decode_cursor(query.fingerprint, text)
    try:
        after = tuple(key.read(value) for key, value in zip(query.sort, values, strict=True))
    except (ValueError, TypeError, OverflowError):
        raise bad_cursor() from None
    return replace(query, after=after)
