"""Everything a site's authority must have issued, made or renewed in one go; and when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from deployments.site.trust import authority as authorities
from deployments.site.trust.authority import EDGE, Authority, Clock, utc_now
from deployments.site.trust.certificates import Kind, names_of
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import HostFiles, belong_together, read_certificate

RENEW_WITHIN = timedelta(days=30)
SITE = "medrec"


def ensure_site(
    folder: Path,
    hosts: Mapping[str, Sequence[str]],
    public_names: Sequence[str],
    *,
    site: str = SITE,
    clock: Clock = utc_now,
) -> None:
    """Make the authority in `folder` and what is missing of certificates for hosts and the edge.

    `hosts` maps each host to its addresses and DNS names; its own name is always one of them. What
    ends within 30 days, is revoked, or is for other names is made anew; a certificate of another
    authority is left alone. Raises `TrustError`.
    """
    with authorities.changing(folder):
        made = (
            Authority(folder, clock=clock)
            if authorities.exists(folder)
            else authorities.create(folder, site, clock=clock)
        )
        _renew_list(made)
        renew_devices(folder, clock)
        for host, addresses in hosts.items():
            _ensure(made, "host", host, with_own_name(host, addresses))
        if public_names:
            _ensure(made, "edge", EDGE, tuple(dict.fromkeys(public_names)))


def renew(authority: Authority, within: timedelta = RENEW_WITHIN) -> list[str]:
    """Make anew what ends within that time, hosts and the edge; the reasons, each a sentence.

    A device is not renewed behind its user's back: the file must reach the phone. Its authority's list
    is.
    """
    done = [_renew_list(authority, within), renew_devices(authority.folder, authority.now, within)]
    latest = {(entry.kind, entry.name): entry.names for entry in authority.register.certificates}
    for (kind, name), names in latest.items():
        ours = authority.files(kind, name).certificate.exists()
        done.append(_ensure(authority, kind, name, names, within) if ours else None)
    return [reason for reason in done if reason is not None]


def why_anew(
    authority: Authority,
    files: HostFiles,
    names: Sequence[str],
    within: timedelta = RENEW_WITHIN,
) -> str | None:
    """Why this certificate must be made anew, or None; never because another authority made it."""
    if not files.certificate.exists():
        return "there is none"
    try:
        found = read_certificate(files.certificate)
    except TrustError:
        return "it cannot be read"
    if not authority.has_issued(found):
        return None
    if not belong_together(files):
        return "certificate, key and bundle do not belong together"
    now = authority.now()
    if found.not_valid_after_utc <= now + within:
        return f"it ends on {found.not_valid_after_utc:%Y-%m-%d}"
    if found.serial_number in authority.register.revoked(now.timestamp()):
        return "it is revoked"
    if set(names_of(found)) != set(names):
        return "it is for other names"
    return None


def with_own_name(host: str, addresses: Sequence[str]) -> tuple[str, ...]:
    """What a host's certificate is for: its name first, then its addresses, each once."""
    return tuple(dict.fromkeys([host, *addresses]))


def host_files(folder: Path, host: str) -> HostFiles:
    """The files of a host in an authority's folder."""
    return HostFiles.in_folder(authorities.folder_of(folder, "host", host))


def edge_files(folder: Path) -> HostFiles:
    """The files of the edge's public certificate in an authority's folder."""
    return HostFiles.in_folder(authorities.folder_of(folder, "edge", EDGE), "edge")


def expiries(paths: Iterable[Path]) -> dict[Path, float]:
    """When each PEM file's certificates or revocation list end first, in Unix seconds.

    For `medrec_certificate_ends_s`. A file that is missing or holds neither ends at 0, so that the
    alert fires.
    """
    return {path: _ends(path) for path in paths}


def _ends(path: Path) -> float:
    try:
        data = path.read_bytes()
        if b"BEGIN X509 CRL" in data:
            crl = x509.load_pem_x509_crl(data)
            return (crl.next_update_utc or crl.last_update_utc).timestamp()
        found = x509.load_pem_x509_certificates(data)
    except (OSError, ValueError):
        return 0.0
    return min((entry.not_valid_after_utc.timestamp() for entry in found), default=0.0)


def renew_devices(folder: Path, clock: Clock, within: timedelta = RENEW_WITHIN) -> str | None:
    """Keep the list of the devices' authority good, and where the edge reads it. Why, if it was."""
    reason = _renew_list(Authority(authorities.devices_folder(folder), clock=clock), within)
    authorities.publish_devices(folder)
    return None if reason is None else f"devices' {reason}"


def certificate_ends(tls: Path) -> dict[str, float]:
    """Ends of what lies in a host's folder of certificates, by file name; empty where it has none."""
    names = ("host.crt", "edge.pem", "ca.crt", "crl.pem", "devices.crt", "devices-crl.pem")
    found = expiries(path for name in names if (path := tls / name).exists())
    return {path.name: ends for path, ends in found.items()}


def _renew_list(authority: Authority, within: timedelta = RENEW_WITHIN) -> str | None:
    ends = authority.list_ends()
    if ends > authority.now() + within:
        return None
    authority.make_list()
    return f"revocation list: it ends on {ends:%Y-%m-%d}"


def _ensure(
    authority: Authority,
    kind: Kind,
    name: str,
    names: Sequence[str],
    within: timedelta = RENEW_WITHIN,
) -> str | None:
    reason = why_anew(authority, authority.files(kind, name), names, within)
    if reason is None:
        return None
    authority.issue(kind, name, names)
    return f"{kind} {name}: {reason}"
