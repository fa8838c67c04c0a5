"""A model folder is accepted only when it is whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.weights import FolderError, check_folder, check_safetensors
from tests.configs.folders import header, write_folder


def test_accepts_a_whole_folder(tmp_path: Path) -> None:
    check_folder(write_folder(tmp_path / "model"))


def test_accepts_shards_named_by_an_index(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_names_the_missing_file(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(FolderError, match=name.replace(".", r"\.")):
        check_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_names_the_file_that_is_not_json(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / name).write_text('{"half":')
    with pytest.raises(FolderError, match=rf"{name} is not JSON"):
        check_folder(folder)


def test_refuses_a_configuration_without_a_model_type(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="has no model_type"):
        check_folder(folder)


def test_refuses_a_folder_without_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FolderError, match="has no model"):
        check_folder(folder)


def test_names_the_shard_that_the_index_wants_and_the_folder_lacks(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FolderError, match=r"lacks model-2\.safetensors"):
        check_folder(folder)


def test_refuses_a_path_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is not a folder"):
        check_folder(tmp_path / "absent")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "its header says"),
        (lambda data: data + b"x", "its header says"),
        (lambda data: data[:4], "is truncated"),
        (lambda data: data[:12], "is truncated or no safetensors"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1", "truncated or no safetensors"),
        (lambda data: data[:8] + b"{" * (len(data) - 8), "no valid safetensors header"),
        (lambda _: struct.pack("<Q", 2) + b"{}", "holds no tensors"),
        (lambda _: header({"w": {"dtype": "F32"}}), "no valid safetensors header"),
    ],
    ids=["cut", "longer", "stub", "headless", "pointer", "noise", "empty", "no-offsets"],
)
def test_refuses_damaged_weights(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    file = write_folder(tmp_path / "model") / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(FolderError, match=message):
        check_safetensors(file)
