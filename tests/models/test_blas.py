"""MLX's matrix products go through the shim, and are right."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from configs.reader import PROJECT_ROOT
from models import blas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim is for Linux alone")


class _Info(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def file_of(symbol: str) -> str:
    """The library whose definition the dynamic linker gives to this process."""
    process, info = ctypes.CDLL(None), _Info()
    found = ctypes.cast(getattr(process, symbol), ctypes.c_void_p)
    assert process.dladdr(found, ctypes.byref(info))
    return Path(info.file.decode()).name


@pytest.mark.parametrize("symbol", blas._FORWARDED)
def test_every_forwarded_symbol_is_the_shims(symbol: str) -> None:
    assert file_of(symbol) == blas.preload()


def test_products_through_the_shim_are_right() -> None:
    for rows, inner, columns in ((1, 1, 1), (3, 17, 5), (64, 200, 33)):
        a = mx.random.normal((rows, inner), key=mx.random.key(rows))
        b = mx.random.normal((inner, columns), key=mx.random.key(inner))
        assert np.allclose(np.array(a @ b), np.array(a) @ np.array(b), atol=1e-4)
    square = mx.random.normal((12, 12), key=mx.random.key(9))
    inverse = mx.linalg.inv(square, stream=mx.cpu)
    assert np.allclose(np.array(inverse @ square), np.eye(12), atol=1e-3)


def test_preloading_again_changes_the_threads_alone() -> None:
    name = blas.preload()
    assert name is not None
    assert blas.preload(2) == name
    assert blas._loaded is not None
    assert blas._loaded.scipy_openblas_get_num_threads() == 2
    assert blas.preload(1) == name
    assert blas._loaded.scipy_openblas_get_num_threads() == 1


def test_a_process_that_has_mlx_already_is_told(tmp_path: Path) -> None:
    code = "import mlx.core; from models import blas; blas.preload()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "must run before the first import of mlx.core" in ended.stderr


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ("aarch64", "cblas_sgemm: b scipy_cblas_sgemm\n"),
        ("x86_64", "cblas_sgemm: jmp scipy_cblas_sgemm@PLT\n"),
    ],
)
def test_the_assembly_is_the_machines(
    machine: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []

    def compiler(command: list[str], **_: Any) -> None:
        sources.append(Path(command[4]).read_text())
        Path(command[3]).write_bytes(b"")

    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(subprocess, "run", compiler)
    built = blas.build_shim(Path("/nowhere/libopenblas.so"), cache=tmp_path)
    assert built.exists()
    assert line in sources[0]
    assert '.section .note.GNU-stack,"",%progbits' in sources[0]
    assert blas.build_shim(Path("/nowhere/libopenblas.so"), cache=tmp_path) == built
    assert len(sources) == 1


def test_the_shim_is_built_from_nothing_and_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    openblas = blas._wheel_file("scipy-openblas32", "libscipy_openblas.so")
    assert openblas is not None
    built = blas.build_shim(openblas, cache=tmp_path)
    assert ctypes.CDLL(str(built)).cblas_sgemm
    with pytest.raises(RuntimeError, match="could not be compiled"):
        blas.build_shim(tmp_path / "no-such.so", cache=tmp_path)
    assert [file.name for file in built.parent.iterdir()] == [built.name]


def test_loading_mlx_lm_leaves_the_limit_of_open_files_alone() -> None:
    code = (
        "import resource; from models import blas; limit = resource.getrlimit(7); "
        "blas.preload(1); import mlx_lm.utils; assert resource.getrlimit(7) == limit, limit"
    ).replace("7", "resource.RLIMIT_NOFILE")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT_ROOT, timeout=60)
