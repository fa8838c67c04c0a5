"""Proves that enough shares rebuild the site keys, and that fewer, wrong or mixed ones do not."""

from __future__ import annotations

import itertools
import json

import pytest

from deployments.data.seal import escrow, keys
from deployments.data.seal.errors import SiteKeysError

SITE = keys.new_site_keys().with_new_current()


def test_any_k_of_n_rebuild_everything_and_no_k_minus_1_do() -> None:
    bundle, shares = escrow.establish(SITE, holders=4, threshold=3)
    texts = [share.text() for share in shares]
    for some in itertools.combinations(texts, 3):
        assert escrow.recover(bundle, some) == SITE
    assert escrow.recover(bundle, texts) == SITE
    for few in itertools.combinations(texts, 2):
        with pytest.raises(SiteKeysError, match="2 different shares are too few"):
            escrow.recover(bundle, few)
        # The same one twice is still one.
        with pytest.raises(SiteKeysError, match="too few"):
            escrow.recover(bundle, (*few, few[0]))


def test_even_a_forged_threshold_does_not_help_two_of_three() -> None:
    bundle, shares = escrow.establish(SITE, holders=3, threshold=3)
    raw = json.loads(bundle.dump())
    raw["threshold"] = 2
    forged = escrow.parse_bundle(json.dumps(raw).encode(), "x")
    with pytest.raises(SiteKeysError, match="do not go together"):
        escrow.recover(forged, [share.text() for share in shares[:2]])


def test_shares_of_another_escrow_mistyped_and_mixed_ones_are_refused_and_told_apart() -> None:
    bundle, shares = escrow.establish(SITE, holders=3, threshold=2)
    _, others = escrow.establish(SITE, holders=3, threshold=2)
    with pytest.raises(SiteKeysError, match="another escrow"):
        escrow.recover(bundle, [share.text() for share in others])
    with pytest.raises(SiteKeysError, match="do not go together"):
        escrow.recover(bundle, [shares[0].text(), others[1].text()])
    words = shares[0].words.split()
    for wrong in ([*words[:5], words[6], words[5], *words[7:]], [*words[:-1], "silva"]):
        with pytest.raises(SiteKeysError, match="share 2 has a word") as refused:
            escrow.recover(bundle, [shares[1].text(), " ".join(wrong)])
        assert "silva" not in str(refused.value)
    with pytest.raises(SiteKeysError, match="share 2 has 3 words"):
        escrow.recover(bundle, [shares[0].text(), "one two three"])


def test_a_renewed_bundle_opens_with_the_same_shares_and_holds_the_new_keys() -> None:
    bundle, shares = escrow.establish(SITE, holders=3, threshold=2)
    later = SITE.with_new_current()
    renewed = bundle.renewed(later)
    assert renewed.fingerprint == bundle.fingerprint
    assert escrow.recover(renewed, [share.text() for share in shares[1:]]) == later
    assert escrow.parse_bundle(renewed.dump(), "x") == renewed


@pytest.mark.parametrize("changed", ["made_at", "current", "sealed", "public_key"])
def test_a_changed_bundle_is_refused(changed: str) -> None:
    bundle, shares = escrow.establish(SITE, holders=2, threshold=2)
    raw = json.loads(bundle.dump())
    text = raw[changed]
    raw[changed] = ("A" if text[0] != "A" else "B") + text[1:]
    with pytest.raises(SiteKeysError, match="damaged"):
        escrow.recover(
            escrow.parse_bundle(json.dumps(raw).encode(), "the file"),
            [share.text() for share in shares],
        )


@pytest.mark.parametrize(("holders", "threshold"), [(1, 1), (3, 1), (2, 3), (17, 2)])
def test_numbers_that_protect_nothing_are_refused(holders: int, threshold: int) -> None:
    with pytest.raises(SiteKeysError, match="2 to 16 holders"):
        escrow.establish(SITE, holders=holders, threshold=threshold)


def test_neither_bundle_nor_share_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes on while an escrow is made: both tell the same moment all the same.
    clock = (f"2026-11-30T00:49:{second:02}+00:00" for second in range(60))
    monkeypatch.setattr(escrow, "_now", lambda: next(clock))
    bundle, shares = escrow.establish(SITE, holders=2, threshold=2)
    secrets = [SITE.index, *(key.secret for key in SITE.keys.values())]
    assert not any(secret in bundle.sealed for secret in secrets)
    assert shares[0].words not in repr(shares[0])
    assert "share 1 of 2" in shares[0].text()
    assert bundle.fingerprint in shares[0].text()
    assert bundle.made_at in shares[0].text()
