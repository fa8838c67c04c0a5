"""The keys that all cells of a site share, collected from one secrets folder, merged into another.

Site keys and signing keys are merged key by key. The others are files as they are: one that is here
and differs is refused, before anything is written.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from deployments.data.accounts import signing
from deployments.data.audit.anchor import KEY_FILE as ANCHOR_KEY
from deployments.data.durable import replace_file
from deployments.data.seal import escrow, keys, merging
from deployments.data.seal.errors import SiteKeysError
from deployments.site.trust import envelope
from deployments.site.trust.authority import Clock, utc_now
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import HostFiles

# The mark of keys that a demo made (accounts/demo.py) goes with them.
DEMO_MARK = "made-by-demo"
WHOLE = (ANCHOR_KEY, "backup_key.json", "backup_writer.json", DEMO_MARK)
CARRIED = (keys.FILE, signing.FILE, keys.BUNDLE, *WHOLE)


@dataclass(frozen=True, slots=True)
class Held:
    """Ids of the keys of a secrets folder, which are fingerprints and no secrets."""

    current: str
    site: tuple[str, ...]
    signing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import brought: ids of new keys, names of new files, and what is held now."""

    sender: str
    site: tuple[str, ...]
    signing: tuple[str, ...]
    files: tuple[str, ...]
    held: Held


def export_keys(
    secrets: Path, sender: HostFiles, recipient: x509.Certificate, *, clock: Clock = utc_now
) -> bytes:
    """The keys of `secrets`, sealed to one host. Raises `TrustError` and `SiteKeysError`."""
    return envelope.seal(collect(secrets), sender, recipient, clock=clock)


def import_keys(
    secrets: Path,
    own: HostFiles,
    data: bytes,
    *,
    senders: Collection[str] | None = None,
    clock: Clock = utc_now,
) -> Imported:
    """Open what `export_keys` sealed to this host, and merge it, durably.

    `senders` are the hosts that may send keys; any host of the site unless given. Raises `TrustError`,
    `SiteKeysError` and `CellError`; then nothing was changed.
    """
    opened = envelope.unseal(data, own, clock=clock)
    if senders is not None and opened.sender not in senders:
        raise TrustError(
            f"{opened.sender} is no host that sends keys: {', '.join(sorted(senders))}"
        )
    return merge(secrets, opened.content, opened.sender)


def collect(secrets: Path) -> bytes:
    """The content of an envelope. Raises `SiteKeysError` if there are no site keys."""
    keys.read(secrets)
    found = {}
    for name in CARRIED:
        try:
            found[name] = base64.b64encode((secrets / name).read_bytes()).decode("ascii")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TrustError(f"{secrets / name} cannot be read: {error.strerror}") from error
    return json.dumps(found).encode()


def held(secrets: Path) -> Held:
    """What is in a secrets folder; `current` is empty where there are no site keys yet.

    Raises `SiteKeysError` and `CellError` for files that cannot be read.
    """
    loaded = keys.read(secrets) if keys.path_of(secrets).exists() else None
    signers = signing.read(secrets)[1] if signing.exists(secrets) else {}
    site = () if loaded is None else tuple(sorted(loaded.keys))
    return Held("" if loaded is None else loaded.current, site, tuple(sorted(signers)))


def merge(secrets: Path, content: bytes, sender: str) -> Imported:
    """Put the content of an envelope into `secrets`; see `import_keys`."""
    incoming = _files(content)
    theirs = keys.parse(incoming[keys.FILE], "the sealed site keys")
    signers = incoming.get(signing.FILE)
    with keys.lock(secrets):
        before = held(secrets)
        _refuse_other_files(secrets, incoming)
        if before.site:
            merging.merged(keys.read(secrets), theirs)
        # What could be refused has been: signing keys are read before the first file is written.
        fresh = signing.parse(signers, "the sealed signing keys") if signers is not None else None
        merging.take(secrets, theirs)
        if fresh is not None:
            signing.merge(secrets, *fresh)
        files = [name for name in WHOLE if name in incoming and not (secrets / name).exists()]
        for name in files:
            replace_file(secrets / name, incoming[name])
        _take_newer_bundle(secrets, incoming.get(keys.BUNDLE))
        now = held(secrets)
    return Imported(
        sender=sender,
        site=tuple(sorted(set(now.site) - set(before.site))),
        signing=tuple(sorted(set(now.signing) - set(before.signing))),
        files=tuple(files),
        held=now,
    )


def details_of(brought: Imported) -> dict[str, Any]:
    """What the audit keeps of an import: ids, which are fingerprints."""
    return {
        "change": "imported",
        "sender": brought.sender,
        "site": list(brought.site),
        "signing": list(brought.signing),
        "files": list(brought.files),
        "current": brought.held.current,
    }


def _files(content: bytes) -> dict[str, bytes]:
    try:
        raw = json.loads(content)
        found = {
            name: base64.b64decode(raw[name], validate=True) for name in CARRIED if name in raw
        }
        if keys.FILE not in found:
            raise ValueError
    except (ValueError, TypeError):
        raise TrustError("the sealed content holds no site keys") from None
    return found


def _refuse_other_files(secrets: Path, incoming: dict[str, bytes]) -> None:
    for name in WHOLE:
        path = secrets / name
        if name in incoming and path.exists() and path.read_bytes() != incoming[name]:
            raise TrustError(f"{path} is another than the one that was sent: move one of them away")


def _take_newer_bundle(secrets: Path, data: bytes | None) -> None:
    """The escrow's bundle follows rotations; the newer one holds every key of the older one."""
    if data is None:
        return
    sent = escrow.parse_bundle(data, "the sealed escrow bundle")
    try:
        here = escrow.read_bundle(secrets)
    except SiteKeysError:
        here = None
    if here is None or sent.made_at > here.made_at:
        replace_file(secrets / keys.BUNDLE, data)
