"""`homegrown completion`: the script that lets a shell complete commands, options, models and files."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes these commands: their names, options, choices, models and files.

    \b
    homegrown completion bash > ~/.local/share/bash-completion/completions/homegrown
    homegrown completion zsh > "${fpath[1]}/_homegrown"
    homegrown completion fish > ~/.config/fish/completions/homegrown.fish
    source <(homegrown completion bash)   # in this shell alone
    """
    from click.shell_completion import get_completion_class

    from cli import COMPLETE, PROGRAM, commands

    found = get_completion_class(shell)
    assert found is not None, "click knows these three"
    script = found(commands, {}, PROGRAM, COMPLETE)
    # Not `source()`: for bash that would first look for a bash on this machine, which need not be the one that reads it.
    click.echo(script.source_template % script.source_vars(), nl=False)
