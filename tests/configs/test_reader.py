"""A cell config that cannot work is refused with file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from configs.budgets import Budget, plan
from configs.reader import PROJECT_ROOT, ConfigError, demands, load, read_yaml
from tests.configs.folders import write_folder

SHIPPED = ("local.yaml", "mac-studio.yaml", "cloud.yaml")
SMALL = Budget(memory_gb=16, metal_cores=0, cpu=2, neural_cores=0)


def site() -> dict[str, Any]:
    """A config that is right."""
    return {
        "proxy_location": "HeadOnly",
        "applications": [
            {
                "name": "ai",
                "import_path": "deployments.ai.application:build",
                "route_prefix": None,
                "args": {
                    "language": [
                        {
                            "model": "one",
                            "path": "weights/one",
                            "resources": {"memory_gb": 1.5, "cpu": 0.25},
                        }
                    ]
                },
            },
            {
                "name": "api",
                "import_path": "serve_app.application:build",
                "route_prefix": "/",
                "args": {"resources": {"memory_gb": 0.5, "cpu": 0.1}},
            },
        ],
    }


def refusal(tmp_path: Path, raw: dict[str, Any] | str, machine: Budget = SMALL) -> str:
    """What the reader says to a config that it must refuse."""
    file = tmp_path / "site.yaml"
    file.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
    if not (tmp_path / "weights" / "one").exists():
        write_folder(tmp_path / "weights" / "one")
    with pytest.raises(ConfigError) as caught:
        load(file, machine=machine, root=tmp_path)
    text = str(caught.value)
    assert all(line.startswith(str(file)) for line in text.splitlines())
    return text.replace(f"{file}: ", "")


def ai(raw: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = raw["applications"][0]["args"]["language"][0]
    return entry


def test_a_right_config_is_read_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(site()))
    write_folder(tmp_path / "weights" / "one")
    found = load(file, machine=SMALL, root=tmp_path)
    assert [demand.deployment for demand in demands(found)] == ["cell", "one", "api"]
    assert found.http_options.host == "127.0.0.1"


@pytest.mark.parametrize("name", SHIPPED)
def test_serve_takes_the_shipped_configs_as_they_stand(name: str) -> None:
    ServeDeploySchema.model_validate(read_yaml(PROJECT_ROOT / "configs" / name))


def test_the_local_config_fits_a_laptop_with_16_gb() -> None:
    load(PROJECT_ROOT / "configs" / "local.yaml", machine=SMALL)


def test_the_emergency_cells_config_fits_beside_two_others() -> None:
    """A third of a machine with 2 cores and 24 GiB would do."""
    load(PROJECT_ROOT / "configs" / "cloud.yaml", machine=SMALL)


def test_the_mac_studios_config_lacks_only_its_models() -> None:
    with pytest.raises(ConfigError) as caught:
        load(PROJECT_ROOT / "configs" / "mac-studio.yaml", machine=plan().machine)
    keys = [problem.key for problem in caught.value.problems]
    assert keys == [f"applications[0].args.language[{i}].path" for i in (0, 1)]


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    raw = site()
    ai(raw)["resources"]["gpu"] = 1
    assert refusal(tmp_path, raw) == ("applications[0].args.language[0].resources.gpu: unknown key")


def test_a_wrong_type_is_named_and_not_converted(tmp_path: Path) -> None:
    raw = site()
    ai(raw)["resources"]["cpu"] = "0.25"
    said = refusal(tmp_path, raw)
    assert said.startswith("applications[0].args.language[0].resources.cpu: ")
    assert said.endswith("not '0.25'")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    raw = site()
    del ai(raw)["model"]
    assert refusal(tmp_path, raw) == "applications[0].args.language[0].model: is missing"


def test_an_unknown_engine_setting_is_named(tmp_path: Path) -> None:
    raw = site()
    ai(raw)["engine"] = {"max_runing": 4}
    assert refusal(tmp_path, raw) == (
        "applications[0].args.language[0].engine.max_runing: unknown key"
    )


def test_caches_that_leave_no_memory_for_the_weights_are_refused(tmp_path: Path) -> None:
    raw = site()
    ai(raw)["engine"] = {"kv_cache_gb": 1.25, "prefix_cache_gb": 0.25}
    assert refusal(tmp_path, raw) == (
        "applications[0].args.language[0].engine.kv_cache_gb: with prefix_cache_gb it is 1.5 GB, "
        "which leaves nothing of resources.memory_gb (1.5) for the weights"
    )


def test_an_unknown_application_is_named(tmp_path: Path) -> None:
    raw = site()
    raw["applications"][1]["name"] = "web"
    assert refusal(tmp_path, raw).startswith("applications[1]: ")


def test_overrides_of_deployments_are_refused_because_they_bypass_the_budget(
    tmp_path: Path,
) -> None:
    raw = site()
    raw["applications"][1]["deployments"] = [{"name": "api", "num_replicas": 50}]
    said = refusal(tmp_path, raw)
    assert said.startswith("applications[1].deployments: overrides of deployments would bypass")


def test_every_problem_is_listed(tmp_path: Path) -> None:
    raw = site()
    raw["proxy"] = 1
    del ai(raw)["resources"]
    assert len(refusal(tmp_path, raw).splitlines()) == 2


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "proxy_location: HeadOnly\nproxy_location: EveryNode\n"
    assert refusal(tmp_path, text) == "line 2, column 1: key 'proxy_location' is given twice"


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "applications: [\n").startswith("line 2, column 1: ")


def test_a_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: file: No such file"):
        load(tmp_path / "absent.yaml")


def test_a_corrupt_model_folder_is_refused_with_key_and_file(tmp_path: Path) -> None:
    weights = write_folder(tmp_path / "weights" / "one") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    said = refusal(tmp_path, site())
    assert said.startswith("applications[0].args.language[0].path: ")
    assert "model.safetensors" in said


def test_a_maximum_beyond_the_budget_is_refused_with_pool_resource_asked_and_given(
    tmp_path: Path,
) -> None:
    raw = site()
    ai(raw)["replicas"] = {"min": 1, "max": 4, "surge": 1}
    assert refusal(tmp_path, raw) == (
        "applications[0].args.language[0].resources.cpu: pool ai is asked for 1.27 cpu, maximum "
        "and surge together, and has 1 on this machine: cell (1+1)×0.01 + one (4+1)×0.25"
    )


def test_the_sum_of_a_pool_counts_and_not_each_deployment(tmp_path: Path) -> None:
    raw = site()
    second = {**ai(raw), "model": "two"}
    raw["applications"][0]["args"]["language"].append(second)
    ai(raw)["resources"] = {"memory_gb": 1.5, "cpu": 0.3}
    assert "pool ai is asked for 1.12 cpu" in refusal(tmp_path, raw)


def test_metal_cores_are_refused_where_there_are_none(tmp_path: Path) -> None:
    raw = site()
    ai(raw)["resources"]["metal_cores"] = 4
    assert "pool ai is asked for 8 metal_cores" in refusal(tmp_path, raw)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"repository": "owner/name", "revision": "a" * 40}, "give either path, or repository"),
        ({"revision": "a" * 40}, "revision belongs to repository"),
        ({"path": None}, "give either path, or repository"),
        ({"path": None, "repository": "owner/name", "revision": "main"}, "repository needs"),
    ],
)
def test_a_model_has_one_pinned_source(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    raw = site()
    ai(raw).update(change)
    assert refusal(tmp_path, raw).startswith("applications[0].args.language[0]: " + reason)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    raw = site()
    raw["applications"][0]["args"]["language"].append(dict(ai(raw)))
    assert refusal(tmp_path, raw) == "applications[0].args: model given twice: one"


def test_a_maximum_below_the_minimum_is_refused(tmp_path: Path) -> None:
    raw = site()
    ai(raw)["replicas"] = {"min": 3, "max": 2}
    assert "max (2) is below min (3)" in refusal(tmp_path, raw)


def with_data(raw: dict[str, Any], **records: Any) -> dict[str, Any]:
    raw["applications"].append(
        {
            "name": "data",
            "import_path": "deployments.data.application:build",
            "route_prefix": None,
            "args": {"records": dict(records)},
        }
    )
    return raw


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configs_keep_records_by_one_set_of_rules(name: str) -> None:
    apps = {app["name"]: app for app in read_yaml(PROJECT_ROOT / "configs" / name)["applications"]}
    assert apps["api"]["args"]["records"] == apps["data"]["args"]["records"]


def test_only_the_local_config_is_for_demos() -> None:
    demos = {
        name: read_yaml(PROJECT_ROOT / "configs" / name)["applications"][1]["args"]["records"].get(
            "demo", False
        )
        for name in SHIPPED
    }
    assert demos == {"local.yaml": True, "mac-studio.yaml": False, "cloud.yaml": False}


def test_applications_that_would_keep_records_differently_are_refused(tmp_path: Path) -> None:
    raw = with_data(site(), care_days=7)
    assert refusal(tmp_path, raw) == (
        "applications[2].args.records.care_days: differs from applications[1].args.records.care_days"
    )


def test_the_custodian_counts_against_the_data_node(tmp_path: Path) -> None:
    raw = with_data(site())
    raw["applications"][2]["args"]["custodian"] = {"memory_gb": 2.0, "cpu": 0.05}
    said = refusal(tmp_path, raw)
    assert "pool data is asked for 4 memory_gb" in said
    assert "custodian (1+1)×2" in said


def test_more_connections_than_the_cells_own_server_has_are_refused(tmp_path: Path) -> None:
    raw = with_data(site(), pool_connections=64)
    raw["applications"][1]["args"]["records"] = {"pool_connections": 64}
    assert refusal(tmp_path, raw) == (
        "applications[1].args.records.pool_connections: 3 replicas with 64 each are 192 database "
        "connections, and the cell's own PostgreSQL has 140 for them"
    )


def test_an_answer_is_not_taken_for_abandoned_while_its_request_may_still_run(
    tmp_path: Path,
) -> None:
    raw = with_data(site())
    raw["applications"][2]["args"]["abandoned_after_s"] = 630.0
    assert refusal(tmp_path, raw) == (
        "applications[2].args.abandoned_after_s: must be a minute above the API's "
        "request_timeout_s (600) at least"
    )


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"dsn": "host=db"}, "dsn and owner_dsn are given together"),
        ({"audit": False}, "audit can be off only with demo"),
    ],
)
def test_records_that_contradict_themselves_are_refused(
    tmp_path: Path, records: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(tmp_path, with_data(site(), **records))
