"""A child that ends is started again, after pauses that grow and are forgotten in time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deployments.cell.state import CellError
from deployments.cell.supervised import BACKOFF_S, STEADY_S, Supervised


def ends_at_once() -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    child.wait(30)
    return child


def test_a_child_that_lives_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "30"]) as child:
        part = Supervised("it", lambda: child)
        assert not part.look(0.0, pytest.fail)
        part.begin(0.0)
        assert not part.look(1000.0, pytest.fail)
        child.kill()


def test_the_pauses_grow_and_are_told() -> None:
    part, said, now = Supervised("it", ends_at_once), list[str](), 0.0
    part.begin(now)
    for pause_s in (*BACKOFF_S, BACKOFF_S[-1]):
        if pause_s:
            assert not part.look(now, said.append)
            assert not part.look(now + pause_s / 2, said.append)
        now += pause_s
        assert part.look(now, said.append)
        assert said[-1] == f"it ended (3); restarting in {pause_s:g} s"
    assert len(said) == len(BACKOFF_S) + 1


def test_a_child_that_lived_long_is_started_again_at_once() -> None:
    part, said = Supervised("it", ends_at_once), list[str]()
    part.begin(0.0)
    assert part.look(0.0, said.append)
    assert not part.look(0.0, said.append)
    part.begin(10.0)
    assert part.look(10.0 + STEADY_S + 1, said.append)
    assert said[-1] == "it ended (3); restarting in 0 s"


def test_a_start_that_fails_is_told_and_tried_again_later() -> None:
    refused = [True, True, False]

    def start() -> subprocess.Popen[bytes]:
        if refused and refused.pop(0):
            raise CellError("no room")
        return ends_at_once()

    part, said = Supervised("it", start, ends_at_once()), list[str]()
    assert not part.look(0.0, said.append)
    assert said == [
        "it ended (3); restarting in 0 s",
        "it cannot start: no room; restarting in 0.5 s",
    ]
    assert not part.look(0.4, said.append)
    assert not part.look(0.5, said.append)
    assert said[-1] == "it cannot start: no room; restarting in 1 s"
    assert part.look(1.5, said.append)
