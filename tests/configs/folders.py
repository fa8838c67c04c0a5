"""Model folders that are right in form and hold one tensor."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any


def write_folder(folder: Path) -> Path:
    """A folder that passes the reader's check."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "gemma3_text"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    tensors = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    (folder / "model.safetensors").write_bytes(header(tensors) + bytes(16))
    return folder


def header(tensors: dict[str, Any]) -> bytes:
    """The beginning of a safetensors file."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text
