"""`homegrown pull` and `homegrown import`: open weights as model directories."""

from pathlib import Path

import click


@click.command()
@click.argument("name")
@click.option(
    "--revision", default=None, help="Commit, tag or branch; by default the newest, and its commit is recorded."
)
@click.option("--offline", is_flag=True, help="Use what was pulled before; never ask the network.")
def pull(name: str, revision: str | None, offline: bool) -> None:
    """Fetch open weights (safetensors): gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or any repository of the two
    architectures on the Hugging Face Hub.

    \b
    homegrown pull gpt2 && homegrown serve --model gpt2
    """
    from model.hub import pull as run

    click.echo(run(name, revision=revision, offline=offline))


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace DIRECTORY if it holds something already.")
def import_(file: Path, directory: Path, force: bool) -> None:
    """Turn the GGUF FILE (gpt2 or llama, with its tokenizer and chat template) into a model DIRECTORY.

    \b
    homegrown import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2
    """
    from tqdm import tqdm

    from model.gguf_import import import_gguf

    with tqdm(desc="importing", unit=" tensors", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        import_gguf(file, directory, overwrite=force, progress=show)
    click.echo(f"{directory}\nserve it: homegrown serve --model {directory}")
