"""The watch finds what changes at a look and what rots by reading, says so, and mends what it can."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from configs.args import OtherHosts
from deployments.cell import condition
from deployments.cell.state import Home
from deployments.site.models import rounds
from deployments.site.models.errors import PeerError
from deployments.site.models.peer import Peer
from deployments.site.models.rounds import Rounds
from deployments.site.models.staging import stage
from deployments.site.models.store import Model, Store
from deployments.site.models.switching import switch
from deployments.site.models.verification import Pace, Stopped, digest
from deployments.site.models.watch import MEND_EVERY_S, READ_EVERY_S, Watch
from tests.deployments.site.models.stores import HOST, WEIGHTS, served, source, spoil, staged

FULL_SPEED = Pace()


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A model with a current version."""
    found, [version] = staged(tmp_path, "one")
    switch(found, version)
    return found


class Clock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def watch_of(model: Model, clock: Clock, url: str | None = None) -> Watch:
    store = Store(model.folder.parent)
    return Watch(store, None if url is None else lambda: Peer(url, HOST), FULL_SPEED, clock)


def read_all(watch: Watch) -> int:
    count = 0
    while watch.read_next():
        count += 1
    return count


def current(model: Model) -> Path:
    return (model.folder / "current").resolve()


def test_every_file_is_read_once_a_day_and_once_after_it_has_changed(model: Model) -> None:
    clock = Clock()
    watch = watch_of(model, clock)
    watch.look()
    files = len(json.loads((current(model) / "manifest.json").read_text())["files"])
    assert read_all(watch) == files
    watch.look()
    assert read_all(watch) == 0
    (current(model) / WEIGHTS).touch()
    watch.look()
    assert read_all(watch) == 1
    clock.now_s += READ_EVERY_S
    watch.look()
    assert read_all(watch) == files
    assert watch.faulty == {}


def test_a_byte_that_rots_in_silence_is_found_by_reading_and_named(model: Model) -> None:
    clock = Clock()
    watch = watch_of(model, clock)
    watch.look()
    read_all(watch)
    spoil(current(model) / WEIGHTS)
    watch.look()
    assert watch.faulty == {}, "neither size nor time nor inode says anything"
    clock.now_s += READ_EVERY_S
    read_all(watch)
    assert watch.faulty == {"demo": f"{WEIGHTS} is damaged: its SHA-256 differs"}
    watch.look()
    assert list(watch.faulty) == ["demo"], "a look that sees nothing new forgets nothing"


def test_a_look_alone_finds_what_is_missing_cut_off_slipped_in_or_forged(model: Model) -> None:
    watch = watch_of(model, Clock())
    folder = current(model)
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).chmod(0o600)
    (folder / WEIGHTS).write_bytes(whole[:-1])
    watch.look()
    assert "the manifest says" in watch.faulty["demo"]
    (folder / WEIGHTS).unlink()
    watch.look()
    assert watch.faulty["demo"].startswith(f"{WEIGHTS} is missing")
    (folder / WEIGHTS).write_bytes(whole)
    watch.look()
    read_all(watch)
    assert watch.faulty == {}
    (folder / "model-2.safetensors").touch()
    watch.look()
    assert watch.faulty["demo"] == "model-2.safetensors is not in the manifest"
    (folder / "model-2.safetensors").unlink()
    (folder / "manifest.json").unlink()
    watch.look()
    assert "manifest.json cannot be relied on" in watch.faulty["demo"]


def test_a_file_that_could_not_be_read_and_came_back_is_whole_again(model: Model) -> None:
    watch = watch_of(model, Clock())
    watch.look()
    (current(model) / WEIGHTS).rename(model.folder / "aside")
    read_all(watch)
    assert "cannot be read" in watch.faulty["demo"]
    (model.folder / "aside").rename(current(model) / WEIGHTS)
    watch.look()
    read_all(watch)
    watch.look()
    assert watch.faulty == {}


def test_what_is_damaged_is_mended_from_the_other_cell_at_the_next_look(
    tmp_path: Path, model: Model
) -> None:
    other, [version] = staged(tmp_path / "there", "one")
    with served(Store(other.folder.parent)) as url:
        watch = watch_of(model, Clock(), url)
        watch.look()
        spoil(current(model) / WEIGHTS)
        read_all(watch)
        assert list(watch.faulty) == ["demo"]
        watch.look()
        assert watch.faulty == {}
        assert watch.mended == 1
    assert digest(current(model) / WEIGHTS) == digest(other.path_of(version) / WEIGHTS)
    assert read_all(watch) == 1, "the new file is read as any that changed"


def test_a_cell_that_cannot_help_is_asked_again_only_after_a_pause(model: Model) -> None:
    clock = Clock()
    asked = 0

    def nobody() -> Peer:
        nonlocal asked
        asked += 1
        raise PeerError("nobody answers")

    watch = Watch(Store(model.folder.parent), nobody, FULL_SPEED, clock)
    (current(model) / "README.md").unlink()
    for _ in range(3):
        watch.look()
        assert watch.faulty["demo"].endswith("not mended: nobody answers")
    assert asked == 1
    clock.now_s += MEND_EVERY_S
    watch.look()
    assert asked == 2


def test_a_switch_changes_what_is_watched(tmp_path: Path, model: Model) -> None:
    watch = watch_of(model, Clock())
    (current(model) / "README.md").unlink()
    watch.look()
    assert list(watch.faulty) == ["demo"]
    switch(model, stage(model, source(tmp_path / "two", "two")))
    watch.look()
    assert watch.faulty == {}
    assert watch.models == ["demo"]


def test_reading_keeps_to_its_pace_and_stops_within_a_block(tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_bytes(bytes(3 * 2**20))
    began_s = time.monotonic()
    digest(file, Pace(bytes_per_s=15 * 2**20))
    assert 0.19 < time.monotonic() - began_s < 2
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    began_s = time.monotonic()
    with pytest.raises(Stopped):
        digest(file, Pace(bytes_per_s=1000, stop=stop))
    assert time.monotonic() - began_s < 5


def told(home: Home) -> dict[str, str] | None:
    found: dict[str, str] | None = condition.read(home).get("models", {}).get("faulty")
    return found


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_rounds_tell_the_site_the_metrics_and_the_log_and_end_at_once(
    tmp_path: Path,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(rounds, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(rounds, "READ_LAP_S", 0.02)
    monkeypatch.setattr(rounds, "logger", logging.getLogger("tests.rounds"))
    home = Home(tmp_path / "home")
    shown: list[Mapping[str, float]] = []
    at_work = Rounds(Store(model.folder.parent), home, OtherHosts(), shown.append)
    at_work.begin()
    try:
        async with asyncio.timeout(10):
            await until(lambda: told(home) == {})
            assert shown[-1] == {"demo": 0.0}
            (current(model) / "README.md").unlink()
            await until(lambda: list(told(home) or ()) == ["demo"])
            assert shown[-1] == {"demo": 1.0}
            assert at_work.report()["faulty"]["demo"].startswith("README.md is missing")
            (current(model) / "README.md").write_text("one")
            await until(lambda: told(home) == {})
        assert at_work.ailment is None
    finally:
        began_s = time.monotonic()
        await at_work.end()
    assert time.monotonic() - began_s < 2
    lines = [record.getMessage() for record in caplog.records if record.name == "tests.rounds"]
    faults = [line for line in lines if "README.md is missing" in line]
    assert len(faults) == 1, "once, however many looks find it"
    assert "models: demo is whole again" in lines
    assert at_work.ailment == "the models' watch has ended"
