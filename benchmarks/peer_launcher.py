"""Runs mlx_lm.server with the BLAS that our own engine loads: `python -m benchmarks.peer_launcher`.

The first argument is the number of BLAS threads, the rest is mlx_lm.server's.
"""

from __future__ import annotations

import sys

from models import blas


def main(arguments: list[str]) -> None:
    """Does not return until the server ends."""
    threads, *rest = arguments
    blas.preload(int(threads))
    sys.argv = ["mlx_lm.server", *rest]
    from benchmarks.wired import leave_wired_limit_alone

    leave_wired_limit_alone()
    from mlx_lm import server

    server.main()


if __name__ == "__main__":
    main(sys.argv[1:])
