"""A manifest names plain files inside the folder, once each, and its hash is the version's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.site.models.errors import StoreError
from deployments.site.models.manifest import MAX_BYTES, Entry, Manifest, parse, read

HASH = "ab" * 32


def manifest(*paths: str, **more: Any) -> bytes:
    files = [{"path": path, "size": 1, "sha256": HASH} for path in paths]
    return json.dumps({"format": "medrec-model-1", "files": files, **more}).encode()


def test_what_was_written_down_is_read_again() -> None:
    found = Manifest(
        files=(Entry(path="a/b.json", size=3, sha256=HASH), Entry(path="c", size=0, sha256=HASH)),
        repository="owner/name",
        revision="1" * 40,
    )
    assert parse(found.data(), "it") == found
    assert found.size == 3
    assert found.entry("c") == found.files[1]
    assert found.entry("a") is None


@pytest.mark.parametrize(
    "path",
    [
        *("../outside", "a/../../outside", "/etc/passwd", "a//b", "a/", "", ".", "..", "./a"),
        *(".hidden", "a/.hidden", "a\\b", "a\nb", "a b", "a%2e%2e", "C:a", "ä", "a" * 300),
        "manifest.json",
    ],
)
def test_no_path_leads_out_of_the_folder_or_hides(path: str) -> None:
    with pytest.raises(StoreError, match="is no manifest"):
        parse(manifest(path), "it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        manifest(),
        manifest("b", "a"),
        manifest("a", "a"),
        manifest("a", "a/b"),
        manifest("a", "a-b", "a/b/c"),
        manifest("a", extra=1),
        manifest("a").replace(b"model-1", b"model-9"),
        manifest("a").replace(b'"size": 1', b'"size": -1'),
        manifest("a").replace(b"abab", b"ABAB"),
        b"[" * 100_000,
    ],
)
def test_what_is_no_manifest_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"^it is no manifest"):
        parse(data, "it")


def test_a_manifest_without_end_is_not_parsed() -> None:
    with pytest.raises(StoreError, match="larger than a manifest"):
        parse(b" " * (MAX_BYTES + 1), "it")


def test_the_version_changes_with_every_path_size_and_hash_but_not_with_the_origin() -> None:
    first = parse(manifest("a", "b"), "it")
    others = [
        parse(manifest("a", "c"), "it"),
        parse(manifest("a"), "it"),
        parse(manifest("a", "b").replace(b'"size": 1', b'"size": 2', 1), "it"),
        parse(manifest("a", "b").replace(b"ab", b"cd", 1), "it"),
    ]
    assert len({first.version, *(other.version for other in others)}) == 5
    assert parse(manifest("a", "b", repository="owner/name"), "it").version == first.version


def test_a_manifest_of_another_version_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(manifest("a"))
    version = read(tmp_path).version
    assert read(tmp_path, version).version == version
    with pytest.raises(StoreError, match="is damaged"):
        read(tmp_path, HASH)
    with pytest.raises(StoreError, match="cannot be read"):
        read(tmp_path / "absent")
