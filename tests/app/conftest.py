"""A tiny random model whose tokens are single bytes (so characters get split), and real servers around it."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server

CONTEXT = 1024
END = 256  # the id of <|endoftext|>


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random llama of 257 tokens: the 256 bytes and <|endoftext|>."""
    import torch

    from model.added_tokens import AddedToken
    from model.bpe import spell_bytes
    from model.checkpoint import save_model
    from model.config import ModelConfig
    from model.gpt import GPT
    from model.tokenizer import Tokenizer
    from model.tokenizer_json import build

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="llama", vocab_size=END + 1, context_length=CONTEXT, n_layer=2, n_head=4, n_kv_head=2, d_model=32,
        d_ff=64, head_dim=8, tie_embeddings=False, initializer_range=0.2, bos_token_id=END, eos_token_ids=(END,),
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model(GPT(config), directory)
    vocab = {spell_bytes(bytes([value])): value for value in range(256)} | {"<|endoftext|>": END}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data = build(vocab, [], [AddedToken(END, "<|endoftext|>", special=True)], pre_tokenizer=split)
    Tokenizer.from_json(data, {"eos_token": "<|endoftext|>"}, source="tests").save(directory)
    return directory


@pytest.fixture(scope="session")
def make_server(model_dir: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers; all are ended with the session."""
    servers: list[Server] = []

    def make(env: dict[str, str] | None = None, **settings: Any) -> Server:
        servers.append(Server({"model": str(model_dir), **settings}, env))
        return servers[-1]

    yield make
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """The server that tests share, if they leave it as it was: 4 slots, 4 places in the queue."""
    return make_server(
        max_slots=4, max_queue=4, prefill_chunk=32, body_limit=65536, cors_origins="https://a.example"
    ).wait_ready()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """An event loop for the tests of a module."""
    with asyncio.Runner() as runner:
        yield runner
