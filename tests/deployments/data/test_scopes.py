"""Scopes: what is a scope, what it permits, and that narrowing never widens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.data import scopes
from deployments.data.errors import Forbidden, Invalid
from deployments.data.principal import ROLES, Principal, Role
from deployments.data.scopes import RESOURCE_TYPES, ROLE_SCOPES, WORDS, Letter

LETTERS: tuple[Letter, ...] = ("c", "r", "u", "d", "s")


def person(role: Role, granted: frozenset[str] | None = None) -> Principal:
    return Principal(
        id="account",
        kind="account",
        role=role,
        organization="hospital",
        scopes=ROLE_SCOPES[role] if granted is None else granted,
        practitioner="practitioner",
    )


def key(*granted: str, role: Role = "service") -> Principal:
    return Principal("key", "key", role, "hospital", frozenset(granted))


def everything(principal: Principal) -> set[tuple[str, str]]:
    return {
        (type, letter)
        for type in RESOURCE_TYPES
        for letter in LETTERS
        if scopes.permits(principal, type, letter)
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_scopes_that_parse(role: Role) -> None:
    assert scopes.parse(scopes.text_of(ROLE_SCOPES[role])) == ROLE_SCOPES[role]


@pytest.mark.parametrize(
    "text",
    [
        *("root", "user/Patient", "user/Patient.", "user/Patient.sr", "patient/*.rs", "user/Foo.r"),
        *("user/*.read", "USER/Patient.r", "ai ai:everything", "user/Patient.r\x00"),
    ],
)
def test_what_is_no_scope_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        scopes.parse(text)
    assert caught.value.code == "bad_scope"
    assert text.split()[-1] not in caught.value.message


def test_too_many_scopes_are_refused() -> None:
    with pytest.raises(Invalid):
        scopes.parse("ai " * 65)


def test_a_physician_does_everything_but_read_the_audit() -> None:
    permitted = everything(person("physician"))
    assert len(permitted) == 5 * (len(RESOURCE_TYPES) - 1)
    assert not any(type == "AuditEvent" for type, _ in permitted)


def test_a_nurse_neither_orders_medicines_nor_writes_diagnoses() -> None:
    nurse = person("nurse")
    assert scopes.permits(nurse, "Observation", "d")
    assert scopes.permits(nurse, "MedicationRequest", "r")
    assert not scopes.permits(nurse, "MedicationRequest", "c")
    assert not scopes.permits(nurse, "Condition", "u")
    assert not scopes.permits(nurse, "Patient", "c")


@pytest.mark.parametrize("role", ["auditor", "admin"])
def test_only_auditors_and_admins_read_the_audit_and_nobody_writes_it(role: Role) -> None:
    assert {x for t, x in everything(person(role)) if t == "AuditEvent"} == {"r", "s"}
    # Whatever a key was given.
    assert not scopes.permits(key("system/*.cruds", "system/AuditEvent.rs"), "AuditEvent", "r")


def test_a_persons_scope_is_none_of_a_machines_and_the_reverse() -> None:
    assert not scopes.permits(key("user/*.cruds"), "Patient", "r")
    granted = frozenset({"system/*.cruds"})
    assert not scopes.permits(person("physician", granted), "Patient", "r")
    assert scopes.permits(key("system/*.cruds"), "Patient", "r")


def test_an_unknown_type_is_never_permitted() -> None:
    assert not scopes.permits(key("system/*.cruds"), "Medication", "r")


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (person("physician"), "care"),
        (person("nurse"), "care"),
        (Principal("a", "account", "physician", "h", ROLE_SCOPES["physician"]), "none"),
        (person("admin"), "all"),
        (person("analyst"), "none"),
        (person("auditor"), "none"),
        (key("system/Patient.r"), "all"),
        (key("ai"), "none"),
        (key("user/*.cruds"), "none"),
    ],
)
def test_the_compartment_follows_role_and_scope(principal: Principal, expected: str) -> None:
    assert scopes.compartment(principal) == expected


def test_require_names_the_scope() -> None:
    scopes.require(person("physician"), "ai")
    with pytest.raises(Forbidden, match="scope admin") as caught:
        scopes.require(person("physician"), "admin")
    assert caught.value.code == "insufficient_scope"
    with pytest.raises(Forbidden, match=r"Patient\.r"):
        scopes.require_permitted(person("analyst"), "Patient", "r")
    scopes.require_permitted(person("nurse"), "Patient", "r")


def test_narrowing_picks_types_and_letters() -> None:
    granted = frozenset({"user/*.cruds", "ai", "break-glass"})
    asked = scopes.parse("user/Patient.rs ai admin")
    assert scopes.narrowed(granted, asked) == {"user/Patient.rs", "ai"}
    wide = scopes.narrowed(ROLE_SCOPES["nurse"], scopes.parse("user/*.rs"))
    assert "user/Patient.rs" in wide
    assert "user/Condition.rs" in wide
    assert not any("c" in scope.partition(".")[2] for scope in wide)
    assert scopes.narrowed(granted, scopes.parse("user/AuditEvent.rs")) == frozenset()


_smart = st.builds(
    lambda side, type, letters: f"{side}/{type}.{''.join(x for x in 'cruds' if x in letters)}",
    st.sampled_from(["user", "system"]),
    st.sampled_from([*RESOURCE_TYPES, "*"]),
    st.sets(st.sampled_from(LETTERS), min_size=1),
)
_scopes = st.frozensets(st.one_of(_smart, st.sampled_from(WORDS)), max_size=6)


@given(_scopes, _scopes, st.sampled_from(["physician", "auditor", "service"]))
def test_narrowing_never_permits_more_than_either_side(
    granted: frozenset[str], asked: frozenset[str], role: Role
) -> None:
    result = scopes.narrowed(granted, asked)
    for kind in ("account", "key"):
        both, one, other = (
            Principal("x", kind, role, "h", some, "p") for some in (result, granted, asked)
        )
        assert everything(both) == everything(one) & everything(other)
    assert {s for s in result if s in WORDS} == {s for s in granted & asked if s in WORDS}
