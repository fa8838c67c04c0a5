"""What a site's authority has issued and revoked: `register.json` beside its key."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from deployments.data.durable import replace_file
from deployments.site.trust.certificates import KINDS, Kind, common_name, names_of, unit
from deployments.site.trust.errors import TrustError

FILE = "register.json"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate; times are Unix seconds."""

    serial: int
    kind: Kind
    name: str
    names: tuple[str, ...]
    begins: float
    ends: float
    revoked: float | None = None

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Issued:
        """What the register keeps of a certificate that is being issued."""
        kind = next(kind for kind in KINDS if kind == unit(certificate))
        return cls(
            serial=certificate.serial_number,
            kind=kind,
            name=common_name(certificate),
            names=names_of(certificate),
            begins=certificate.not_valid_before_utc.timestamp(),
            ends=certificate.not_valid_after_utc.timestamp(),
        )


@dataclass(frozen=True, slots=True)
class Register:
    """Every certificate in the order of its making, and the number of the last revocation list."""

    certificates: tuple[Issued, ...] = ()
    list_number: int = 0

    def with_issued(self, certificate: x509.Certificate) -> Register:
        """The same and one more."""
        return replace(self, certificates=(*self.certificates, Issued.of(certificate)))

    def with_revoked(self, serials: set[int], moment: float) -> Register:
        """The same with these revoked; what was revoked before keeps its moment."""
        certificates = tuple(
            replace(entry, revoked=moment)
            if entry.serial in serials and entry.revoked is None
            else entry
            for entry in self.certificates
        )
        return replace(self, certificates=certificates)

    def with_list(self) -> Register:
        """The same with the next list's number."""
        return replace(self, list_number=self.list_number + 1)

    def revoked(self, now: float) -> dict[int, datetime]:
        """What a list must name: revoked, and not over by itself."""
        return {
            entry.serial: datetime.fromtimestamp(entry.revoked, UTC)
            for entry in self.certificates
            if entry.revoked is not None and entry.ends > now
        }

    def alive(self, kind: Kind, name: str, now: float) -> list[Issued]:
        """Certificates of this kind and name that are neither revoked nor over, oldest first."""
        return [
            entry
            for entry in self.certificates
            if (entry.kind, entry.name) == (kind, name)
            and entry.revoked is None
            and entry.ends > now
        ]


def read(folder: Path) -> Register:
    """The register of an authority's folder. Raises `TrustError`."""
    path = folder / FILE
    try:
        raw = json.loads(path.read_bytes())
        return Register(tuple(map(_issued, raw["certificates"])), int(raw["list_number"]))
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        raise TrustError(f"{path} is damaged: restore it from a backup of the folder") from None


def write(folder: Path, register: Register) -> None:
    """Replace the register, on disk when this returns."""
    replace_file(folder / FILE, json.dumps(asdict(register), indent=1).encode())


def _issued(raw: dict[str, Any]) -> Issued:
    return Issued(**{**raw, "names": tuple(raw["names"])})
