"""Whether a folder can be a model: the files are there, parse, and have the length that they claim.

Reads headers only, so that 54 GB are checked in milliseconds and without a tensor library.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_INDEX = "model.safetensors.index.json"


class FolderError(ValueError):
    """A model folder is missing, incomplete or corrupt; the message names the file."""


def check_folder(folder: Path) -> None:
    """Raise `FolderError` unless `folder` holds a configuration, a tokenizer and whole weights."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    config = _json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise FolderError(f"{folder / 'config.json'} has no model_type")
    _json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").exists():
        _json(folder / "tokenizer.json")
    elif not (folder / "tokenizer.model").is_file():
        raise FolderError(f"{folder} has neither tokenizer.json nor tokenizer.model")
    for shard in _shards(folder):
        check_safetensors(shard)


def check_safetensors(file: Path) -> None:
    """Raise `FolderError` unless the header parses and the file ends where its tensors do.

    The format: 8 bytes of little-endian length, that many bytes of JSON, then the tensors, whose
    `data_offsets` count from the end of the header (huggingface/safetensors, README, "Format").
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(_LENGTH.size)
            if len(prefix) < _LENGTH.size:
                raise FolderError(f"{file} is truncated: {size} bytes")
            (length,) = _LENGTH.unpack(prefix)
            if length > min(_MAX_HEADER_BYTES, size - _LENGTH.size):
                raise FolderError(f"{file} is truncated or no safetensors file")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except OSError as error:
        raise FolderError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, FolderError):
            raise
        raise FolderError(f"{file} has no valid safetensors header") from error
    if not ends:
        raise FolderError(f"{file} holds no tensors")
    expected = _LENGTH.size + length + max(ends)
    if size != expected:
        raise FolderError(f"{file} has {size} bytes, its header says {expected}")


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.exists():
        names = _json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise FolderError(f"{index} has no weight_map")
        shards = [folder / str(name) for name in sorted(set(names.values()))]
    else:
        shards = sorted(folder.glob("model*.safetensors"))
    if not shards:
        raise FolderError(f"{folder} has no model*.safetensors")
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise FolderError(f"{folder} lacks {', '.join(missing)}")
    return shards


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise FolderError(f"{file.parent} lacks {file.name}") from error
    except OSError as error:
        raise FolderError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FolderError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FolderError(f"{file} is not a JSON object")
    return value
