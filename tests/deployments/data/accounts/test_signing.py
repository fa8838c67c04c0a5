"""Signing keys: private on disk, rotated without a gap, found by replicas that did not rotate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cell.state import CellError
from deployments.data.accounts import signing
from deployments.data.accounts.signing import SigningKeys


def test_without_keys_the_start_is_refused_naming_the_command(tmp_path: Path) -> None:
    with pytest.raises(CellError, match="medrec key init-signing"):
        SigningKeys(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"demo": false, "keys": []}', '{"demo":1,"keys":[{}]}']
)
def test_a_damaged_file_is_told_without_its_content(tmp_path: Path, text: str) -> None:
    (tmp_path / signing.FILE).write_text(text)
    with pytest.raises(CellError, match=signing.FILE):
        SigningKeys(tmp_path)


def test_the_file_is_its_owners_alone_and_made_once(tmp_path: Path) -> None:
    signing.create(tmp_path, demo=True)
    file = tmp_path / signing.FILE
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    signing.create(tmp_path, demo=False)
    assert file.read_bytes() == before
    assert SigningKeys(tmp_path).demo
    assert [path.name for path in tmp_path.iterdir()] == [signing.FILE]


def test_the_published_keys_are_public(tmp_path: Path) -> None:
    signing.create(tmp_path, demo=False)
    keys = SigningKeys(tmp_path)
    (published,) = keys.jwks()["keys"]
    assert set(published) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert published["alg"] == "ES256"
    assert published["kid"] == keys.current().kid


def test_another_replica_finds_a_rotated_key_and_the_old_one_verifies_for_a_day(
    tmp_path: Path,
) -> None:
    now = 100.0
    signing.create(tmp_path, demo=False, now=1000.0)
    keys = SigningKeys(tmp_path, clock=lambda: now)
    old = keys.current().kid
    fresh = signing.rotate(tmp_path, now=2000.0)
    assert keys.find(fresh) is None  # looked a moment ago
    now += 2
    assert keys.find(fresh) is not None
    assert keys.current().kid == fresh
    assert keys.find(old) is not None
    # Made long ago, but retired only by the rotation above.
    later = signing.rotate(tmp_path, now=2000.0 + signing.KEPT_S - 1)
    assert set(signing.read(tmp_path)[1]) == {old, fresh, later}
    last = signing.rotate(tmp_path, now=2000.0 + signing.KEPT_S + 1)
    assert set(signing.read(tmp_path)[1]) == {fresh, later, last}


def test_a_replica_signs_with_the_new_key_soon_and_survives_the_file(tmp_path: Path) -> None:
    now = 100.0
    signing.create(tmp_path, demo=False, now=1000.0)
    keys = SigningKeys(tmp_path, clock=lambda: now)
    fresh = signing.rotate(tmp_path, now=2000.0)
    now += 31
    assert keys.current().kid == fresh
    (tmp_path / signing.FILE).unlink()
    now += 31
    assert keys.current().kid == fresh


def test_own_keys_replace_a_demos(tmp_path: Path) -> None:
    signing.create(tmp_path, demo=True)
    kid = signing.rotate(tmp_path, own=True)
    demo, found = signing.read(tmp_path)
    assert not demo
    assert set(found) == {kid}


def test_the_kid_is_the_thumbprint_of_rfc_7638(tmp_path: Path) -> None:
    signing.create(tmp_path, demo=False)
    raw = json.loads((tmp_path / signing.FILE).read_text())["keys"][0]
    assert set(raw) == {"kid", "created", "pem"}
    assert len(raw["kid"]) == 43
