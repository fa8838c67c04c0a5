"""`python -m benchmarks NAME [options]`: one entry for every benchmark, one output format."""

from __future__ import annotations

from benchmarks.cli import app

if __name__ == "__main__":
    app()
