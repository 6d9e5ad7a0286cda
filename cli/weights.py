"""`homegrown pull`, `homegrown import` and `homegrown merge`: weights that others trained as model directories."""

from pathlib import Path

import click

from cli.options import json_option, say_result
from cli.screen import busy


@click.command()
@click.argument("name")
@click.option(
    "--revision", default=None, help="Commit, tag or branch; by default the newest, and its commit is recorded."
)
@click.option("--offline", is_flag=True, help="Use what was pulled before; never ask the network.")
@json_option("directory and revision")
def pull(name: str, revision: str | None, offline: bool, as_json: bool) -> None:
    """Fetch open weights (safetensors): gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or any repository of the two
    architectures on the Hugging Face Hub.

    \b
    homegrown pull gpt2 && homegrown serve --model gpt2
    homegrown pull HuggingFaceTB/SmolLM2-135M-Instruct --revision main
    """
    from model.files import read_json
    from model.hub import RECORD
    from model.hub import pull as run

    directory = run(name, revision=revision, offline=offline)
    say_result(as_json, {"directory": directory, "revision": read_json(directory / RECORD)["revision"]}, str(directory))


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace DIRECTORY if it holds something already.")
@json_option("the directory")
def import_(file: Path, directory: Path, force: bool, as_json: bool) -> None:
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
    say_result(as_json, {"directory": directory}, f"{directory}\nserve it: homegrown serve --model {directory}")


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The model directory to write.")
@click.option(
    "--model", default=None, help="The base: a model's name or directory, where it isn't the one that ADAPTER names."
)
@click.option("--force", is_flag=True, help="Replace the directory if it holds something already.")
@json_option("the directory")
def merge(adapter: Path, out: Path, model: str | None, force: bool, as_json: bool) -> None:
    """Add the low-rank ADAPTER (a PEFT directory) to its base model's weights: a model directory that needs neither.

    \b
    homegrown merge runs/mine/model --out models/mine
    """
    from model.adapters import merge_adapter

    with busy("merging"):
        merge_adapter(adapter, out, model, overwrite=force)
    say_result(as_json, {"directory": out}, f"{out}\nserve it: homegrown serve --model {out}")
