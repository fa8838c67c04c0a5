"""What docs/benchmarks.md says is all there, and what is there it says."""

from __future__ import annotations

from typing import get_args

import pytest

from benchmarks import autoscale, capacity, engine, failover, quality, records, summary
from benchmarks.cli import app
from benchmarks.engine_jobs import Scenario
from benchmarks.prompts import MIXES
from benchmarks.records_requests import OPERATIONS
from benchmarks.report import Column, Report
from configs.reader import PROJECT_ROOT
from deployments.edge.drills.faults import FAULTS
from deployments.edge.drills.outcome import KINDS

PAGE = (PROJECT_ROOT / "docs" / "benchmarks.md").read_text()
COLUMNS: dict[str, list[Column]] = {
    "chat": summary.COLUMNS,
    "engine": engine.COLUMNS,
    "capacity": capacity.COLUMNS,
    "quality": quality.COLUMNS,
    "autoscale": autoscale.COLUMNS,
    "records": records.COLUMNS,
    "failover": failover.COLUMNS,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_explained_in_the_words_of_the_report(name: str) -> None:
    section = PAGE.partition(f"### Columns of `{name}`")[2].partition("\n## ")[0]
    for column in COLUMNS[name]:
        assert f"| {column.title} | `{column.key}` | {column.meaning} |" in section


def test_every_benchmark_is_named() -> None:
    names = {command.name for command in app.registered_commands}
    assert names == set(COLUMNS)
    assert all(f"python -m benchmarks {name}" in PAGE for name in names)


def test_every_key_of_the_file_is_explained() -> None:
    section = PAGE.partition("## The file")[2].partition("\n## ")[0]
    assert all(f"`{key}`" in section for key in Report.model_fields)


def test_every_fault_and_kind_of_request_is_described_in_its_own_words() -> None:
    section = PAGE.partition("## failover")[2].partition("\n## ")[0]
    assert all(f"| `{f.name}` | {f.title} |" in section for f in FAULTS.values())
    assert all(f"| `{kind}` | {words} |" in section for kind, words in KINDS.items())


def test_every_mix_scenario_and_operation_is_described() -> None:
    assert all(f"| `{name}` |" in PAGE for name in (*MIXES, *get_args(Scenario), *OPERATIONS))
