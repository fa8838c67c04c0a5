"""Small folders as one stream each: the configs, and the secrets without the backup's own keys."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from deployments.data.backup import keys
from deployments.data.backup.errors import BackupError, Damaged
from deployments.data.durable import synchronise_folder

# What is kept here are keys and texts; anything larger is no config.
_MOST = 64 * 2**20


def packed_secrets(folder: Path) -> bytes:
    """The secrets folder as a tar file. The backup's own keys would be locked in with themselves."""
    own = {keys.FILE, keys.WRITER_FILE}
    return _packed({path.name: path for path in _files(folder) if path.name not in own})


def packed_configs(places: tuple[Path, ...]) -> bytes:
    """Configs, files or folders of them, as a tar file; what is named and not there is refused."""
    found: dict[str, Path] = {}
    for place in places:
        if not place.exists():
            raise BackupError(f"the config {place} is not there")
        for path in _files(place):
            found[str(path.resolve()).lstrip("/")] = path
    return _packed(found)


def unpack(data: bytes, folder: Path) -> list[str]:
    """Write the files of such a tar file, for their owner alone. Returns their names."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                # 0600 whatever was packed; `data` refuses names that lead outside.
                tar.extract(member.replace(mode=0o600, deep=False), folder, filter="data")
                names.append(member.name)
    except (tarfile.TarError, ValueError) as error:
        raise Damaged(f"a folder of the backup cannot be unpacked: {error}") from None
    synchronise_folder(folder)
    return names


def file_in(packed: bytes, name: str) -> bytes | None:
    """One file of such a tar file; None if it is not there."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        try:
            found = tar.extractfile(name)
        except KeyError:
            return None
        return None if found is None else found.read()


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for top, _, names in os.walk(place):
        for name in sorted(names):
            path = Path(top) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _packed(files: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, path in files.items():
                data = path.read_bytes()
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o600
                member.mtime = int(path.stat().st_mtime)
                tar.addfile(member, io.BytesIO(data))
                if buffer.tell() > _MOST:
                    raise BackupError(f"{path.parent} is larger than keys and configs are")
    except OSError as error:
        raise BackupError(f"{error.filename} cannot be read: {error.strerror}") from None
    return buffer.getvalue()
