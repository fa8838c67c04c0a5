"""What is damaged here comes from the other cell, whole or not at all, renamed over the old file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployments.site.models import peer as peers
from deployments.site.models.errors import Busy, PeerError, StoreError
from deployments.site.models.manifest import read
from deployments.site.models.mending import insist_on_whole, mend, pull
from deployments.site.models.peer import Peer
from deployments.site.models.store import Model, Store
from deployments.site.models.switching import switch
from deployments.site.models.verification import Fault, faults
from tests.deployments.site.models.stores import HOST, WEIGHTS, served, spoil, staged


@pytest.fixture
def there(tmp_path: Path) -> tuple[Model, str]:
    """The model in the other cell's store, and its current version."""
    model, [version] = staged(tmp_path / "there", "one")
    switch(model, version)
    return model, version


@pytest.fixture
def peer(tmp_path: Path, there: tuple[Model, str]) -> Iterator[Peer]:
    """The other cell, over loopback."""
    with served(Store(tmp_path / "there" / "store")) as url, Peer(url, HOST) as found:
        yield found


@pytest.fixture
def here(tmp_path: Path) -> tuple[Model, str]:
    """The same version here, current as well."""
    model, [version] = staged(tmp_path / "here", "one")
    switch(model, version)
    return model, version


def test_a_corrupt_byte_is_found_and_the_file_fetched_from_the_other_cell(
    here: tuple[Model, str], peer: Peer
) -> None:
    model, version = here
    folder = model.path_of(version)
    spoil(folder / WEIGHTS)
    (folder / "extra" / "notes.txt").unlink()
    found = faults(folder, version)
    assert {fault.path for fault in found} == {WEIGHTS, "extra/notes.txt"}
    with (folder / WEIGHTS).open("rb") as opened:
        mapped = opened.read()
        assert set(mend(model, version, found, peer)) == {WEIGHTS, "extra/notes.txt"}
        opened.seek(0)
        assert opened.read() == mapped, "an engine that has the old file open keeps its bytes"
    insist_on_whole(model, version)
    assert not list(folder.rglob(".*"))


def test_a_damaged_manifest_is_fetched_and_what_it_says_is_then_looked_at(
    here: tuple[Model, str], peer: Peer
) -> None:
    model, version = here
    folder = model.path_of(version)
    (folder / "manifest.json").chmod(0o600)
    (folder / "manifest.json").write_text("{}")
    spoil(folder / WEIGHTS)
    assert set(mend(model, version, faults(folder, version), peer)) == {"manifest.json", WEIGHTS}
    insist_on_whole(model, version)


def test_a_version_that_is_gone_altogether_comes_back(here: tuple[Model, str], peer: Peer) -> None:
    model, version = here
    shutil.rmtree(model.path_of(version))
    mend(model, version, faults(model.path_of(version), version), peer)
    insist_on_whole(model, version)


def test_a_file_that_is_damaged_at_both_cells_is_left_as_it_is(
    here: tuple[Model, str], there: tuple[Model, str], peer: Peer
) -> None:
    model, version = here
    for each in (here[0], there[0]):
        spoil(each.path_of(version) / WEIGHTS)
    before = (model.path_of(version) / WEIGHTS).read_bytes()
    with pytest.raises(PeerError, match=r"is damaged at .* as well"):
        mend(model, version, [Fault(WEIGHTS, "is damaged")], peer)
    assert (model.path_of(version) / WEIGHTS).read_bytes() == before
    assert not list(model.path_of(version).rglob(".*"))


def test_a_stranger_among_the_files_is_reported_and_never_removed(
    here: tuple[Model, str], peer: Peer
) -> None:
    model, version = here
    (model.path_of(version) / "model-2.safetensors").touch()
    assert mend(model, version, faults(model.path_of(version), version), peer) == []
    with pytest.raises(StoreError, match="is not in the manifest"):
        insist_on_whole(model, version)


def test_nothing_is_mended_under_another_commands_hands(
    here: tuple[Model, str], peer: Peer
) -> None:
    model, version = here
    with model.lock(), pytest.raises(Busy):
        mend(model, version, [Fault(WEIGHTS, "is damaged")], peer)


def test_pull_brings_the_other_cells_current_version_and_leaves_the_switch_to_the_operator(
    tmp_path: Path, there: tuple[Model, str], peer: Peer
) -> None:
    model = Store(tmp_path / "new").model("demo")
    assert pull(model, peer) == there[1]
    insist_on_whole(model, there[1])
    assert model.current is None
    assert read(model.path_of(there[1])) == read(there[0].path_of(there[1]))
    assert pull(model, peer) == there[1], "what is here is not fetched again"


def test_pull_of_a_damaged_copy_leaves_no_version(
    tmp_path: Path, there: tuple[Model, str], peer: Peer
) -> None:
    spoil(there[0].path_of(there[1]) / WEIGHTS)
    model = Store(tmp_path / "new").model("demo")
    with pytest.raises(PeerError, match=f"{WEIGHTS} of demo is damaged"):
        pull(model, peer)
    assert list(model.versions_folder.iterdir()) == []


def test_pull_of_what_is_not_there_says_so(tmp_path: Path, peer: Peer) -> None:
    with pytest.raises(PeerError, match=r"not there, or this cell is not known there \(404\)"):
        pull(Store(tmp_path / "new").model("other"), peer)


def test_a_cell_that_does_not_know_this_one_gives_nothing(tmp_path: Path, peer: Peer) -> None:
    with (
        Peer(peer.base_url, "mac-z") as stranger,
        pytest.raises(PeerError, match="not known there"),
    ):
        pull(Store(tmp_path / "new").model("demo"), stranger)


def test_a_cell_that_is_away_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    with Peer("http://127.0.0.1:9") as peer, pytest.raises(PeerError, match="the manifest of demo"):
        pull(Store(tmp_path / "new").model("demo"), peer)


class Flaky(httpx.BaseTransport):
    """The other cell behind a line that breaks off after so many bytes of each file."""

    def __init__(self, after: int) -> None:
        self._inner = httpx.HTTPTransport()
        self._after = after
        self.ranges: list[str | None] = []

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        if "/files/" not in request.url.path:
            return answer
        self.ranges.append(request.headers.get("range"))
        data = answer.read()
        return httpx.Response(answer.status_code, stream=Broken(data, self._after))


class Broken(httpx.SyncByteStream):
    """So many bytes, and then a broken connection unless that was all."""

    def __init__(self, data: bytes, after: int) -> None:
        self._data, self._after = data, after

    def __iter__(self) -> Iterator[bytes]:
        yield self._data[: self._after]
        if len(self._data) > self._after:
            raise httpx.ReadError("broken off")


def test_a_long_file_goes_on_where_the_connection_broke_off(
    tmp_path: Path, there: tuple[Model, str], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PAUSE_S", 0.0)
    size = (there[0].path_of(there[1]) / WEIGHTS).stat().st_size
    line = Flaky(after=size // 3)
    with Peer(peer.base_url, HOST, line) as flaky:
        version = pull(Store(tmp_path / "new").model("demo"), flaky)
    assert version == there[1]
    assert f"bytes={size // 3}-" in line.ranges
    assert f"bytes={size // 3 * 2}-" in line.ranges


def test_a_line_on_which_nothing_comes_is_given_up(
    tmp_path: Path, there: tuple[Model, str], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PAUSE_S", 0.0)
    line = Flaky(after=0)
    with Peer(peer.base_url, HOST, line) as flaky, pytest.raises(PeerError, match="broken off"):
        pull(Store(tmp_path / "new").model("demo"), flaky)
    assert len(line.ranges) == peers.ATTEMPTS
