"""`homegrown chat`: a conversation in the terminal, with a model in this process or on a running server."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import MODEL, engine_options, engine_spec
from cli.screen import whole

if TYPE_CHECKING:
    from cli.chatting.backends import Backend


@click.command()
@click.option("--model", type=MODEL, help="A model's name or directory; with --url one of the server's.")
@click.option("--adapter", help="An adapter that the model carries, by name, or its directory.")
@click.option(
    "--url", metavar="URL", help="Ask the server that runs there, this project's or another with OpenAI's API."
)
@click.option("--api-key", envvar="HOMEGROWN_API_KEY", show_envvar=True, help="With --url: the server's key.")
@click.option("--system", metavar="TEXT", help="What stands before the conversation.")
@click.option("--load", type=click.Path(path_type=Path), help="Go on with a conversation that /save wrote as JSON.")
@click.option(
    "--temperature", type=float, help="0 takes the likeliest token every time.  [default: 0.8, or the server's]"
)
@click.option(
    "--top-p", type=float, help="Keep the likeliest tokens that reach this share.  [default: 0.95, or the server's]"
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Longest answer; by default what the context has room for."
)
@click.option("--seed", type=int, help="The same seed gives the same answers.")
@click.option("--history", type=click.Path(path_type=Path), help="File of what was typed before, for the arrow keys.")
@click.option("--no-history", is_flag=True, help="Remember no typed lines.")
@engine_options
def chat(
    model: str | None,
    adapter: str | None,
    url: str | None,
    system: str | None,
    load: Path | None,
    history: Path | None,
    no_history: bool,
    **given: Any,
) -> None:
    """Talk with a model. /help shows what can be typed besides; Ctrl-C stops an answer, Ctrl-D leaves.

    Without a terminal each line of the input is a message, and the answers are all that is printed.

    \b
    homegrown chat
    homegrown chat --model models/smollm2 --system "You answer in one sentence."
    homegrown chat --url http://127.0.0.1:8000 --api-key a-long-secret
    echo "Name a colour." | homegrown chat --temperature 0
    """
    from cli.chatting.backends import Sampling
    from cli.chatting.conversation import Conversation
    from cli.chatting.session import Session, checked_setting
    from cli.chatting.terminal import Terminal, default_history

    if no_history and history is not None:
        raise click.UsageError("--history and --no-history exclude each other")
    sampling = Sampling()
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if given[name] is not None:
            checked_setting(sampling, name, str(given[name]))
    conversation = Conversation() if load is None else Conversation.load(load)
    conversation.system = conversation.system if system is None else whole(system) or None
    with closing(_backend(url, model, adapter, given)) as backend:
        lines = None if no_history else history or default_history()
        terminal = Terminal(lines, lambda line: session.completions(line))
        session = Session(backend, terminal, conversation, sampling)
        session.run()


def _backend(url: str | None, model: str | None, adapter: str | None, given: dict[str, Any]) -> "Backend":
    """Who answers: the server at `url`, or a model in this process."""
    spec = engine_spec(given)
    if url is None:
        from cli.chatting.local import LocalBackend

        return LocalBackend(model, adapter, spec)
    if adapter or spec:
        name = "adapter" if adapter else next(iter(spec))
        raise click.UsageError(f"--{name} is for a model in this process; a server's are named by --model")
    from cli.chatting.remote import RemoteBackend

    return RemoteBackend(url, model, given["api_key"])
