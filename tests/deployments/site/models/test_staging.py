"""A version is whole and verified before it has its name; a crash at any step leaves none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.site.models import staging
from deployments.site.models.errors import Busy, StoreError
from deployments.site.models.manifest import read
from deployments.site.models.staging import stage
from deployments.site.models.store import Store
from deployments.site.models.verification import faults
from tests.deployments.site.models.stores import WEIGHTS, source, spoil, staged


class Crash(BaseException):
    """The process ends here."""


def hidden(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


def test_a_staged_version_has_every_file_and_a_manifest_that_says_so(tmp_path: Path) -> None:
    model, [version] = staged(tmp_path, "one")
    folder = model.path_of(version)
    manifest = read(folder, version)
    names = ["README.md", "config.json", "extra/notes.txt", WEIGHTS]
    assert [entry.path for entry in manifest.files][:4] == names
    assert faults(folder, version) == []
    assert model.versions() == [version]
    assert model.current is None
    assert hidden(model.versions_folder) == []


def test_the_same_files_are_the_same_version_and_others_are_another(tmp_path: Path) -> None:
    _, [one, two] = staged(tmp_path / "a", "one", "two")
    _, [again] = staged(tmp_path / "b", "one")
    assert one == again != two


def test_the_origin_is_written_down_and_hidden_files_stay_outside(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").touch()
    (folder / ".gitattributes").touch()
    model = Store(tmp_path / "store").model("demo")
    version = stage(model, folder, repository="owner/name", revision="1" * 40)
    manifest = read(model.path_of(version))
    assert (manifest.repository, manifest.revision) == ("owner/name", "1" * 40)
    assert not any("." in entry.path[:1] for entry in manifest.files)


def test_a_hubs_snapshot_of_links_is_taken_as_files(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    (folder / WEIGHTS).rename(tmp_path / "blob")
    (folder / WEIGHTS).symlink_to(tmp_path / "blob")
    model = Store(tmp_path / "store").model("demo")
    version = stage(model, folder)
    assert not (model.path_of(version) / WEIGHTS).is_symlink()
    (tmp_path / "blob").unlink()
    assert faults(model.path_of(version), version) == []


def test_linked_files_share_their_bytes_with_the_source(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    model = Store(tmp_path / "store").model("demo")
    version = stage(model, folder, link=True)
    assert (model.path_of(version) / WEIGHTS).samefile(folder / WEIGHTS)
    assert faults(model.path_of(version), version) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x"), "truncated"),
        (lambda folder: (folder / "a b").touch(), "a name that a manifest cannot hold"),
        (lambda folder: (folder / "more").symlink_to(folder / "extra"), "is no file"),
        (lambda folder: (folder / "gone").symlink_to(folder / "absent"), "is no file"),
        (lambda folder: os.mkfifo(folder / "pipe"), "is no file"),
        (lambda folder: shutil.rmtree(folder), "is not a folder"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_and_nothing_is_left(
    tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    folder = source(tmp_path / "source")
    change(folder)
    model = Store(tmp_path / "store").model("demo")
    with pytest.raises(StoreError, match=message):
        stage(model, folder)
    assert not list(model.versions_folder.glob("*"))


def test_a_given_manifest_decides_what_is_taken_and_whether_it_is_right(tmp_path: Path) -> None:
    model, [version] = staged(tmp_path, "one")
    given = read(model.path_of(version))
    other = Store(tmp_path / "other").model("demo")
    folder = source(tmp_path / "copy", "one")
    (folder / "not-named.txt").touch()
    assert stage(other, folder, given) == version
    spoil(folder / WEIGHTS)
    with pytest.raises(StoreError, match=f"{WEIGHTS} is not what the manifest says"):
        stage(Store(tmp_path / "third").model("demo"), folder, given)
    (folder / "README.md").unlink()
    with pytest.raises(StoreError, match=r"lacks README\.md, which the manifest names"):
        stage(Store(tmp_path / "fourth").model("demo"), folder, given)


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "RESERVE_BYTES", 2**60)
    with pytest.raises(StoreError, match="GB free"):
        staged(tmp_path, "one")


def test_staging_again_mends_a_damaged_version_by_renaming_whole_files_over(tmp_path: Path) -> None:
    model, [version] = staged(tmp_path, "one")
    folder = model.path_of(version)
    spoil(folder / WEIGHTS)
    (folder / "README.md").unlink()
    with (folder / WEIGHTS).open("rb") as opened:
        before = opened.read()
        assert stage(model, tmp_path / "source-one") == version
        opened.seek(0)
        assert opened.read() == before, "who has the old file open keeps it"
    assert faults(folder, version) == []
    assert model.versions() == [version]


@pytest.mark.parametrize(
    "step", ["copy_hashed", "insist_on_model", "synchronise_folder", "publish"]
)
def test_a_crash_while_staging_leaves_no_version_and_the_next_one_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    model, [old] = staged(tmp_path, "one")
    with model.lock():
        model.advance(old)

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        # As if the process were gone: nothing is cleaned up either.
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        folder = source(tmp_path / "new", "two")
        calls = iter([staging.insist_on_model] if step == "insist_on_model" else [])
        patched.setattr(staging, step, lambda *a, **k: next(calls, crash)(*a, **k))
        with pytest.raises(Crash):
            stage(model, folder)
    assert model.versions() == [old]
    assert (model.current, model.previous) == (old, None)
    left = hidden(model.versions_folder)
    new = stage(model, folder)
    assert len(left) == 1
    assert hidden(model.versions_folder) == []
    assert set(model.versions()) == {old, new}


def test_two_commands_on_one_model_do_not_run_at_once(tmp_path: Path) -> None:
    model, [version] = staged(tmp_path, "one")
    with model.lock(), pytest.raises(Busy, match="another command works on demo"):
        stage(model, tmp_path / "source-one")
    assert stage(model, tmp_path / "source-one") == version
