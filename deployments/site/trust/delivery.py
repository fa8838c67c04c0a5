"""Keys to the other cells of the site, sealed, over the hosts' own connections.

Only cells send keys: the edges have no part in them, and the emergency cell only takes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509

from deployments.cell.state import CellError, Home
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.keys import SiteKeys
from deployments.site import here
from deployments.site.calling import Caller, CallFailed
from deployments.site.inside import Inside
from deployments.site.plan import HostPlan, Plan
from deployments.site.trust.certificates import common_name
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import HostFiles
from deployments.site.trust.key_files import Held, export_keys

PATH = "/internal/keys"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """From one cell to the others, but for the hosts in `without`. The caller closes `inside`."""

    own: HostPlan
    recipients: tuple[HostPlan, ...]
    secrets: Path
    inside: Inside

    def send(self) -> dict[str, Held]:
        """Give every recipient this cell's keys; what each holds afterwards.

        Raises `CellError` with a sentence for each that did not take them.
        """
        given: dict[str, Held] = {}
        failures: list[str] = []
        for host in self.recipients:
            try:
                given[host.name] = self.inside.run(partial(self._give, host))
            except (CallFailed, TrustError) as error:
                failures.append(str(error))
        if failures:
            names = [host.name for host in self.recipients if host.name not in given]
            raise CellError(
                f"{'; '.join(failures)}: {' and '.join(names)} must have the keys first: start the"
                " cell there, or leave it out by --without, and then carry them by hand: medrec"
                f" site keys export --for {names[0]}"
            )
        return given

    def carry(self, loaded: SiteKeys) -> None:
        """For a rotation: return once each recipient has the keys, the same one current."""
        try:
            given = self.send()
        except CellError as error:
            raise SiteKeysError(str(error)) from error
        for name, held in given.items():
            if held.current != loaded.current or not set(loaded.keys) <= set(held.site):
                raise SiteKeysError(f"{name} has other site keys than this cell: medrec seal check")

    async def _give(self, host: HostPlan, caller: Caller) -> Held:
        port = host.ports.api_tls
        told = await caller.ask(host, port, PATH, timeout_s=_TIMEOUT_S)
        certificate = _certificate(told)
        if common_name(certificate) != host.name:
            raise TrustError(f"{host.name} tells the certificate of another host")
        data = export_keys(self.secrets, HostFiles.in_folder(self.own.tls), certificate)
        body = {"envelope": data.decode("ascii")}
        answer = await caller.ask(host, port, PATH, timeout_s=_TIMEOUT_S, body=body)
        try:
            return Held(answer["current"], tuple(answer["site"]), tuple(answer["signing"]))
        except (KeyError, TypeError):
            raise TrustError(f"{host.name} does not say which keys it has") from None


def recipients(plan: Plan, own: str) -> tuple[HostPlan, ...]:
    """Who needs the keys of the cell `own`: the other cells, and the emergency cell."""
    others = [cell for cell in plan.cells if cell.name != own]
    return (*others, *([plan.cloud] if plan.cloud is not None else []))


def delivery_of(home: Home, secrets: Path, without: Collection[str] = ()) -> Delivery | None:
    """The way from this host to the other cells; None where it is a cell of its own.

    Raises `CellError` where this is no cell of the site, or a name in `without` is not one.
    """
    if not here.is_member(home):
        return None
    place = here.find(home)
    if place.host.name not in place.plan.site.cells:
        raise CellError(f"{place.host.name} is no cell: keys are changed on one of the cells")
    others = recipients(place.plan, place.host.name)
    if unknown := set(without) - {host.name for host in others}:
        raise CellError(f"{', '.join(sorted(unknown))}: no other cell of this site has that name")
    kept = tuple(host for host in others if host.name not in without)
    return Delivery(place.host, kept, secrets, place.inside())


def _certificate(told: Any) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(told["certificate"].encode("ascii"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TrustError("a host does not tell its certificate") from None
