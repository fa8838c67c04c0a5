"""Fetches from the other cell: single files of a version that is damaged here, or all of a new one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from deployments.data.durable import replace_file, synchronise, synchronise_folder
from deployments.site.models import staging
from deployments.site.models.errors import StoreError
from deployments.site.models.manifest import FILE, Entry, Manifest, read
from deployments.site.models.peer import Peer
from deployments.site.models.store import CURRENT, Model
from deployments.site.models.verification import FULL_SPEED, Fault, Pace, damage, faults

_DRAFT = ".draft-"


def mend(model: Model, version: str, found: Sequence[Fault], peer: Peer) -> list[str]:
    """Replace the files named by `found` by the other cell's; returns their paths.

    A file that the manifest does not name stays where it is. Raises `StoreError`.
    """
    folder = model.path_of(version)
    mended = []
    with model.lock():
        for left in folder.rglob(f"{_DRAFT}*"):
            left.unlink()
        manifest, is_new = _manifest(model, version, peer)
        if is_new:
            mended.append(FILE)
            found = faults(folder, version)
        for fault in found:
            if (entry := manifest.entry(fault.path)) is not None:
                staging.insist_on_room(model, entry.size)
                _replace(folder, entry, peer, model.name, version)
                mended.append(entry.path)
    return mended


def pull(model: Model, peer: Peer, version: str = CURRENT) -> str:
    """Bring a version of the other cell here, verified; returns its name. Raises `StoreError`.

    What is here already and whole is not fetched again.
    """
    manifest = peer.manifest(model.name, version)
    found = manifest.version
    if model.path_of(found).exists():
        mend(model, found, faults(model.path_of(found), found), peer)
        insist_on_whole(model, found)
        return found
    with model.lock():
        staging.insist_on_room(model, manifest.size)
        with staging.draft(model) as folder:
            for entry in manifest.files:
                _write(folder / entry.path, entry, peer, model.name, found)
            return staging.publish(model, folder, manifest)


def insist_on_whole(model: Model, version: str, pace: Pace = FULL_SPEED) -> None:
    """Read a whole version and raise `StoreError` unless every byte is right and it is a model."""
    if left := faults(model.path_of(version), version, pace):
        raise StoreError(f"{model.name} {version[:12]} is not whole: {_all(left)}")
    staging.insist_on_model(model.path_of(version))


def _all(found: Sequence[Fault]) -> str:
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(str(fault) for fault in found[:3]) + more


def _manifest(model: Model, version: str, peer: Peer) -> tuple[Manifest, bool]:
    """The manifest of a version, and whether it had to be fetched."""
    folder = model.path_of(version)
    try:
        return read(folder, version), False
    except StoreError:
        manifest = peer.manifest(model.name, version)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(folder / FILE, manifest.data())
    return manifest, True


def _replace(folder: Path, entry: Entry, peer: Peer, name: str, version: str) -> None:
    """Put the other cell's file under the name of ours: an engine that has ours open keeps it."""
    target = folder / entry.path
    draft = target.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
    try:
        _write(draft, entry, peer, name, version)
        draft.replace(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be replaced: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    synchronise_folder(target.parent)
    if fault := damage(folder, entry):
        raise StoreError(f"{name} {version[:12]}: {fault}, just after it was fetched: see the disk")


def _write(file: Path, entry: Entry, peer: Peer, name: str, version: str) -> None:
    """Fetch one file to where none is yet, and make it durable. Raises `StoreError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(handle, "wb") as stream:
            peer.fetch(name, version, entry, stream)
            stream.flush()
            synchronise(stream.fileno())
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from error
