"""What a folder must hold, and what an operator is told when it does not."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from models.errors import ModelLoadError
from models.loading import LoadedModel, load, weights_sha256


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "damaged"))


def test_a_folder_says_what_it_is(model: LoadedModel, folder: Path) -> None:
    assert model.vocabulary == 4096
    assert model.context_length == 131072
    assert model.tokenizer.stop_tokens == {1, 5}
    weights = (folder / "model.safetensors").read_bytes()
    assert model.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert 0.9 * len(weights) < model.weights_bytes <= len(weights)


def test_a_repository_without_a_revision_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"^owner/name: no such folder, and no revision"):
        load("owner/name")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_fails_and_names_the_folder(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelLoadError) as raised:
        load(str(copy))
    assert raised.value.message.startswith(f"{copy}: ")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_corrupt_file_fails_and_names_the_folder(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelLoadError) as raised:
        load(str(copy))
    assert raised.value.message.startswith(f"{copy}: ")


def test_weights_that_do_not_fit_the_config_fail(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(ModelLoadError, match="damaged"):
        load(str(copy))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_and_caches_are_cast(folder: Path, dtype: str) -> None:
    loaded = load(str(folder), dtype=dtype)
    expected = getattr(mx, dtype)
    assert {array.dtype for _, array in tree_flatten(loaded.network.parameters())} == {expected}
    assert loaded.kv is not None
    assert {layer.dtype for layer in loaded.kv.layers} == {expected}


def test_the_digest_covers_all_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"2")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    (tmp_path / "c.json").write_bytes(b"3")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"12").hexdigest()
