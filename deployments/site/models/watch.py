"""Watches over the current versions: a look at every file often, every byte once a day, slowly.

`look` and `read_next` block and are called in threads, by one caller each; `Rounds` is that caller.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployments.site.models.errors import Busy, StoreError
from deployments.site.models.manifest import FILE, Entry, Manifest, read
from deployments.site.models.mending import mend
from deployments.site.models.peer import Peer
from deployments.site.models.store import Model, Store
from deployments.site.models.verification import Fault, Pace, damage, missing, strangers

READ_BYTES_PER_S = 50e6
READ_EVERY_S = 86_400.0
# After an attempt to mend that came to nothing.
MEND_EVERY_S = 300.0

Stamp = tuple[int, int, int]  # size, moment of the last change, inode
Key = tuple[str, str, str]  # model, version, path


@dataclass(slots=True)
class _File:
    """What is known of one file: as what it was read last, when, and what was wrong with it."""

    entry: Entry
    stamp: Stamp | None = None
    read_s: float | None = None
    fault: Fault | None = None


@dataclass(slots=True)
class Watch:
    """The watch over one store. `peer` opens a connection to the other cell, where there is one."""

    store: Store
    peer: Callable[[], Peer] | None = None
    pace: Pace = field(default_factory=lambda: Pace(READ_BYTES_PER_S))
    clock: Callable[[], float] = time.monotonic
    mended: int = 0
    _files: dict[Key, _File] = field(default_factory=dict)
    _faulty: dict[str, str] = field(default_factory=dict)
    _tried: dict[str, tuple[float, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def faulty(self) -> Mapping[str, str]:
        """Models of which something is wrong now, and what, in a sentence."""
        with self._lock:
            return dict(self._faulty)

    @property
    def models(self) -> list[str]:
        """The models that are watched: those that have a current version."""
        return [model.name for model in self.store.models() if model.current is not None]

    def look(self) -> None:
        """See that every file is there, has its size and has not changed; mend what is not in order."""
        watched: set[Key] = set()
        names = set()
        for model in self.store.models():
            if (version := model.current) is None:
                continue
            names.add(model.name)
            found = self._look_at(model, version, watched)
            if found:
                found = self._mend(model, version, found, watched)
            self._tell(model.name, found)
        with self._lock:
            for key in self._files.keys() - watched:
                del self._files[key]
            for name in self._faulty.keys() - names:
                del self._faulty[name]

    def read_next(self) -> bool:
        """Read the file that is due most, at the pace; False if none is. Raises `Stopped`."""
        if (due := self._due()) is None:
            return False
        (name, version, path), file = due
        folder = self.store.model(name).path_of(version)
        stamp = _stamp(folder, path)
        fault = damage(folder, file.entry, self.pace)
        with self._lock:
            file.stamp, file.read_s, file.fault = stamp, self.clock(), fault
            if fault is not None:
                self._faulty.setdefault(name, str(fault))
        return True

    def _due(self) -> tuple[Key, _File] | None:
        """A file that was never read comes first, then the one that was read longest ago."""
        with self._lock:
            waiting = [(f.read_s or 0.0, key) for key, f in self._files.items() if self._is_due(f)]
            key = min(waiting)[1] if waiting else None
            return (key, self._files[key]) if key else None

    def _is_due(self, file: _File) -> bool:
        return file.read_s is None or self.clock() - file.read_s >= READ_EVERY_S

    def _look_at(self, model: Model, version: str, watched: set[Key]) -> list[Fault]:
        folder = model.path_of(version)
        try:
            manifest = read(folder, version)
        except StoreError as error:
            return [Fault(FILE, f"cannot be relied on: {error}")]
        found = [*missing(folder, manifest), *strangers(folder, manifest)]
        known = {fault.path for fault in found}
        for key, file in self._noted(model.name, version, manifest):
            watched.add(key)
            stamp = _stamp(folder, file.entry.path)
            with self._lock:
                if file.read_s is not None and stamp != file.stamp:
                    # Changed since it was read: nothing is known of it any more.
                    file.stamp, file.read_s, file.fault = None, None, None
                elif file.fault is not None and file.entry.path not in known:
                    found.append(file.fault)
        return found

    def _noted(self, name: str, version: str, manifest: Manifest) -> list[tuple[Key, _File]]:
        with self._lock:
            return [
                (key, self._files.setdefault(key, _File(entry)))
                for entry in manifest.files
                for key in [(name, version, entry.path)]
            ]

    def _mend(
        self, model: Model, version: str, found: list[Fault], watched: set[Key]
    ) -> list[Fault]:
        """What is left of the faults after the other cell was asked, if it is time to ask again."""
        if self.peer is None:
            return found
        tried_s, problem = self._tried.get(model.name, (-MEND_EVERY_S, ""))
        if self.clock() - tried_s >= MEND_EVERY_S:
            try:
                with self.peer() as peer:
                    mended = mend(model, version, found, peer)
            except Busy:
                return found
            except StoreError as error:
                problem = f"; not mended: {error}"
            else:
                self.mended += len(mended)
                self._tried.pop(model.name, None)
                return self._look_at(model, version, watched)
            self._tried[model.name] = self.clock(), problem
        return [Fault(found[0].path, found[0].reason + problem), *found[1:]]

    def _tell(self, name: str, found: list[Fault]) -> None:
        with self._lock:
            if not found:
                self._faulty.pop(name, None)
                return
            more = f" ({len(found)} faults)" if len(found) > 1 else ""
            self._faulty[name] = f"{found[0]}{more}"


def _stamp(folder: Path, path: str) -> Stamp | None:
    try:
        status = (folder / path).stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
