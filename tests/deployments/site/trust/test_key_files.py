"""Proves that the cells of a site come to the same keys, and lose none on the way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deployments.data.accounts import signing
from deployments.data.accounts.signing import SigningKeys
from deployments.data.accounts.tokens import Tokens
from deployments.data.errors import Unauthenticated
from deployments.data.principal import Principal
from deployments.data.seal import escrow, keys
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.sealer import Sealer
from deployments.site.trust.errors import TrustError
from deployments.site.trust.key_files import Imported, export_keys, held, import_keys
from tests.deployments.site.trust.conftest import Cell, Cells

ISSUER = "https://medrec.hospital.example"


def carry(sender: Cell, receiver: Cell) -> Imported:
    data = export_keys(sender.secrets, sender.files, receiver.certificate)
    return import_keys(receiver.secrets, receiver.files, data)


def token(cell: Cell) -> str:
    ana = Principal("ana", "account", "physician", "hospital", frozenset(), session="s")
    return tokens(cell).issue(ana, ends_at=time.time() + 600).token


def tokens(cell: Cell) -> Tokens:
    return Tokens(SigningKeys(cell.secrets), ISSUER, 300)


def test_tokens_of_one_cell_are_accepted_by_the_other(cells: Cells) -> None:
    signing.create(cells.b.secrets, demo=False)
    with pytest.raises(Unauthenticated):
        tokens(cells.b).verify(token(cells.a))
    brought = carry(cells.a, cells.b)
    assert len(brought.signing) == 1
    assert tokens(cells.b).verify(token(cells.a)).id == "ana"
    # The one that the second cell had signs on there, until it has been carried back.
    carry(cells.b, cells.a)
    assert tokens(cells.a).verify(token(cells.b)).id == "ana"
    assert held(cells.a.secrets) == held(cells.b.secrets)


def test_what_one_cell_sealed_the_other_opens_and_searches_alike(cells: Cells) -> None:
    brought = carry(cells.a, cells.b)
    assert brought.sender == "mac-a"
    ours, theirs = Sealer.load(cells.a.secrets), Sealer.load(cells.b.secrets)
    assert theirs.open(ours.seal(b"secret", b"row"), b"row") == b"secret"
    assert theirs.blind("name", "silva") == ours.blind("name", "silva")
    assert keys.path_of(cells.b.secrets).stat().st_mode & 0o077 == 0


def test_every_other_key_goes_along_and_none_is_replaced(cells: Cells) -> None:
    (cells.a.secrets / "backup_key.json").write_text("one")
    assert carry(cells.a, cells.b).files == ("backup_key.json",)
    assert carry(cells.a, cells.b).files == ()
    (cells.a.secrets / "backup_key.json").write_text("two")
    signing.rotate(cells.a.secrets)
    before = {path.name: path.read_bytes() for path in cells.b.secrets.iterdir()}
    with pytest.raises(TrustError, match="another than the one that was sent"):
        carry(cells.a, cells.b)
    assert {path.name: path.read_bytes() for path in cells.b.secrets.iterdir()} == before


def test_site_keys_of_another_site_are_refused_and_nothing_is_changed(cells: Cells) -> None:
    keys.create(cells.b.secrets)
    before = cells.b.file(keys.FILE)
    with pytest.raises(SiteKeysError, match="of another site"):
        carry(cells.a, cells.b)
    assert cells.b.file(keys.FILE) == before
    assert not signing.exists(cells.b.secrets)


def test_a_newer_key_becomes_current_and_old_ones_are_kept(cells: Cells) -> None:
    carry(cells.a, cells.b)
    first = held(cells.a.secrets).current
    keys.write(cells.a.secrets, keys.read(cells.a.secrets).with_new_current())
    second = held(cells.a.secrets).current
    brought = carry(cells.a, cells.b)
    assert brought.site == (second,)
    assert brought.held.current == second
    assert set(brought.held.site) == {first, second}
    # A rotation belongs to the cell that makes it.
    assert keys.read(cells.b.secrets).rotating_from is None


def test_an_older_set_does_not_turn_the_clock_back(cells: Cells) -> None:
    old = export_keys(cells.a.secrets, cells.a.files, cells.b.certificate)
    keys.write(cells.a.secrets, keys.read(cells.a.secrets).with_new_current())
    carry(cells.a, cells.b)
    now = held(cells.b.secrets)
    assert import_keys(cells.b.secrets, cells.b.files, old).held == now


def test_a_key_that_is_not_current_yet_comes_without_being_used(cells: Cells) -> None:
    carry(cells.a, cells.b)
    ours = keys.read(cells.a.secrets)
    begun = ours.with_new_current()
    staged = keys.SiteKeys(ours.current, begun.keys, ours.index)
    keys.write(cells.a.secrets, staged)
    brought = carry(cells.a, cells.b)
    assert brought.held.current == ours.current
    assert begun.current in brought.held.site


def test_a_key_made_by_a_late_clock_is_still_the_newer_one(cells: Cells) -> None:
    ours = keys.read(cells.a.secrets)
    key = ours.keys[ours.current]
    ahead = keys.SiteKey(key.id, key.secret, "2100-01-01T00:00:00+00:00")
    keys.write(cells.a.secrets, keys.SiteKeys(key.id, {key.id: ahead}, ours.index))
    carry(cells.a, cells.b)
    keys.write(cells.a.secrets, keys.read(cells.a.secrets).with_new_current())
    assert carry(cells.a, cells.b).held.current == held(cells.a.secrets).current != key.id


def test_the_newer_escrow_bundle_wins(cells: Cells) -> None:
    bundle, _ = escrow.establish(keys.read(cells.a.secrets), holders=3, threshold=2)
    (cells.a.secrets / keys.BUNDLE).write_bytes(bundle.dump())
    carry(cells.a, cells.b)
    assert cells.b.file(keys.BUNDLE) == bundle.dump()
    (cells.a.secrets / keys.BUNDLE).unlink()
    carry(cells.a, cells.b)
    assert cells.b.file(keys.BUNDLE) == bundle.dump()


def test_only_hosts_that_may_send_are_listened_to(cells: Cells) -> None:
    data = export_keys(cells.a.secrets, cells.a.files, cells.b.certificate)
    with pytest.raises(TrustError, match="mac-a is no host that sends keys: cloud, mac-b"):
        import_keys(cells.b.secrets, cells.b.files, data, senders={"mac-b", "cloud"})
    assert not list(cells.b.secrets.iterdir())


def test_a_cell_without_site_keys_has_nothing_to_send(cells: Cells) -> None:
    with pytest.raises(SiteKeysError, match="no site keys"):
        export_keys(cells.b.secrets, cells.b.files, cells.a.certificate)


def test_a_signing_key_that_is_long_retired_does_not_come_back(cells: Cells) -> None:
    month_ago = time.time() - 30 * 86400
    (cells.a.secrets / signing.FILE).unlink()
    signing.create(cells.a.secrets, demo=False, now=month_ago)
    retired = held(cells.a.secrets).signing
    signing.merge(cells.a.secrets, *signing.read(cells.stranger.secrets), now=month_ago + 1)
    data = export_keys(cells.a.secrets, cells.a.files, cells.b.certificate)
    assert retired[0] in held(cells.a.secrets).signing
    signing.create(cells.b.secrets, demo=False)
    brought = import_keys(cells.b.secrets, cells.b.files, data)
    assert retired[0] in brought.held.signing  # its successor began to sign just now
    signing.rotate(cells.b.secrets, now=time.time() + 2 * 86400)
    assert retired[0] not in held(cells.b.secrets).signing


def test_a_key_that_signs_later_verifies_at_once(tmp_path: Path) -> None:
    now = 1_000_000.0
    signing.create(tmp_path, demo=False, now=now)
    first = signing.read(tmp_path)[1].keys()
    new = signing.rotate(tmp_path, now=now, delay_s=60)
    at = [now + 1]
    loaded = SigningKeys(tmp_path, now=lambda: at[0])
    assert loaded.current().kid in first
    assert loaded.find(new) is not None
    at[0] = now + 60
    assert loaded.current().kid == new
    at[0] = now - 5
    assert loaded.current().kid in first
