"""Proves that sealed keys open for one host alone, unchanged, and only from a host of the site."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deployments.site.trust.authority import Authority, devices_folder
from deployments.site.trust.envelope import MOST_BYTES, seal, unseal
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import read_certificate
from deployments.site.trust.renewal import host_files
from tests.deployments.site.trust.clock import Clock
from tests.deployments.site.trust.conftest import Cells

CONTENT = b"what only mac-b may read"


def sealed(cells: Cells) -> bytes:
    return seal(CONTENT, cells.a.files, cells.b.certificate)


def changed(data: bytes, **values: Any) -> bytes:
    return json.dumps({**json.loads(data), **values}).encode()


def test_the_host_that_it_is_for_opens_it_and_knows_who_sent_it(cells: Cells) -> None:
    data = sealed(cells)
    opened = unseal(data, cells.b.files)
    assert (opened.content, opened.sender) == (CONTENT, "mac-a")
    assert CONTENT not in data
    assert CONTENT.decode() not in repr(opened)


def test_another_host_of_the_site_cannot_open_it(cells: Cells) -> None:
    with pytest.raises(TrustError, match=r"sealed to mac-b, and not to .* this host \(cloud\)"):
        unseal(sealed(cells), host_files(cells.ca, "cloud"))


def test_a_certificate_made_since_cannot_open_it(cells: Cells) -> None:
    data = sealed(cells)
    Authority(cells.ca).issue("host", "mac-b", ["mac-b"])
    with pytest.raises(TrustError, match="not to the present certificate of this host"):
        unseal(data, cells.b.files)


@pytest.mark.parametrize("name", ["from", "to", "to_key", "made_at", "sealed", "signature"])
def test_whatever_is_changed_on_the_way_is_noticed(cells: Cells, name: str) -> None:
    data = sealed(cells)
    text = json.loads(data)[name]
    other = text[:4] + ("3" if text[4] != "3" else "4") + text[5:]
    with pytest.raises(TrustError):
        unseal(changed(data, **{name: other}), cells.b.files)


def test_a_host_of_another_authority_cannot_send(cells: Cells) -> None:
    theirs = read_certificate(cells.stranger.files.certificate)
    with pytest.raises(TrustError, match="the recipient's certificate is of another authority"):
        seal(CONTENT, cells.stranger.files, cells.b.certificate)
    with pytest.raises(TrustError, match="the recipient's certificate is of another authority"):
        seal(CONTENT, cells.a.files, theirs)
    # Even where it takes our authority for its own, ours does not take it for one of ours.
    cells.stranger.files.ca.write_bytes(cells.a.files.ca.read_bytes())
    cells.stranger.files.crl.write_bytes(cells.a.files.crl.read_bytes())
    forged = seal(CONTENT, cells.stranger.files, cells.b.certificate)
    with pytest.raises(TrustError, match="the sender's certificate is of another authority"):
        unseal(forged, cells.b.files)


def test_the_name_of_another_sender_is_noticed_although_it_is_signed(cells: Cells) -> None:
    data = sealed(cells)
    with pytest.raises(TrustError, match="changed on their way"):
        unseal(changed(data, **{"from": "cloud"}), cells.b.files)


def test_a_revoked_host_neither_sends_nor_receives(cells: Cells) -> None:
    data = sealed(cells)
    Authority(cells.ca).revoke("host", "mac-a")
    with pytest.raises(TrustError, match="the sender's certificate is revoked"):
        unseal(data, cells.b.files)
    with pytest.raises(TrustError, match="the recipient's certificate is revoked"):
        seal(CONTENT, cells.b.files, cells.a.certificate)


def test_a_device_neither_sends_nor_receives(cells: Cells) -> None:
    device = Authority(devices_folder(cells.ca)).issue_device("mac-a").files
    with pytest.raises(TrustError, match="the recipient's certificate is of another authority"):
        seal(CONTENT, cells.a.files, read_certificate(device.certificate))
    posing = replace(device, ca=cells.a.files.ca, crl=cells.a.files.crl)
    with pytest.raises(TrustError, match="the sender's certificate is of another authority"):
        unseal(seal(CONTENT, posing, cells.b.certificate), cells.b.files)


def test_the_edges_certificate_neither_sends_nor_receives(cells: Cells) -> None:
    edge = Authority(cells.ca).issue("edge", "edge", ["medrec.localhost"])
    with pytest.raises(TrustError, match="the recipient's certificate is not a host's"):
        seal(CONTENT, cells.a.files, read_certificate(edge.certificate))
    posing = replace(edge, ca=cells.a.files.ca, crl=cells.a.files.crl)
    with pytest.raises(TrustError, match="the sender's certificate is not a host's"):
        unseal(seal(CONTENT, posing, cells.b.certificate), cells.b.files)


def test_an_old_one_is_refused_so_that_dropped_keys_stay_away(cells: Cells) -> None:
    clock = Clock()
    data = seal(CONTENT, cells.a.files, cells.b.certificate, clock=clock)
    clock.pass_days(6.9)
    assert unseal(data, cells.b.files, clock=clock).content == CONTENT
    clock.pass_days(0.2)
    with pytest.raises(TrustError, match="too old"):
        unseal(data, cells.b.files, clock=clock)
    clock.pass_days(-8)
    with pytest.raises(TrustError, match="not good yet"):
        unseal(data, cells.b.files, clock=clock)


def test_a_certificate_that_is_over_is_refused(cells: Cells) -> None:
    clock = Clock()
    clock.pass_days(400)
    with pytest.raises(TrustError, match="the recipient's certificate is over"):
        seal(CONTENT, cells.a.files, cells.b.certificate, clock=clock)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b"x" * (MOST_BYTES + 1), b'{"format": 1}']
)
def test_what_is_no_envelope_is_refused_in_a_sentence(cells: Cells, data: bytes) -> None:
    with pytest.raises(TrustError, match="no sealed keys, or damaged ones"):
        unseal(data, cells.b.files)


def test_two_of_the_same_content_have_nothing_in_common(cells: Cells) -> None:
    first, second = (json.loads(sealed(cells))["sealed"] for _ in range(2))
    assert first != second
