"""The running cell's own config, with one folder changed, is what rolls; links are never deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deployments.cell.ports import Ports
from deployments.cell.running import deployable
from deployments.site.models.rolling import deployed, with_version
from deployments.site.models.store import Model
from deployments.site.models.switching import switch
from tests.conftest import LOCAL
from tests.deployments.site.models.stores import staged


def details(*paths: str | None) -> dict[str, Any]:
    """What Serve says of a cell with a language model at each path."""
    language = [{"model": f"m{number}", "path": path} for number, path in enumerate(paths)]
    ai = {"name": "ai", "import_path": "a:b", "args": {"language": language}}
    api = {"name": "api", "import_path": "c:d", "args": {"limits": {}}}
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 1},
        "grpc_options": None,
        "applications": {
            "ai": {"status": "RUNNING", "deployed_app_config": ai},
            "api": {"status": "RUNNING", "deployed_app_config": api},
            "by hand": {"status": "RUNNING", "deployed_app_config": None},
        },
    }


def test_only_the_models_own_deployments_get_the_other_version(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    others = ["models/weights/gemma3-demo", None, str(tmp_path / "store" / "other" / "current")]
    said = details(str(model.path_of(one)), str(model.folder / "current"), *others)
    config = with_version(said, model, two)
    assert config is not None
    assert [app["name"] for app in config["applications"]] == ["ai", "api"]
    paths = [entry["path"] for entry in config["applications"][0]["args"]["language"]]
    assert paths == [str(model.path_of(two)), str(model.path_of(two)), *others]
    assert (config["proxy_location"], config["http_options"]["port"]) == ("HeadOnly", 1)
    assert deployed(said, model) == {one, "current"}, "what Serve said is left as it was"


def test_a_cell_without_the_model_has_nothing_to_roll(tmp_path: Path) -> None:
    model = Model(tmp_path / "store" / "demo")
    assert with_version(details("models/weights/gemma3-demo"), model, "0" * 64) is None
    assert deployed({}, model) == set()


def test_a_config_with_the_link_is_deployed_with_the_version_that_it_names(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    site = yaml.safe_load(LOCAL.read_text(encoding="utf-8"))
    language = site["applications"][0]["args"]["language"]
    before = language[0]["path"]
    language.append({**language[0], "model": "second", "path": str(model.folder / "current")})
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(site), encoding="utf-8")
    for version in (one, two):
        switch(model, version)
        sent = deployable(file, Ports())["applications"][0]["args"]["language"]
        paths = [entry["path"] for entry in sent]
        assert paths == [before, str(model.path_of(version).resolve())]
