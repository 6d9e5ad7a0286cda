"""Who is told what an engine's client sees: metrics, say. Free of torch and of HTTP."""

from app.engine.messages import Finish, Loaded, Step, Submit


class Observer:
    """Takes note of nothing; a subclass overrides what it wants to know.

    Called on the client's event loop in the middle of its work: a call must be short and must not raise. A request here is
    what the engine knows as one: each prompt of an HTTP request, and each choice of a prompt, is one of its own.
    """

    def on_ready(self, info: Loaded, *, again: bool) -> None:
        """The engine has loaded; `again`: it had died."""

    def on_submit(self, submit: Submit) -> None:
        """A request has been sent to the engine."""

    def on_step(self, step: Step) -> None:
        """The engine has told of a step, or sent its heartbeat; before the requests themselves are told."""

    def on_end(self, request_id: int, outcome: Finish | BaseException | None) -> None:
        """A request has ended, once for each that was sent: with its finish, with None (an embedding or scores), or with what its
        consumer is told instead of an answer (RequestCancelled: the consumer itself has left)."""
