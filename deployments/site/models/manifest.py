"""The manifest of a model version: its files with size and SHA-256, whose hash is the version's name."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from configs.args import Strict
from deployments.site.models.errors import StoreError

FILE = "manifest.json"
MAX_BYTES = 4 * 2**20
MAX_FILES = 10_000

# Nothing hidden, nothing that could lead out of the folder.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=rf"^{_PART}(/{_PART}){{0,7}}$", max_length=240)]


class Entry(Strict):
    """One file; `path` is relative to the version's folder."""

    path: RelativePath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Manifest(Strict):
    """Every file of a version, in the order of their paths, and where it came from."""

    format: Literal["medrec-model-1"] = "medrec-model-1"
    files: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=MAX_FILES)]
    repository: Annotated[str, Field(max_length=200)] | None = None
    revision: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _paths_are_in_order(self) -> Manifest:
        paths = [entry.path for entry in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("the files are not in the order of their paths, each once")
        if FILE in paths:
            raise ValueError(f"{FILE} cannot name itself")
        above = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
        if above & set(paths):
            raise ValueError("a file is below another file")
        return self

    @property
    def version(self) -> str:
        """SHA-256 over the lines `<sha256>  <size>  <path>`, 64 hexadecimal digits."""
        lines = (f"{entry.sha256}  {entry.size}  {entry.path}\n" for entry in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def entry(self, path: str) -> Entry | None:
        """The file at a path; None where the manifest names none."""
        return next((entry for entry in self.files if entry.path == path), None)

    def data(self) -> bytes:
        """The manifest as it is written down and sent."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def parse(data: bytes, what: str) -> Manifest:
    """The manifest that `data` holds. Raises `StoreError`, which calls it `what`."""
    if len(data) > MAX_BYTES:
        raise StoreError(f"{what} is larger than a manifest can be")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{what} is no manifest: {where or 'file'}: {first['msg']}") from None


def read(folder: Path, version: str | None = None) -> Manifest:
    """The manifest in `folder`, which must be that of `version` if given. Raises `StoreError`."""
    file = folder / FILE
    try:
        with file.open("rb") as stream:
            found = parse(stream.read(MAX_BYTES + 1), str(file))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from error
    if version is not None and found.version != version:
        raise StoreError(f"{file} is damaged: its files make another version")
    return found
