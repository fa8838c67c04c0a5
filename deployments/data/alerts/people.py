"""Whom alerts are for, of those who sign in here."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.data import scopes
from deployments.data.errors import Forbidden
from deployments.data.principal import Principal


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom alerts may call, as `alerts.is_for` takes them; a machine's role is `service`."""

    account: str
    practitioner: str
    role: str

    @property
    def words(self) -> tuple[str, str, str]:
        """The values of statements.FOR_ME."""
        return self.account, self.practitioner, self.role


def person_of(principal: Principal) -> Person:
    """Raises `Forbidden` without the scope, or for who may not see any patient."""
    scopes.require(principal, "alerts")
    if scopes.compartment(principal) == "none":
        raise Forbidden("Alerts are for those who treat patients.")
    return Person(principal.id, principal.practitioner or "", principal.role)


def actor_of(principal: Principal) -> Person:
    """The same for who takes an alert on, which machines do not."""
    person = person_of(principal)
    if principal.kind != "account":
        raise Forbidden("This is for people, not for machines.", code="not_a_person")
    return person
