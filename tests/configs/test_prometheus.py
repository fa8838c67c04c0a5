"""Proves that every alert rule is tested, can be acted on, and goes by measurements that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reader import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "configs" / "prometheus"
TESTS = ("rules.test.yaml", "rules.long.test.yaml")
RUNBOOK = PROJECT_ROOT / "docs" / "runbook.md"
# Made by Prometheus itself.
BUILT_IN = {"up"}
# A metric's name as the code gives it: in a call that makes one.
MADE = re.compile(
    r"(?:Gauge|Counter|Histogram|_gauge|_single|MetricFamily)\(\s*\"(medrec_[a-z_]+)\""
)
COUNTER = re.compile(r"Counter(?:MetricFamily)?\(\s*\"(medrec_[a-z_]+)\"")


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    """Prometheus's own tool; a missing one fails the test, naming what installs it."""
    found = shutil.which("promtool")
    assert found is not None, "promtool was not found: make system installs it"
    command = [found, *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=FOLDER
    )


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def cases() -> list[dict[str, Any]]:
    return [case for name in TESTS for case in yaml.safe_load((FOLDER / name).read_text())["tests"]]


def sections() -> dict[str, str]:
    """The runbook's sections by their anchors."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    return {title.lower(): text for title, text in zip(parts[::2], parts[1::2], strict=True)}


def exported() -> set[str]:
    """Names as Prometheus sees them: a counter's ends in _total."""
    names: set[str] = set()
    for room in ("deployments", "serve_app", "models"):
        for file in (PROJECT_ROOT / room).rglob("*.py"):
            text = file.read_text()
            counters = set(COUNTER.findall(text))
            names |= set(MADE.findall(text)) - counters
            names |= {f"{name}_total" for name in counters}
    return names


def test_promtool_finds_the_rules_right() -> None:
    done = promtool("check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_every_rule_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_rule_would_be_found_by_its_tests(tmp_path: Path) -> None:
    text = (FOLDER / "rules.yaml").read_text()
    # The plan's own rule, which fires neither at one of two nor at none.
    right = re.search(r"sum\(max by \(cell\).*?\n.*?absent\(medrec_site_cell_up\)", text)
    assert right is not None
    wrong = "count(medrec_site_cell_up == 1) / count(medrec_site_cell_up) < 0.5"
    (tmp_path / "rules.yaml").write_text(text.replace(right.group(), wrong))
    tests = yaml.safe_load((FOLDER / "rules.test.yaml").read_text())
    tests["tests"] = [case for case in tests["tests"] if "HalfOfTheCellsDown" in case["name"]]
    (tmp_path / "rules.test.yaml").write_text(yaml.safe_dump(tests))
    done = promtool("test", "rules", str(tmp_path / "rules.test.yaml"))
    assert done.returncode != 0
    for case in ("one of two", "none of two"):
        assert f"HalfOfTheCellsDown fires: {case}" in done.stdout + done.stderr


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_a_rule_is_tested_both_ways_and_says_what_to_do(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    asked = [entry for case in cases() for entry in case["alert_rule_test"]]
    mine = [entry for entry in asked if entry["alertname"] == name]
    assert any(entry.get("exp_alerts") for entry in mine), "no test in which it fires"
    assert any(not entry.get("exp_alerts") for entry in mine), "no test in which it does not"
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert PROJECT_ROOT / page == RUNBOOK
    section = sections()[anchor]
    for words in ("**Means**", "**Look**", "**Do**", "**Ends**"):
        assert words in section, f"{anchor}: {words}"


def test_every_section_of_the_runbook_is_an_alert() -> None:
    assert set(sections()) == {rule["alert"].lower() for rule in rules()}


def test_every_measurement_that_a_rule_names_is_made_by_the_code() -> None:
    made = exported()
    named = {
        name
        for rule in rules()
        for name in re.findall(r"\b(up|medrec_[a-z_]+)\b(?=\W|$)", rule["expr"])
    }
    assert len(named) > 15
    assert named - BUILT_IN - made == set()


def test_every_series_of_a_test_is_one_that_a_rule_names() -> None:
    named = " ".join(rule["expr"] for rule in rules())
    series = {
        entry["series"].partition("{")[0] for case in cases() for entry in case["input_series"]
    }
    assert {name for name in series if name not in named} == set()
