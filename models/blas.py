"""Gives MLX an optimised BLAS on Linux CPUs, where its wheel links the slow reference one.

The dynamic linker takes the first global definition of a symbol, so an optimised library loaded with
`RTLD_GLOBAL` before the first `import mlx.core` serves MLX's `cblas_*` calls. The `scipy-openblas32`
wheel is such a library, for x86_64 and aarch64, but it exports its functions with a `scipy_` prefix; a
shim of one-line forwards is compiled once, with the machine's C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

_COMPILE_TIMEOUT_S = 60

# Every BLAS and LAPACK symbol that libmlx imports (`nm -D --undefined-only libmlx.so`).
_FORWARDED = (
    *("cblas_sgemm", "cblas_dgemm", "cblas_cgemm"),
    *("sgeev_", "dgeev_", "cgeev_", "ssyevd_", "dsyevd_", "cheevd_"),
    *("sgeqrf_", "dgeqrf_", "sorgqr_", "dorgqr_", "sgesdd_", "dgesdd_", "cgesdd_"),
    *("sgetrf_", "dgetrf_", "sgetri_", "dgetri_", "spotrf_", "dpotrf_", "strtri_", "dtrtri_"),
)

_loaded: ctypes.CDLL | None = None


def preload(threads: int | None = None) -> str | None:
    """Load the optimised BLAS, once; call it before the first `import mlx.core`.

    `threads` sets the library's thread count for this process (at least 1). Returns the shim's file
    name, or None where MLX needs none (macOS) or no wheel serves this platform.
    Raises RuntimeError when MLX is already loaded without it, or no C compiler works.
    """
    name = _preload(threads) if sys.platform == "linux" else None
    _import_mlx_lm()
    return name


def _preload(threads: int | None) -> str | None:
    global _loaded
    if _loaded is None:
        if "mlx.core" in sys.modules:
            raise RuntimeError("models.blas.preload() must run before the first import of mlx.core")
        openblas = _wheel_file("scipy-openblas32", "libscipy_openblas.so")
        if openblas is None:
            return None
        _loaded = ctypes.CDLL(str(build_shim(openblas)), mode=ctypes.RTLD_GLOBAL)
    if threads is not None:
        _loaded.scipy_openblas_set_num_threads(ctypes.c_int(threads))
    return os.path.basename(_loaded._name)


def _import_mlx_lm() -> None:
    """Import mlx-lm without its side effect: it lowers the process's limit of open files, and only
    root could raise that again."""
    if "mlx_lm" in sys.modules:
        return
    setrlimit = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        importlib.import_module("mlx_lm")
    finally:
        resource.setrlimit = setrlimit


def _wheel_file(distribution: str, stem: str) -> Path | None:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith(stem):
            return Path(str(file.locate())).resolve()
    return None


def build_shim(openblas: Path, cache: Path | None = None) -> Path:
    """Compile the library that forwards the plain BLAS names to `openblas`'s prefixed ones.

    The result is kept under `cache` (the user's cache folder by default), named by its content, and
    found there the next time. Raises RuntimeError when no C compiler works.
    """
    # Tail jumps keep every argument where the caller put it, whatever the signature.
    branch = "b" if platform.machine() == "aarch64" else "jmp"
    at = "" if platform.machine() == "aarch64" else "@PLT"
    lines = [
        f".globl {name}\n.type {name},%function\n{name}: {branch} scipy_{name}{at}"
        for name in _FORWARDED
    ]
    source = "\n".join([".text", *lines, '.section .note.GNU-stack,"",%progbits', ""])
    key = hashlib.sha256(f"{source}{openblas}".encode()).hexdigest()[:16]
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    target = folder / "medical-record" / f"libblas_shim-{key}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as build:
        assembly, library = Path(build, "shim.s"), Path(build, "shim.so")
        assembly.write_text(source)
        command = ["cc", "-shared", "-o", str(library), str(assembly), str(openblas)]
        command.append(f"-Wl,-rpath,{openblas.parent}")
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise RuntimeError(f"the BLAS shim could not be compiled: {error}") from error
        library.rename(target)
    return target
