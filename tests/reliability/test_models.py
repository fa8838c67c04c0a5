"""A model is switched to another version and back under streaming chats, and no request fails."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from configs.reader import PROJECT_ROOT
from deployments.cell import condition
from deployments.cell.state import Home
from deployments.site.models import rolling
from deployments.site.models.staging import stage
from deployments.site.models.store import Model, Store
from deployments.site.models.switching import switch
from tests.conftest import medrec
from tests.reliability.drill import MODEL, Drill, Outcome, chat, chats, language

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CLIENTS = 4
WEIGHTS = PROJECT_ROOT / "models" / "weights" / MODEL


@pytest.fixture(scope="module")
def model(drill: Drill, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Three versions of the demo model in the cell's store: the one served, a broken and a good one."""
    found = Store(drill.cell.home / "models").model(MODEL)
    folder = tmp_path_factory.mktemp("models")
    broken, other = (shutil.copytree(WEIGHTS, folder / name) for name in ("broken", "other"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "nothing"}))
    (other / "README.md").write_text("The same weights under another card.\n")
    switch(found, stage(found, WEIGHTS))
    stage(found, broken)
    stage(found, other)
    current = str(found.path_of(str(found.current)).resolve())

    def from_the_store(config: dict[str, Any]) -> None:
        language(config).update(path=current)
        language(config)["replicas"].update(max=1)

    drill.deploy(from_the_store)
    yield found
    shutil.rmtree(found.folder)


async def keep_asking(
    client: openai.AsyncOpenAI, number: int, stop: asyncio.Event, outcomes: list[Outcome]
) -> None:
    turn = 0
    while not stop.is_set():
        outcomes.append(await chat(client, 1000 * number + turn, tokens=60))
        turn += 1


def gone(drill: Drill, pids: set[int]) -> bool:
    return not pids & drill.pids(MODEL)


async def test_a_switch_and_a_rollback_under_load_fail_no_request(
    drill: Drill, model: Model
) -> None:
    first, broken, second = model.versions()
    outcomes: list[Outcome] = []
    stop = asyncio.Event()

    async def act(*words: str) -> subprocess.CompletedProcess[str]:
        command = partial(medrec, "models", *words, home=drill.cell.home, timeout_s=180)
        return await asyncio.to_thread(command)

    async with chats(drill.cell) as client:
        tasks = [
            asyncio.create_task(keep_asking(client, number, stop, outcomes))
            for number in range(CLIENTS)
        ]
        old = drill.pids(MODEL)
        refused = await act("switch", MODEL, broken)
        assert refused.returncode == 1
        assert "Model type nothing" in refused.stderr, refused.stderr
        assert f"{MODEL} stays at {first[:12]}" in refused.stderr
        assert model.current == first
        assert drill.pids(MODEL) == old, "the engine that served goes on"
        for words, version in ((("switch", MODEL), second), (("rollback", MODEL), first)):
            old, asked = drill.pids(MODEL), len(outcomes)
            done = await act(*words)
            assert done.stdout == f"{MODEL} {version[:12]} is current: the cell serves it\n", done
            assert model.current == version
            assert rolling.deployed(await asyncio.to_thread(drill.details), model) == {version}
            await drill.eventually(partial(gone, drill, old), 60, "the old engine left")
            assert len(outcomes) > asked
        stop.set()
        await asyncio.gather(*tasks)
    assert Counter((o.status, o.code, o.finished) for o in outcomes) == {
        (200, None, True): len(outcomes)
    }


def test_the_running_cell_watches_its_store_and_refuses_what_is_damaged(
    drill: Drill, model: Model
) -> None:
    home = Home(drill.cell.home)
    first, _, second = model.versions()
    (model.path_of(second) / "README.md").unlink()
    refused = medrec("models", "switch", MODEL, second, home=drill.cell.home)
    assert refused.returncode == 1
    assert "README.md is missing" in refused.stderr
    assert model.current == first
    card = model.path_of(first) / "README.md"
    text = card.read_text()
    card.unlink()

    def faulty() -> Any:
        return condition.read(home).get("models", {}).get("faulty", {}).get(MODEL)

    drill.wait(lambda: faulty() is not None, 120, "the watch sees that a file is missing")
    assert faulty().startswith("README.md is missing")

    def told() -> list[str]:
        page = httpx.get(f"{drill.cell.base_url}/metrics", timeout=30).text
        return [line for line in page.splitlines() if line.startswith("medrec_model_faulty{")]

    drill.wait(lambda: bool(told()), 60, "the watch has a metric")
    assert all(f'model="{MODEL}"' in line for line in told())
    listed = json.loads(medrec("models", "list", "--json", home=drill.cell.home).stdout)
    assert listed["models"][0]["faulty"] == faulty()
    stage(model, WEIGHTS)
    assert card.read_text() == text
    drill.wait(lambda: faulty() is None, 120, "the watch sees that it is whole again")
