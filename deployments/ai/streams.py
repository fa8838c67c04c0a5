"""One streaming call to a replica, with what Serve leaves out: who serves it, and a sure cancel.

The only place that knows the insides of Serve's response generator.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from models.errors import EngineError


@dataclass(eq=False, slots=True)
class Call:
    """A call in progress. `error` is why the watch ended it, if it did."""

    model: str
    response: Any  # ray.serve.handle.DeploymentResponseGenerator
    deadline_s: float
    started_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    error: EngineError | None = None

    def heard(self) -> None:
        """Note that the replica has just sent something."""
        self.heard_s = time.monotonic()

    @property
    def is_assigned(self) -> bool:
        """Whether a replica has taken the call."""
        return self._result() is not None

    @property
    def replica(self) -> str | None:
        """Actor id of the replica that serves the call, in hex; None while that is unknown."""
        actor = getattr(self._result(), "_actor_id", None)
        return None if actor is None else str(actor.hex())

    def end(self, error: EngineError) -> None:
        """End the call from outside its consumer, who then gets `error`."""
        self.error = error
        self.cancel()

    def cancel(self) -> None:
        """Stop the replica's generator. Dropping or closing Serve's generator would let it run."""
        self.response.cancel()
        # Between assignment and the first read, Serve's cancel does not know the replica's side.
        result = self._result()
        if result is not None:
            result.cancel()

    def _result(self) -> Any:
        future = self.response._replica_result_future
        if not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return future.result()
