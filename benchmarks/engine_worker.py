"""One side's turn of the `engine` benchmark in a process of its own: a job as its argument, the
answer as the last line of its output."""

from __future__ import annotations

import sys

from benchmarks.engine_jobs import Answer, Job
from models import blas


def work(job: Job) -> Answer:
    """Loads the BLAS with the job's threads before anything imports MLX, whatever the side."""
    blas.preload(job.threads)
    if job.side == "engine":
        from benchmarks import engine_ours

        return engine_ours.run(job)
    from benchmarks import engine_peers

    return engine_peers.run(job)


if __name__ == "__main__":
    print(work(Job.model_validate_json(sys.argv[1])).model_dump_json())
