"""The bundled model: whole, small, English, and loadable by others."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from serving import Server

from model.checkpoint import load_model
from model.generate import generate
from model.gpt import GPT
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from training.models.publish import check_sizes

DIRECTORY = Path(__file__).parents[1] / "checkpoints" / "homegrown-base"

# Written for this test: in no corpus.
PASSAGES = [
    "The boy put the lamp on the table and looked at his mother. She had been ill for a long time, and he did not know "
    "what to say to her. At last he took her hand and said that the doctor would come in the morning.",
    "There was once a farmer who had three daughters. The eldest was proud, the second was idle, but the youngest was kind "
    "to every creature that came to the door of the house.",
    "It was raining when we left the village, and the road was so bad that the horses could hardly walk. My uncle said "
    "nothing all the way, and I sat beside him and thought about the letter.",
]


@pytest.fixture(scope="module")
def model() -> GPT:
    loaded = load_model(DIRECTORY)
    assert isinstance(loaded, GPT)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_directory(DIRECTORY)


def bits_per_byte(model: GPT, tokenizer: Tokenizer, text: str) -> float:
    end = tokenizer.eos_token_id
    assert end is not None
    tokens = torch.tensor([[end, *tokenizer.encode(text)]])
    with torch.no_grad():
        table = model(tokens)[:, :-1].log_softmax(-1)
    nats = -table.gather(2, tokens[:, 1:, None]).sum()
    return float(nats) / math.log(2) / len(text.encode())


def test_it_knows_english_and_the_order_of_its_words(model: GPT, tokenizer: Tokenizer) -> None:
    """Far from the 8 bits of noise, and from the same words out of order."""
    for passage in PASSAGES:
        words = passage.split()
        random.Random(0).shuffle(words)
        straight, shuffled = (bits_per_byte(model, tokenizer, text) for text in (passage, " ".join(words)))
        assert straight < 1.9
        assert shuffled > straight + 0.5


def test_what_it_writes_is_made_of_its_own_likely_words(model: GPT, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("The old woman opened the door and")
    texts = []
    for seed in range(3):
        tokens = list(generate(model, prompt, SamplingParams(temperature=0.7, seed=seed, ignore_eos=True), 60))
        texts.append(tokenizer.decode(tokens))
        words = texts[-1].split()
        assert len(words) > 25
        assert sum(word.strip(".,;:!?\"'").isascii() for word in words) > 0.9 * len(words)
        common = {
            "the",
            "and",
            "to",
            "of",
            "a",
            "in",
            "was",
            "he",
            "she",
            "it",
            "his",
            "her",
            "that",
            "had",
            "with",
            "i",
            "you",
        }
        assert sum(word.lower().strip(".,") in common for word in words) > 0.15 * len(words)
    assert len(set(texts)) == 3


def test_transformers_computes_the_same(model: GPT, tokenizer: Tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
    tokens = torch.tensor([tokenizer.encode(PASSAGES[0])])
    assert AutoTokenizer.from_pretrained(DIRECTORY)(PASSAGES[0])["input_ids"] == tokens[0].tolist()
    with torch.no_grad():
        assert (model(tokens) - theirs(tokens).logits).abs().max() <= 1e-4


def test_all_of_it_is_small() -> None:
    check_sizes(DIRECTORY, DIRECTORY.parent, DIRECTORY.name)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Of the server that `make serve` starts."""
    running = Server({})
    try:
        with running.wait_ready().client(timeout=60) as client:
            yield client
    finally:
        code = running.stop()
    assert code == 0


needs_adapters = pytest.mark.skipif(not (DIRECTORY / "adapters").is_dir(), reason="no adapters are bundled")


@needs_adapters
def test_one_server_has_all_of_them(client: httpx.Client) -> None:
    cards = {card["id"]: (card["task"], card["parent"]) for card in client.get("/v1/models").json()["data"]}
    assert cards == {
        DIRECTORY.name: ("generate", None), "instruct": ("generate", DIRECTORY.name),
        "sentiment": ("classify", DIRECTORY.name), "sms-spam": ("classify", DIRECTORY.name),
    }  # fmt: skip


@needs_adapters
@pytest.mark.parametrize(("model", "texts"), [
    ("sms-spam", {
        "spam": "WINNER!! You have been selected for a free prize of 1000 pounds. Call 09061701461 now to claim!",
        "ham": "I'm at the station, can you pick me up when you get home?",
    }),
    ("sentiment", {
        "positive": "a warm, funny and wonderful film, beautifully acted from beginning to end .",
        "negative": "a dull, lifeless and badly written mess that bored me to tears .",
    }),
])  # fmt: skip
def test_each_classifier_knows_plain_cases(client: httpx.Client, model: str, texts: dict[str, str]) -> None:
    answer = client.post("/classify", json={"model": model, "input": list(texts.values())}).raise_for_status().json()
    assert [row["label"] for row in answer["data"]] == list(texts)


@needs_adapters
def test_chats_and_instructions_are_answered_by_the_one_that_learned_to(client: httpx.Client) -> None:
    message = {
        "role": "user",
        "content": "Where did the fox live?\n\nA fox lived in a hole under an old oak. She had a red tail.",
    }
    body = {"messages": [message], "temperature": 0, "max_tokens": 60}
    chat = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert chat["model"] == "instruct"
    assert chat["choices"][0]["finish_reason"] == "stop"  # it ends by itself
    assert chat["choices"][0]["message"]["content"].strip()
    told = client.post("/instruct", json={"instruction": "Hello", "temperature": 0, "max_tokens": 60}).json()
    assert (told["model"], told["finish_reason"]) == ("instruct", "stop")
    text = client.post("/generate", json={"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}).json()
    assert text["model"] == DIRECTORY.name


def test_its_card_tells_all() -> None:
    card = (DIRECTORY / "README.md").read_text("utf-8")
    for part in ("bits a byte", "5-gram", "OpenStax", "CC BY", "updates", "validation"):
        assert part in card
