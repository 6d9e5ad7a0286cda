"""The command `homegrown`. A command's module is imported when the command is asked for, so that `--help` answers at once."""

from cli import early  # before the others, which take a while

# isort: split
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

from cli.screen import harmless
from model.errors import HomegrownError

# command -> (module, name in it, the line that `homegrown --help` shows)
COMMANDS = {
    "serve": ("cli.serve", "serve", "Serve a model over HTTP."),
    "chat": ("cli.chat", "chat", "Talk with a model in the terminal."),
    "generate": ("cli.generate", "generate", "Continue a prompt without a server."),
    "classify": ("cli.classify", "classify", "Label the texts of a file."),
    "pretrain": ("cli.pretrain", "pretrain", "Train a language model from scratch, or go on with one."),
    "tokenizer": ("cli.pretrain", "tokenizer", "Train a tokenizer."),
    "finetune": (
        "cli.finetune",
        "finetune",
        "Make a trained model classify, follow instructions, or prefer some answers.",
    ),
    "evaluate": ("cli.evaluate", "evaluate", "Measure a model on data, beside baselines."),
    "merge": ("cli.weights", "merge", "Add a low-rank adapter to its base model's weights."),
    "pull": ("cli.weights", "pull", "Fetch open weights from the Hugging Face Hub."),
    "import": ("cli.weights", "import_", "Turn a GGUF file into a model directory."),
    "bench": ("cli.bench", "bench", "Measure how fast a model runs on this machine."),
    "completion": ("cli.completion", "completion", "Print the script that completes these commands in a shell."),
}

EXIT_CODES = (
    ("0", "Done; of serve also its proper end, by Ctrl-C or SIGTERM."),
    (
        "1",
        "An error: one line on stderr says what is wrong, and what to do. Without a word where the output's reader has gone.",
    ),
    ("2", "A command line that can't be understood."),
    ("130", "Interrupted by Ctrl-C; nothing is left half written."),
)
# Fixed, so that completion works whatever file the command was started by.
PROGRAM, COMPLETE = "homegrown", "_HOMEGROWN_COMPLETE"


def main() -> None:
    """Entry point of the console script; ends with one of EXIT_CODES."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal without umlauts, a file's name that isn't UTF-8
    try:
        code = commands(prog_name=PROGRAM, complete_var=COMPLETE, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):  # click makes the one of the other
        _end_interrupted()
    except (HomegrownError, OSError) as error:  # OSError: a directory that can't be made, a full disk
        click.echo(f"{PROGRAM}: {harmless(str(error))}", err=True)
        with suppress(OSError):  # what a full disk doesn't take, Python would try to write once more at its end
            sys.stdout.close()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _end_interrupted() -> NoReturn:
    """Exit code 130. All that was under way has been left in order when this is called."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one now could only add a traceback
    with suppress(OSError):  # nobody may be reading any more
        click.echo(f"{PROGRAM}: interrupted", err=True)
        sys.stdout.flush()
    # Not sys.exit: where Ctrl-C fell into an exec(), as of a data class, Python would yet end by the signal, with no exit code.
    os._exit(130)


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="homegrown", prog_name="homegrown")
def commands() -> None:
    """A GPT you train, own and serve.

    \b
    homegrown serve
    homegrown chat
    homegrown COMMAND --help
    """


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """A library of an extra that isn't installed is named together with what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise HomegrownError(f"{error.name} is not installed; run: pip install 'homegrown[{extra}]'") from None


early.over()
