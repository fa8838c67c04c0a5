"""What a search asks, value by value: FHIR's tokens, names, dates and references, and their SQL.

Statements are composed of fixed text; whatever a caller wrote goes into parameters.
http://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from psycopg import sql

from deployments.data.errors import Invalid, Unsupported
from deployments.data.records.dates import range_of
from deployments.data.records.parameters import PREFIXES, Parameter
from deployments.data.records.words import (
    EXACT,
    MIN_PREFIX,
    prefix_of,
    token_of,
    words_of,
)

MAX_VALUES = 100
MAX_LENGTH = 1000

Statement = tuple[sql.Composable, list[Any]]

ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_REFERENCE = re.compile(r"(?:([A-Za-z]{1,64})/)?([A-Za-z0-9.-]{1,64})")
_DATE = re.compile(r"([a-z]{2})?([0-9].*)", re.DOTALL)
_NEVER: Statement = (sql.SQL("FALSE"), [])


class Blinds(Protocol):
    """What makes the tokens of sealed fields: the `Sealer`."""

    def blind(self, purpose: str, value: str) -> str:
        """A keyed one-way token of `value`."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One parameter with its alternatives, of which one must hold."""

    parameter: Parameter
    exact: bool
    values: tuple[Any, ...] = field(repr=False)

    def statement(self, type: str, blinds: Blinds) -> Statement:
        """The condition over `records.resource r`."""
        return _STATEMENTS[self.parameter.kind](self, type, blinds)


def criterion(parameter: Parameter, modifier: str, text: str) -> Criterion:
    """Read `text`, what stands right of the parameter's `=`. Raises `Invalid`, quoting nothing."""
    if modifier and not (modifier == "exact" and parameter.kind == "name"):
        raise Unsupported(
            f"No modifier of this kind is offered on {parameter.name}.", param=parameter.name
        )
    alternatives = split(text, ",", parameter.name)
    if len(alternatives) > MAX_VALUES:
        raise _invalid(parameter, f"takes at most {MAX_VALUES} values")
    exact = modifier == "exact"
    read = _exact if exact else _READERS[parameter.kind]
    return Criterion(parameter, exact, tuple(read(parameter, each) for each in alternatives))


def split(text: str, separator: str, name: str) -> list[str]:
    """The pieces between unescaped separators, their escapes left as they are."""
    if len(text) > MAX_LENGTH or not text:
        raise Invalid(f"{name} needs a value of 1 to {MAX_LENGTH} characters.", param=name)
    if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 or ord(char) == 127 for char in text):
        raise Invalid(f"{name} holds a control character.", param=name)
    pieces, start, position = [], 0, 0
    while position < len(text):
        if text[position] == "\\":
            if text[position + 1 : position + 2] not in ("\\", ",", "|", "$"):
                raise Invalid(f"{name} has a backslash that escapes nothing.", param=name)
            position += 1
        elif text[position] == separator:
            pieces.append(text[start:position])
            start = position + 1
        position += 1
    return [*pieces, text[start:]]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _invalid(parameter: Parameter, problem: str) -> Invalid:
    return Invalid(f"{parameter.name} {problem}.", param=parameter.name)


# Readers: from text to values.


def _id(parameter: Parameter, text: str) -> str:
    if not ID.fullmatch(text):
        raise _invalid(parameter, "takes ids: 1 to 64 letters, digits, dots and dashes")
    return text


def _token(parameter: Parameter, text: str) -> tuple[str | None, str]:
    """(system, code): None for any system, "" for none; an empty code is any code."""
    if not text:
        raise _invalid(parameter, "has an empty value")
    pieces = split(text, "|", parameter.name)
    if len(pieces) > 2 or pieces == ["", ""]:
        raise _invalid(parameter, "takes code, |code, system|code or system|")
    *system, code = (_unescaped(piece) for piece in pieces)
    return (system[0] if system else None), code


def _name(parameter: Parameter, text: str) -> tuple[str, ...]:
    # Single letters, as the d of d'Ávila, are not compared.
    words = tuple(word for word in words_of(_unescaped(text)) if len(word) >= MIN_PREFIX)
    if not words:
        raise _invalid(parameter, f"takes words of at least {MIN_PREFIX} letters or digits")
    return words


def _exact(parameter: Parameter, text: str) -> str:
    if not text:
        raise _invalid(parameter, "has an empty value")
    return _unescaped(text)


def _date(parameter: Parameter, text: str) -> tuple[str, datetime, datetime]:
    found = _DATE.fullmatch(text)
    prefix = (found[1] or "eq") if found else ""
    if prefix == "ap":
        raise Unsupported(f"{parameter.name} takes no prefix ap.", param=parameter.name)
    if found is None or prefix not in PREFIXES:
        raise _invalid(parameter, f"takes dates, with a prefix of {' '.join(PREFIXES)} or none")
    try:
        start, end = range_of(found[2])
    except ValueError:
        raise _invalid(parameter, "holds no date as FHIR writes it") from None
    return prefix, start, end


def _reference(parameter: Parameter, text: str) -> tuple[str, ...]:
    """Every `Type/id` that the text can mean."""
    found = _REFERENCE.fullmatch(text)
    if found is None or (found[1] and found[1] not in parameter.targets):
        kinds = " or ".join(f"{target}/id" for target in parameter.targets)
        raise _invalid(parameter, f"takes {kinds}, or the id alone")
    targets = (found[1],) if found[1] else parameter.targets
    return tuple(f"{target}/{found[2]}" for target in targets)


_READERS: dict[str, Callable[[Parameter, str], Any]] = {
    "id": _id,
    "updated": _date,
    "identifier": _token,
    "name": _name,
    "code": _token,
    "category": _token,
    "status": _token,
    "birthdate": _date,
    "date": _date,
    "ref": _reference,
}

# Statements: from values to SQL.


def any_of(statements: Sequence[Statement]) -> Statement:
    """One of them holds."""
    return _joined(" OR ", statements) if statements else _NEVER


def all_of(statements: Sequence[Statement]) -> Statement:
    """All of them hold."""
    return _joined(" AND ", statements)


def _joined(word: str, statements: Sequence[Statement]) -> Statement:
    parts = sql.SQL(" OR " if word == " OR " else " AND ").join(part for part, _ in statements)
    parameters = [value for _, values in statements for value in values]
    return (parts if len(statements) == 1 else sql.SQL("({})").format(parts)), parameters


def _ids(asked: Criterion, type: str, blinds: Blinds) -> Statement:
    return sql.SQL("r.id = ANY(%s)"), [list(asked.values)]


def _tokens(column: str) -> Callable[[Criterion, str, Blinds], Statement]:
    def statement(asked: Criterion, type: str, blinds: Blinds) -> Statement:
        tokens = [token_of(system, code) for system, code in asked.values]
        if column == "identifiers":
            tokens = [blinds.blind("identifier", token) for token in tokens]
        return sql.SQL("r.{} && %s::text[]").format(sql.Identifier(column)), [tokens]

    return statement


def _names(asked: Criterion, type: str, blinds: Blinds) -> Statement:
    purpose = asked.parameter.name
    if asked.exact:
        tokens = [blinds.blind(purpose + EXACT, value) for value in asked.values]
        return sql.SQL("r.names && %s::text[]"), [tokens]
    return any_of(
        [
            (
                sql.SQL("r.names @> %s::text[]"),
                [[blinds.blind(purpose, prefix_of(word)) for word in words]],
            )
            for words in asked.values
        ]
    )


def _status(asked: Criterion, type: str, blinds: Blinds) -> Statement:
    own = [code for system, code in asked.values if system in (None, asked.parameter.system)]
    if "" in own:
        return sql.SQL("r.status IS NOT NULL"), []
    return sql.SQL("r.status = ANY(%s)"), [own]


def _references(asked: Criterion, type: str, blinds: Blinds) -> Statement:
    found = [reference for alternatives in asked.values for reference in alternatives]
    if asked.parameter.is_patient and type != "Provenance":
        return sql.SQL("r.patient = ANY(%s)"), [[each.partition("/")[2] for each in found]]
    tokens = [f"{asked.parameter.name}:{reference}" for reference in found]
    return sql.SQL("r.refs && %s::text[]"), [tokens]


# The searched range is [s, e), the stored one [a, b); what they compare to in FHIR's words stands
# at http://hl7.org/fhir/R4/search.html#prefix.
_RANGES: dict[str, tuple[sql.SQL, str]] = {
    "eq": (sql.SQL("(r.date_from >= %s AND r.date_to <= %s)"), "se"),
    "ne": (sql.SQL("NOT (r.date_from >= %s AND r.date_to <= %s)"), "se"),
    "gt": (sql.SQL("r.date_to > %s"), "e"),
    "lt": (sql.SQL("r.date_from < %s"), "s"),
    "ge": (sql.SQL("(r.date_to > %s OR (r.date_from >= %s AND r.date_to <= %s))"), "ese"),
    "le": (sql.SQL("(r.date_from < %s OR (r.date_from >= %s AND r.date_to <= %s))"), "sse"),
    "sa": (sql.SQL("r.date_from >= %s"), "e"),
    "eb": (sql.SQL("r.date_to <= %s"), "s"),
}
# A moment of change is known to the microsecond.
_MOMENTS: dict[str, tuple[sql.SQL, str]] = {
    "eq": (sql.SQL("(r.updated_at >= %s AND r.updated_at < %s)"), "se"),
    "ne": (sql.SQL("NOT (r.updated_at >= %s AND r.updated_at < %s)"), "se"),
    "gt": (sql.SQL("r.updated_at >= %s"), "e"),
    "lt": (sql.SQL("r.updated_at < %s"), "s"),
    "ge": (sql.SQL("r.updated_at >= %s"), "s"),
    "le": (sql.SQL("r.updated_at < %s"), "e"),
    "sa": (sql.SQL("r.updated_at >= %s"), "e"),
    "eb": (sql.SQL("r.updated_at < %s"), "s"),
}


def _dates(
    table: dict[str, tuple[sql.SQL, str]],
) -> Callable[[Criterion, str, Blinds], Statement]:
    def statement(asked: Criterion, type: str, blinds: Blinds) -> Statement:
        parts: list[Statement] = []
        for prefix, start, end in asked.values:
            part, bounds = table[prefix]
            parts.append((part, [start if bound == "s" else end for bound in bounds]))
        return any_of(parts)

    return statement


_STATEMENTS: dict[str, Callable[[Criterion, str, Blinds], Statement]] = {
    "id": _ids,
    "updated": _dates(_MOMENTS),
    "identifier": _tokens("identifiers"),
    "name": _names,
    "code": _tokens("codes"),
    "category": _tokens("categories"),
    "status": _status,
    "birthdate": _dates(_RANGES),
    "date": _dates(_RANGES),
    "ref": _references,
}
