"""`medrec models` as an operator runs it, without a cell: stage, pull, switch, go back, prune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from deployments.cell import condition, state
from deployments.cell.state import HOME_VARIABLE, CellError, Home
from deployments.site.models.store import Model, Store
from serve_app.cli import app, models_cell
from tests.conftest import LOCAL
from tests.deployments.site.models.stores import HOST, WEIGHTS, served, source, spoil, staged


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own, in which no cell runs."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    found = state.home()
    found.prepare()
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config whose model comes from a store that is empty as yet, and which knows another cell."""
    site = yaml.safe_load(LOCAL.read_text(encoding="utf-8"))
    for application in site["applications"]:
        if application["name"] == "ai":
            path = str(tmp_path / "store" / "demo" / "current")
            application["args"]["language"][0]["path"] = path
        else:
            records = application["args"].setdefault("records", {})
            records |= {"models": str(tmp_path / "store"), "others": {"host": HOST}}
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(site), encoding="utf-8")
    return file


def medrec(*arguments: str, config: Path) -> Result:
    return CliRunner().invoke(app, ["models", *arguments, "--config", str(config)])


def done(*arguments: str, config: Path) -> str:
    result = medrec(*arguments, config=config)
    assert result.exit_code == 0, result.output
    return result.output


def listed(config: Path) -> dict[str, Any]:
    [model] = json.loads(done("list", "--json", config=config))["models"]
    return {version["version"]: version for version in model["versions"]} | {"model": model}


def test_an_operator_stages_switches_goes_back_and_prunes(
    tmp_path: Path, home: Home, config: Path
) -> None:
    one, two, three = (
        done("stage", "demo", str(source(tmp_path / text, text)), config=config).split()[1]
        for text in ("one", "two", "three")
    )
    assert "no cell runs" in done("switch", "demo", one[:12], config=config)
    assert f"demo {three[:12]} is current" in done("switch", "demo", config=config)
    assert f"demo {one[:12]} is current" in done("rollback", "demo", config=config)
    found = listed(config)
    assert (found[one]["current"], found[three]["previous"]) == (True, True)
    assert found[one]["size"] > 0
    assert done("prune", config=config) == f"demo\t{two[:12]}\tremoved\n"
    assert (tmp_path / "store" / "demo" / "current" / "README.md").read_text() == "one"


def test_verify_names_what_is_damaged_and_fails(tmp_path: Path, home: Home, config: Path) -> None:
    model, [version] = staged(tmp_path, "one")
    assert done("verify", config=config) == f"demo\t{version[:12]}\twhole\n"
    spoil(model.path_of(version) / WEIGHTS)
    result = medrec("verify", "demo", config=config)
    assert result.exit_code == 1
    assert f"{WEIGHTS} is damaged" in result.output
    refused = medrec("switch", "demo", config=config)
    assert isinstance(refused.exception, CellError)
    assert f"{WEIGHTS} is damaged" in str(refused.exception)


def test_pull_brings_the_other_cells_version(tmp_path: Path, home: Home, config: Path) -> None:
    there, [version] = staged(tmp_path / "there", "one")
    with there.lock():
        there.advance(version)
    with served(Store(there.folder.parent)) as url:
        assert version in done("pull", "demo", "--peer", url, config=config)
    assert Model(tmp_path / "store" / "demo").versions() == [version]
    alone = medrec("pull", "demo", config=config)
    assert "no other cell is known" in str(alone.exception)


def test_a_manifest_beside_the_files_is_what_they_must_be(
    tmp_path: Path, home: Home, config: Path
) -> None:
    other, [version] = staged(tmp_path / "there", "one")
    folder = other.path_of(version)
    assert version in done("stage", "demo", str(folder), config=config)
    spoil(folder / WEIGHTS)
    result = medrec("stage", "demo2", str(folder), config=config)
    assert "is not what the manifest says" in str(result.exception)


def test_list_tells_what_the_watch_has_found(tmp_path: Path, home: Home, config: Path) -> None:
    staged(tmp_path, "one")
    condition.put(home, "models", {"faulty": {"demo": f"{WEIGHTS} is damaged"}})
    assert listed(config)["model"]["faulty"] == f"{WEIGHTS} is damaged"
    assert f"demo\tFAULTY\t{WEIGHTS} is damaged" in done("list", config=config)


def test_nothing_is_pruned_while_it_cannot_be_told_what_the_cell_runs(
    tmp_path: Path, home: Home, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        """A Serve that does not answer."""

        def details(self) -> dict[str, Any]:
            raise CellError("Serve does not answer")

        def close(self) -> None:
            """Nothing to close."""

    model, [one, _, _] = staged(tmp_path, "one", "two", "three")
    done("switch", "demo", one, config=config)
    monkeypatch.setattr(models_cell, "_running", Silent)
    result = medrec("prune", config=config)
    assert "so nothing is removed: Serve does not answer" in str(result.exception)
    assert len(model.versions()) == 3
    assert "demo" in done("list", config=config)
