"""The comparison with a peer, between two servers of known behaviour."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from benchmarks import chat, duel, servers
from benchmarks.chat import ChatOptions
from benchmarks.duel import Sides, candidates, compare, wide_enough, with_model
from benchmarks.load import ClosedLoop, OpenLoop
from benchmarks.report import Report
from benchmarks.servers import PeerFlags, ServerFailed
from benchmarks.targets import Target, loopback
from configs.reader import PROJECT_ROOT
from tests.benchmarks.fake_openai import FakeServer, Script, serving

FLAGS = PeerFlags(threads=1)


class FakeSide:
    """A side whose server is a fake of known speed; `order` records who was up when."""

    def __init__(self, name: str, script: Script, order: list[str]) -> None:
        self.name = name
        self.model = "fake-model"
        self.script = script
        self.order = order
        self._serving: AbstractContextManager[FakeServer] | None = None

    async def start(self) -> Target:
        self.order.append(f"{self.name} up")
        self._serving = serving(self.script)
        return loopback(self._serving.__enter__().url)

    async def stop(self) -> None:
        assert self._serving is not None
        self._serving.__exit__(None, None, None)
        self.order.append(f"{self.name} down")


class BrokenSide(FakeSide):
    async def start(self) -> Target:
        raise ServerFailed("theirs ended with exit code 3 while starting")


@pytest.fixture(autouse=True)
def _brief_idle_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "IDLE_SAMPLE_S", 0.01)


def _compare(ours: Script, peer: FakeSide, order: list[str], clients: int = 32) -> Report:
    options = ChatOptions(clients=(clients,), requests=1, max_tokens=5, warm_up_s=0)
    sides = Sides(lambda: FakeSide("ours", ours, order), lambda _: peer)
    return compare(sides, "fake-model", options, pairs=2, flags=FLAGS, quiet=True)


def test_sides_alternate_and_are_never_up_together() -> None:
    order: list[str] = []
    _compare(Script(), FakeSide("theirs", Script(), order), order)
    assert order == ["ours up", "ours down", "theirs up", "theirs down"] * 2


def test_both_sides_are_asked_the_same_and_each_turn_something_else() -> None:
    ours, theirs, order = Script(), Script(), list[str]()
    _compare(ours, FakeSide("theirs", theirs, order), order)
    key = str
    assert sorted(ours.bodies, key=key) == sorted(theirs.bodies, key=key)
    assert len({str(body["messages"]) for body in ours.bodies}) == 64


def test_a_faster_side_meets_the_goal_by_its_ratio() -> None:
    order: list[str] = []
    report = _compare(Script(), FakeSide("theirs", Script(gap_s=0.2), order), order)
    (goal,) = report.verdicts
    assert goal.met
    assert goal.figure is not None
    assert goal.figure > 1.2
    speeds = [float(str(row["tokens_per_s"])) for row in report.rows]
    assert [row["side"] for row in report.rows] == ["ours", "theirs"] * 2
    assert goal.figure == pytest.approx((speeds[0] / speeds[1] + speeds[2] / speeds[3]) / 2)


def test_a_slower_side_does_not() -> None:
    order: list[str] = []
    report = _compare(Script(gap_s=0.2), FakeSide("theirs", Script(), order), order)
    assert not report.verdicts[0].met


def test_a_peer_that_fails_requests_is_reported_as_failing() -> None:
    order: list[str] = []
    failing = Script(truncated=frozenset({3, 40}))
    report = _compare(Script(), FakeSide("theirs", failing, order), order)
    assert [row["failed"] for row in report.rows] == [0, 1, 0, 1]
    assert any("theirs FAILED 2 requests" in note for note in report.notes)


def test_a_peer_that_does_not_start_leaves_no_ratio_and_a_note() -> None:
    order: list[str] = []
    report = _compare(Script(), BrokenSide("theirs", Script(), order), order)
    assert report.verdicts[0].figure is None
    assert not report.verdicts[0].met
    assert any("exit code 3" in note for note in report.notes)


def test_at_200_clients_our_failures_are_held_to_none() -> None:
    order: list[str] = []
    ours = Script(broken=frozenset({7}))
    report = _compare(ours, FakeSide("theirs", Script(), order), order, clients=200)
    (goal,) = report.verdicts
    assert (goal.figure, goal.met) == (1, False)


def test_the_search_takes_the_fastest_flags_and_notes_every_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duel, "TUNE_REQUESTS", 8)
    monkeypatch.setattr(duel, "usable_cores", lambda: 2)
    order: list[str] = []
    fast = PeerFlags(threads=1, prompt_concurrency=32)

    def peer(flags: PeerFlags) -> FakeSide:
        return FakeSide("theirs", Script(gap_s=0.0 if flags == fast else 0.2), order)

    options = ChatOptions(clients=(1,), requests=1, max_tokens=3, warm_up_s=0)
    sides = Sides(lambda: FakeSide("ours", Script(), order), peer)
    report = compare(sides, "fake-model", options, pairs=1, flags=None, quiet=True)
    assert report.options["peer_flags"] == {
        "threads": 1,
        "decode_concurrency": 32,
        "prompt_concurrency": 32,
    }
    assert sum(note.startswith("Search of flags") for note in report.notes) == len(candidates(2))


def test_the_search_tries_one_thread_and_all_cores() -> None:
    assert {flags.threads for flags in candidates(2)} == {1, 2}
    assert {flags.threads for flags in candidates(32)} == {1, 2, 4, 8, 32}


def test_the_peer_may_decode_as_many_as_there_are_clients() -> None:
    assert wide_enough(FLAGS, ClosedLoop(200, 200, 1)).decode_concurrency == 200
    assert wide_enough(FLAGS, ClosedLoop(8, 8, 1)) == FLAGS
    assert wide_enough(FLAGS, OpenLoop(1, 1, 1)) == FLAGS


def test_our_site_serves_the_same_folder_and_is_otherwise_unchanged(tmp_path: Path) -> None:
    config = PROJECT_ROOT / "configs" / "local.yaml"
    site, model = with_model(config, tmp_path / "model", tmp_path / "site.yaml")
    before, after = yaml.safe_load(config.read_text()), yaml.safe_load(site.read_text())
    served = next(app for app in after["applications"] if app["name"] == "ai")["args"]["language"]
    assert served[0]["path"] == str(tmp_path / "model")
    assert served[0]["model"] == model
    original = next(app for app in before["applications"] if app["name"] == "ai")
    served[0]["path"] = original["args"]["language"][0]["path"]
    assert after == before


def test_a_peer_process_gets_the_flags_and_its_own_blas_threads(tmp_path: Path) -> None:
    command = servers.Peer(tmp_path, PeerFlags(2, 64, 16)).command(9000)
    assert command[1:4] == ["-m", "benchmarks.peer_launcher", "2"]
    pairs = dict(zip(command[4::2], command[5::2], strict=True))
    assert pairs == {
        "--model": str(tmp_path),
        "--host": "127.0.0.1",
        "--port": "9000",
        "--decode-concurrency": "64",
        "--prompt-concurrency": "16",
        "--log-level": "ERROR",
    }
