"""The whole chat benchmark against a server of known behaviour, through its command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import chat
from benchmarks.cli import app
from benchmarks.report import Report
from tests.benchmarks.fake_openai import Script, serving

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _brief_idle_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "IDLE_SAMPLE_S", 0.01)


def _chat(script: Script, out: Path, *options: str) -> dict[str, Any]:
    with serving(script) as server:
        arguments = ["chat", "--base-url", server.url, "--out", str(out), "--quiet", "--json"]
        result = RUNNER.invoke(app, [*arguments, "--warm-up-s", "0", *options])
    assert result.exit_code == 0, result.output
    (written,) = out.glob("chat-*.json")
    content: dict[str, Any] = json.loads(written.read_text())
    assert Report.model_validate(content).benchmark == "chat"
    return content


def test_each_load_and_mix_has_a_row_and_the_run_is_written_down(tmp_path: Path) -> None:
    options = ("--clients", "1,3", "--mix", "short,shared-prefix", "--requests", "2")
    report = _chat(Script(), tmp_path, *options, "--max-tokens", "4")
    assert [(row["mix"], row["load"], row["complete"]) for row in report["rows"]] == [
        ("short", "1 clients", 2),
        ("short", "3 clients", 6),
        ("shared-prefix", "1 clients", 2),
        ("shared-prefix", "3 clients", 6),
    ]
    assert report["options"]["model"] == "fake-model"
    assert list(tmp_path.glob("chat-*.png"))


def test_an_open_loop_is_measured_beside(tmp_path: Path) -> None:
    options = ("--clients", "1", "--requests", "1", "--rate", "20", "--seconds", "1")
    report = _chat(Script(), tmp_path, *options, "--max-tokens", "2")
    assert [row["load"] for row in report["rows"]] == ["1 clients", "20 req/s"]
    assert report["rows"][1]["complete"] > 5


def test_failures_and_rejections_reach_the_report_by_name(tmp_path: Path) -> None:
    script = Script(overloaded=frozenset({0}), broken=frozenset({1, 2}))
    report = _chat(script, tmp_path, "--clients", "1", "--requests", "5", "--max-tokens", "2")
    (row,) = report["rows"]
    assert (row["complete"], row["rejected"], row["failed"]) == (2, 1, 2)
    assert row["failures"] == "2 http 500"


def test_a_warm_up_is_not_measured(tmp_path: Path) -> None:
    script = Script(gap_s=0.01)
    options = ("--clients", "2", "--requests", "3", "--max-tokens", "3", "--warm-up-s", "0.3")
    report = _chat(script, tmp_path, *options)
    assert report["rows"][0]["requests"] == 6
    assert len(script.bodies) > 6
    measured = {str(body["messages"]) for body in script.bodies[-6:]}
    assert not measured & {str(body["messages"]) for body in script.bodies[:-6]}


def test_no_two_runs_on_a_server_ask_the_same(tmp_path: Path) -> None:
    script = Script()
    _chat(script, tmp_path, "--clients", "1,2", "--requests", "2", "--rate", "9", "--seconds", "1")
    asked = [str(body["messages"]) for body in script.bodies]
    assert len(asked) > 6
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--base-url", "http://10.0.0.1:8000"), "10.0.0.1 is not a loopback address"),
        (("--clients", "500"), "between 1 and 200"),
        (("--clients", "many"), "not a list of whole numbers"),
        (("--mix", "poetry"), "poetry is none of"),
        (("--peer", "somebody"), "somebody is no peer"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(options: tuple[str, ...], said: str) -> None:
    result = RUNNER.invoke(app, ["chat", *options])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
