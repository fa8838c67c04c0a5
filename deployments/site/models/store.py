"""The folders of the model store: which versions there are, which one is current, who works on it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT
from deployments.cell.state import Home
from deployments.data.durable import synchronise_folder
from deployments.site.models.errors import Busy, StoreError
from deployments.site.models.manifest import FILE as MANIFEST

CURRENT = "current"
PREVIOUS = "previous"
VERSIONS = "versions"
SHORT = 12
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_VERSION = re.compile(r"[0-9a-f]{64}")


def is_version(text: str) -> bool:
    """Whether a text has the form of a version's name."""
    return _VERSION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the store; its folder need not be there yet."""

    folder: Path

    @property
    def name(self) -> str:
        """The model's name in the store."""
        return self.folder.name

    @property
    def versions_folder(self) -> Path:
        """Where the versions lie."""
        return self.folder / VERSIONS

    @property
    def current(self) -> str | None:
        """The version that a cell serves when it starts; None before the first switch."""
        return self._target(CURRENT)

    @property
    def previous(self) -> str | None:
        """The version before, which a rollback makes current; None if there is none."""
        return self._target(PREVIOUS)

    def path_of(self, version: str) -> Path:
        """The folder of a version."""
        return self.versions_folder / version

    def versions(self) -> list[str]:
        """Every version here, in the order of their arrival."""
        try:
            found = [entry for entry in self.versions_folder.iterdir() if is_version(entry.name)]
        except FileNotFoundError:
            return []
        return [entry.name for entry in sorted(found, key=_arrival)]

    def find(self, text: str) -> str:
        """The version of which `text` is the name, its beginning or a link's. Raises `StoreError`."""
        if text in (CURRENT, PREVIOUS):
            if (linked := self._target(text)) is None:
                raise StoreError(f"{self.name} has no {text} version")
            return linked
        found = [version for version in self.versions() if version.startswith(text)]
        if len(found) == 1:
            return found[0]
        problem = "several versions that begin" if found else "no version that begins"
        raise StoreError(f"{self.name} has {problem} with {text!r}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the model for this process; its folder exists afterwards. Raises `Busy`."""
        self.versions_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Busy(f"another command works on {self.name}: wait for it") from None
            yield
        finally:
            os.close(handle)

    def advance(self, version: str) -> None:
        """Make `version` current and the present one previous. Under the lock."""
        if version == self.current:
            return
        # In this order: a crash between the two leaves the old version current.
        if (present := self.current) is not None:
            self._point(PREVIOUS, present)
        self._point(CURRENT, version)

    def go_back(self) -> None:
        """Exchange current and previous. Under the lock. Raises `StoreError` without a previous one."""
        target, present = self.find(PREVIOUS), self.current
        # In this order: a crash between the two has gone back already.
        self._point(CURRENT, target)
        if present is not None:
            self._point(PREVIOUS, present)

    def _target(self, link: str) -> str | None:
        try:
            target = os.readlink(self.folder / link)
        except OSError:
            return None
        folder, _, version = target.rpartition("/")
        return version if folder == VERSIONS and is_version(version) else None

    def _point(self, link: str, version: str) -> None:
        draft = self.folder / f".{link}.{os.getpid()}"
        try:
            draft.unlink(missing_ok=True)
            draft.symlink_to(f"{VERSIONS}/{version}")
            draft.replace(self.folder / link)
        except OSError as error:
            raise StoreError(f"{self.folder / link} cannot be set: {error.strerror}") from error
        synchronise_folder(self.folder)


def _arrival(version: Path) -> tuple[int, str]:
    """When a version's manifest was written; a mended file in it does not make it newer."""
    try:
        return (version / MANIFEST).stat().st_mtime_ns, version.name
    except OSError:
        return 0, version.name


@dataclass(frozen=True, slots=True)
class Store:
    """The store of one cell; its folder need not be there yet."""

    folder: Path

    def model(self, name: str) -> Model:
        """The model of that name. Raises `StoreError` for what cannot be a name."""
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot be a model's name: a-z, 0-9, '.', '_' and '-' only")
        return Model(self.folder / name)

    def present(self, name: str) -> Model:
        """The model of that name, which must be there. Raises `StoreError`."""
        model = self.model(name)
        if not model.versions_folder.is_dir():
            raise StoreError(f"{self.folder} has no model {name}")
        return model

    def models(self) -> list[Model]:
        """Every model here, by name."""
        try:
            found = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        return [
            Model(entry)
            for entry in found
            if _NAME.fullmatch(entry.name) and (entry / VERSIONS).is_dir()
        ]


def store_of(args: RecordsArgs, home: Home) -> Store:
    """The store that `args` name, or the home's own."""
    if args.models is None:
        return Store(home.path / "models")
    return Store(PROJECT_ROOT / Path(args.models).expanduser())
