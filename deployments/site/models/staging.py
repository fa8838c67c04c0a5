"""A new version: gathered under a hidden name, hashed, made durable, and only then given its name.

A crash at any step leaves a hidden folder, which the next command on the model removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.weights import FolderError, check_folder
from deployments.data.durable import replace_file, synchronise, synchronise_folder
from deployments.site.models.errors import StoreError
from deployments.site.models.manifest import FILE, MAX_FILES, Entry, Manifest
from deployments.site.models.store import Model
from deployments.site.models.verification import BLOCK, digest, faults, files_below

RESERVE_BYTES = 2**30
_DRAFT = ".draft-"


def stage(
    model: Model,
    source: Path,
    given: Manifest | None = None,
    *,
    link: bool = False,
    repository: str | None = None,
    revision: str | None = None,
) -> str:
    """Take a folder's files in as a version and return its name. A version that is there is mended.

    Without `given` all files but hidden ones are taken. `link` shares the files with `source`, which
    then must never be written to. Raises `StoreError` for a folder that is no model, differs from
    `given`, or does not fit on the disk.
    """
    insist_on_model(source)
    with model.lock():
        wanted = _wanted(source, given)
        insist_on_room(model, 0 if link else sum((source / path).stat().st_size for path in wanted))
        with draft(model) as folder:
            taken = (_take(source / path, folder, path, link=link) for path in wanted)
            manifest = _manifest(tuple(taken), given, repository, revision)
            return publish(model, folder, manifest)


@contextmanager
def draft(model: Model) -> Iterator[Path]:
    """A hidden folder for a version that is on its way; under the lock. What is left of others goes."""
    clear_drafts(model)
    folder = model.versions_folder / f"{_DRAFT}{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_drafts(model: Model) -> None:
    """Remove what commands that crashed have left; under the lock."""
    for left in model.versions_folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(left, ignore_errors=True)


def publish(model: Model, folder: Path, manifest: Manifest) -> str:
    """Give a draft, its files durable and hashed, its name. Raises `StoreError` if it is no model."""
    insist_on_model(folder)
    replace_file(folder / FILE, manifest.data())
    for top, _, _ in os.walk(folder):
        synchronise_folder(Path(top))
    version = manifest.version
    target = model.path_of(version)
    if target.exists():
        _mend_from(folder, target, version)
    else:
        folder.rename(target)
    synchronise_folder(model.versions_folder)
    return version


def insist_on_model(folder: Path) -> None:
    """Raise `StoreError` unless a folder has the form of a model (configs/weights.py)."""
    try:
        check_folder(folder)
    except FolderError as error:
        raise StoreError(str(error)) from error


def insist_on_room(model: Model, size: int) -> None:
    """Raise `StoreError` unless so many bytes fit, and a gigabyte beside them."""
    free = shutil.disk_usage(model.versions_folder).free
    if free < size + RESERVE_BYTES:
        raise StoreError(
            f"{model.versions_folder} has {free / 2**30:.1f} GB free; the version needs "
            f"{size / 2**30:.1f} GB, and {RESERVE_BYTES / 2**30:g} GB must be left"
        )


def copy_hashed(source: Path, target: Path) -> Entry:
    """Copy one file and make it durable; its `path` is the target's bare name. Raises `OSError`."""
    total, size = hashlib.sha256(), 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with source.open("rb", buffering=0) as reader, os.fdopen(handle, "wb") as writer:
        while block := reader.read(BLOCK):
            total.update(block)
            size += len(block)
            writer.write(block)
        writer.flush()
        synchronise(writer.fileno())
    return Entry(path=target.name, size=size, sha256=total.hexdigest())


def _wanted(source: Path, given: Manifest | None) -> list[str]:
    """The paths to take. Raises `StoreError` for one that is not there or cannot be in a manifest."""
    if given is not None:
        named = [entry.path for entry in given.files]
        if absent := [path for path in named if not (source / path).is_file()]:
            raise StoreError(f"{source} lacks {absent[0]}, which the manifest names")
        return named
    found = sorted(path for path in files_below(source) if path != FILE)
    if len(found) > MAX_FILES:
        raise StoreError(f"{source} has {len(found)} files; a model has {MAX_FILES} at most")
    for path in found:
        if not (source / path).is_file():
            raise StoreError(f"{source / path} is no file: link or copy its files one by one")
        try:
            Entry(path=path, size=0, sha256="0" * 64)
        except ValueError:
            raise StoreError(f"{source / path} has a name that a manifest cannot hold") from None
    return found


def _take(file: Path, folder: Path, path: str, *, link: bool) -> Entry:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        if not link:
            taken = copy_hashed(file, target)
        else:
            os.link(file.resolve(), target)
            taken = Entry(path=path, size=target.stat().st_size, sha256=digest(target))
    except OSError as error:
        hint = "; it is on another disk: stage without --link" if error.errno == errno.EXDEV else ""
        raise StoreError(f"{file} cannot be taken: {error.strerror}{hint}") from error
    return taken.model_copy(update={"path": path})


def _manifest(
    taken: tuple[Entry, ...], given: Manifest | None, repository: str | None, revision: str | None
) -> Manifest:
    if given is None:
        return Manifest(files=taken, repository=repository, revision=revision)
    for entry in taken:
        wanted = given.entry(entry.path)
        if wanted is None or (entry.size, entry.sha256) != (wanted.size, wanted.sha256):
            raise StoreError(f"{entry.path} is not what the manifest says: its SHA-256 differs")
    return given


def _mend_from(folder: Path, target: Path, version: str) -> None:
    """Put whole files in the place of those of an existing version that are not."""
    for fault in faults(target, version):
        whole = folder / fault.path
        if whole.exists():
            (target / fault.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            whole.replace(target / fault.path)
            synchronise_folder((target / fault.path).parent)
    if left := faults(target, version):
        raise StoreError(f"{target} is there already, and is not whole: {left[0]}")
