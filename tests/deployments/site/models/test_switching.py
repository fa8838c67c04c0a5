"""A switch verifies, rolls and then moves the links; whatever fails, the old version stays current."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.cell.state import CellError
from deployments.site.models import store as stores
from deployments.site.models.errors import Busy, StoreError
from deployments.site.models.store import Model, Store
from deployments.site.models.switching import prune, roll_back, switch
from tests.deployments.site.models.stores import WEIGHTS, spoil, staged


class Crash(BaseException):
    """The process ends here."""


def links(model: Model) -> tuple[str | None, str | None]:
    return model.current, model.previous


def test_switch_and_rollback_exchange_current_and_previous(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    rolled: list[str] = []
    assert switch(model, one[:8], rolled.append) == one
    assert links(model) == (one, None)
    assert switch(model, two, rolled.append) == two
    assert links(model) == (two, one)
    assert (model.folder / "current" / "README.md").read_text() == "two"
    assert roll_back(model, rolled.append) == one
    assert links(model) == (one, two)
    assert roll_back(model, rolled.append) == two
    assert rolled == [one, two, one, two]


def test_a_switch_to_the_current_version_keeps_the_way_back(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    switch(model, one)
    switch(model, two)
    switch(model, two)
    assert links(model) == (two, one)


def test_a_rollback_without_a_previous_version_is_refused(tmp_path: Path) -> None:
    model, [one] = staged(tmp_path, "one")
    with pytest.raises(StoreError, match="demo has no previous version"):
        roll_back(model)
    switch(model, one)
    with pytest.raises(StoreError, match="demo has no previous version"):
        roll_back(model)


def test_a_version_is_named_by_a_beginning_that_only_it_has(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    assert model.find(one) == one
    with pytest.raises(StoreError, match="several versions that begin with ''"):
        model.find("")
    with pytest.raises(StoreError, match="no version that begins with 'xyz'"):
        switch(model, "xyz")
    with pytest.raises(StoreError, match="no current version"):
        model.find("current")
    switch(model, two)
    assert model.find("current") == two


def damage(folder: Path) -> None:
    spoil(folder / WEIGHTS)


def remove(folder: Path) -> None:
    (folder / "README.md").unlink()


def slip_in(folder: Path) -> None:
    (folder / "model-2.safetensors").touch()


def forge(folder: Path) -> None:
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data.replace(b'"size": 3', b'"size": 4'))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage, r"model\.safetensors is damaged"),
        (remove, r"README\.md is missing"),
        (slip_in, r"model-2\.safetensors is not in the manifest"),
        (forge, r"manifest\.json cannot be relied on"),
    ],
)
@pytest.mark.parametrize("act", ["switch", "rollback"])
def test_a_version_that_is_not_whole_is_never_rolled_out(
    tmp_path: Path, harm: Callable[[Path], None], message: str, act: str
) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    switch(model, two)
    switch(model, one)
    harm(model.path_of(two))
    rolled: list[str] = []
    with pytest.raises(StoreError, match=message):
        _ = (
            switch(model, two, rolled.append)
            if act == "switch"
            else roll_back(model, rolled.append)
        )
    assert rolled == []
    assert links(model) == (one, two)


def test_a_version_that_does_not_run_is_taken_back_and_the_links_stay(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    switch(model, one)
    rolled: list[str] = []

    def roll(version: str) -> None:
        rolled.append(version)
        if version == two:
            raise CellError("the engine does not start")

    with pytest.raises(StoreError, match=f"the engine does not start; demo stays at {one[:12]}"):
        switch(model, two, roll)
    assert rolled == [two, one]
    assert links(model) == (one, None)


def test_a_command_that_is_broken_off_while_it_rolls_leaves_the_links(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    switch(model, one)

    def roll(version: str) -> None:
        if version == two:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        switch(model, two, roll)
    assert links(model) == (one, None)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("act", ["switch", "rollback"])
def test_a_crash_between_the_links_leaves_a_version_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, act: str
) -> None:
    """Links are moved one after the other; before the first, between them, and after both."""
    model, [one, two, three] = staged(tmp_path, "one", "two", "three")
    switch(model, one)
    switch(model, two)
    moves = 0
    point = Model._point

    def crashing(self: Model, link: str, version: str) -> None:
        nonlocal moves
        if moves == at:
            raise Crash
        moves += 1
        point(self, link, version)

    with monkeypatch.context() as patched:
        patched.setattr(Model, "_point", crashing)
        if at == 2:
            _ = switch(model, three) if act == "switch" else roll_back(model)
        else:
            with pytest.raises(Crash):
                _ = switch(model, three) if act == "switch" else roll_back(model)
    new = {"switch": three, "rollback": one}[act]
    # A switch moves `current` last, a rollback first: what is halfway is the version known to be good.
    is_new = at == 2 or (act == "rollback" and at == 1)
    assert model.current == (new if is_new else two)
    assert stores.is_version(str(model.previous))
    with model.lock():
        assert (model.folder / "current" / "config.json").exists()


def test_prune_keeps_current_previous_and_what_is_deployed(tmp_path: Path) -> None:
    model, [a, b, c, d] = staged(tmp_path, "a", "b", "c", "d")
    assert prune(model, set()) == []
    switch(model, a)
    switch(model, b)
    assert set(prune(model, {c})) == {d}
    assert set(model.versions()) == {a, b, c}
    assert prune(model, {"current"}) == [c]
    assert links(model) == (b, a)
    assert sorted(entry.name for entry in model.versions_folder.iterdir()) == sorted([a, b])


def test_nothing_moves_while_another_command_works_on_the_model(tmp_path: Path) -> None:
    model, [one, two] = staged(tmp_path, "one", "two")
    switch(model, one)
    with model.lock():
        for act in (lambda: switch(model, two), lambda: roll_back(model), lambda: prune(model, ())):
            with pytest.raises(Busy):
                act()
    assert switch(model, two) == two


def test_links_that_lead_elsewhere_are_no_versions(tmp_path: Path) -> None:
    model, [one] = staged(tmp_path, "one")
    for target in ("/etc", "versions/../../outside", "versions/x", one):
        (model.folder / "current").unlink(missing_ok=True)
        (model.folder / "current").symlink_to(target)
        assert model.current is None
    (model.folder / "current").unlink()
    (model.folder / "current").mkdir()
    with pytest.raises(StoreError, match="current cannot be set"):
        switch(model, one)


def test_only_names_that_stay_inside_the_store_are_models(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("..", ".", "", "a/b", "/etc", "A", ".hidden", "a" * 64, "a\n"):
        with pytest.raises(StoreError, match="cannot be a model's name"):
            store.model(name)
    assert store.models() == Store(tmp_path / "absent").models() == []
    with pytest.raises(StoreError, match="has no model demo"):
        store.present("demo")
