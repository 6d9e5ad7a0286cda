"""LangChain's OpenAI integration."""

import asyncio

import pytest
from conformance import KEY, MODEL
from pydantic import BaseModel, Field

pytest.importorskip("langchain_openai", reason="langchain-openai isn't installed")

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings


@pytest.fixture
def chat(base_url) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY, temperature=0, max_tokens=24, max_retries=0)


def test_invoke_and_stream(chat):
    answer = chat.invoke("Who lives by the sea?")
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert "".join(chunk.text for chunk in chat.stream("Who lives by the sea?")) == answer.text


def test_a_chain_over_several_inputs(chat):
    prompt = ChatPromptTemplate.from_messages([("system", "You are brief."), ("user", "What is a {thing}?")])
    things = [{"thing": thing} for thing in ("fox", "lamp", "sea")]
    texts = [answer.text for answer in (prompt | chat).batch(things)]
    assert texts == [(prompt | chat).invoke(thing).text for thing in things]


def test_asynchronously(chat):
    async def work() -> tuple[str, str]:
        whole = (await chat.ainvoke("Who lives by the sea?")).text
        return whole, "".join([chunk.text async for chunk in chat.astream("Who lives by the sea?")])

    whole, streamed = asyncio.run(work())
    assert whole == streamed


class Animal(BaseModel):
    """An animal."""

    name: str = Field(max_length=12)
    legs: int = Field(ge=0, le=8)


def test_structured_output(chat):
    structured = chat.model_copy(update={"max_tokens": 200}).with_structured_output(Animal, method="json_schema")
    assert isinstance(structured.invoke("Name an animal."), Animal)


def test_logprobs(chat):
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke("Who lives by the sea?")
    content = answer.response_metadata["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == answer.text


def test_completions(base_url, api):
    model = OpenAI(model=MODEL, base_url=base_url, api_key=KEY, temperature=0, max_tokens=16, max_retries=0)
    prompts = ["Once upon a time", "The old man"]
    expected = [choice["text"] for choice in api.complete(prompts, max_tokens=16, temperature=0)["choices"]]
    assert [generations[0].text for generations in model.generate(prompts).generations] == expected
    assert "".join(model.stream(prompts[0])) == expected[0]


def test_embeddings(base_url):
    # It would count tokens with OpenAI's own vocabulary, and send their ids.
    model = OpenAIEmbeddings(model=MODEL, base_url=base_url, api_key=KEY, check_embedding_ctx_length=False)
    vectors = model.embed_documents(["The old man", "The sea"])
    assert model.embed_query("The sea") == pytest.approx(vectors[1], abs=1e-5)
