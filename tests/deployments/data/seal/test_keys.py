"""Proves that the site keys' file is private, whole, never overwritten and never made unasked."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from deployments.data.seal import keys
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.sealer import Sealer


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_file_is_not_made_but_refused_with_the_commands_that_help(tmp_path: Path) -> None:
    with pytest.raises(SiteKeysError, match=r"medrec seal init .* medrec seal recover"):
        Sealer.load(tmp_path / "secrets")
    assert not (tmp_path / "secrets").exists()


def test_file_and_folder_are_the_owners_alone_and_are_read_back_as_written(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    made = keys.create(secrets)
    assert mode(secrets) == 0o700
    assert mode(keys.path_of(secrets)) == 0o600
    assert keys.read(secrets) == made
    rotated = made.with_new_current()
    keys.write(secrets, rotated)
    assert keys.read(secrets) == rotated
    assert rotated.rotating_from == made.current
    assert mode(keys.path_of(secrets)) == 0o600
    assert [path.name for path in secrets.iterdir() if path.name.startswith(".")] == []


def test_keys_are_never_overwritten_by_making_new_ones(tmp_path: Path) -> None:
    assert keys.ensure_site_keys(tmp_path)
    before = keys.path_of(tmp_path).read_bytes()
    assert not keys.ensure_site_keys(tmp_path)
    with pytest.raises(SiteKeysError, match="already"):
        keys.create(tmp_path)
    assert keys.path_of(tmp_path).read_bytes() == before


def test_a_demo_makes_no_new_keys_where_an_escrow_shows_that_there_were_some(
    tmp_path: Path,
) -> None:
    (tmp_path / keys.BUNDLE).touch()
    with pytest.raises(SiteKeysError, match="medrec seal recover"):
        keys.ensure_site_keys(tmp_path)
    assert not keys.path_of(tmp_path).exists()


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    keys.create(tmp_path)
    keys.path_of(tmp_path).chmod(0o640)
    with pytest.raises(SiteKeysError, match="chmod 600"):
        keys.read(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "current", "key", "shape"])
def test_a_damaged_file_is_refused_without_quoting_it(tmp_path: Path, damage: str) -> None:
    made = keys.create(tmp_path)
    raw = json.loads(made.dump())
    other = keys.new_key()
    if damage == "current":
        raw["current"] = other.id
    if damage == "key":  # a secret under the id of another one
        raw["keys"][other.id] = raw["keys"][made.current]
    if damage == "shape":
        raw["keys"] = [1]
    text = json.dumps(raw)[: -20 if damage == "cut" else None]
    keys.path_of(tmp_path).write_text(text)
    with pytest.raises(SiteKeysError, match="medrec seal recover") as refused:
        keys.read(tmp_path)
    secret = raw["index"]
    assert secret not in str(refused.value)
    assert refused.value.__cause__ is None


def test_one_change_at_a_time(tmp_path: Path) -> None:
    with (
        keys.lock(tmp_path),
        pytest.raises(SiteKeysError, match="another medrec seal"),
        keys.lock(tmp_path),
    ):
        pass
    with keys.lock(tmp_path):
        pass


def test_the_current_key_is_never_dropped(tmp_path: Path) -> None:
    rotated = keys.new_site_keys().with_new_current()
    kept = rotated.without(set(rotated.keys))
    assert set(kept.keys) == {rotated.current}
    assert kept.rotating_from is None


def test_no_secret_is_in_a_representation() -> None:
    made = keys.new_site_keys()
    assert repr(made) == f"SiteKeys(current={made.current}, keys=['{made.current}'])"
    assert repr(made.keys[made.current]) == f"SiteKey({made.current})"
