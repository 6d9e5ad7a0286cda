"""What Retry-After says to a client that was sent away: when it has a fair chance."""

import math

from app.engine.messages import EngineStatus

_LONGEST = 60  # seconds: common clients don't believe more


def retry_seconds(
    code: str | None, status: EngineStatus, *, slot_seconds: float, startup_seconds: float, age: float
) -> int:
    """Whole seconds, 1 to 60. `slot_seconds`: how long a request holds its slot, lately; `startup_seconds`: how long the engine
    took to start (0: not yet known); `age`: how long this server has been up."""
    if code == "queue_full":
        # Until half of the queue has moved on: at once there would be one place, for which all would come back.
        seconds = slot_seconds * status.waiting / 2 / max(status.slots, 1)
    elif code == "model_loading":
        seconds = age  # nothing else is known of a first start: what has lasted so long may last as long again
    else:  # the engine, or after this server another one, has to start first
        seconds = startup_seconds
    return min(max(math.ceil(seconds), 1), _LONGEST)
