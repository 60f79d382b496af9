"""OpenAI's own client is served."""

from collections.abc import Iterator

import openai
import pytest

from ragqa import Answerer
from tests.serving.conftest import LT350, Serving


@pytest.fixture
def client(served: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_the_openai_client_gets_an_answer_with_its_sources(client: openai.OpenAI, answerer: Answerer) -> None:
    question = "What is the description of the Lumen headlamp LT-350?"
    told = client.chat.completions.create(
        model="ragqa",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Do you have surfboards?"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": [{"type": "text", "text": question}]},
        ],
    )
    expected = answerer.ask(question)
    assert told.choices[0].message.content == expected.text
    assert told.choices[0].finish_reason == "stop"
    assert told.usage
    assert told.usage.prompt_tokens == len(answerer.generator.tokenizer(expected.prompt)["input_ids"])
    assert told.model_extra
    assert told.model_extra["ragqa"]["sources"][0]["id"] == expected.sources[0].id


def test_the_openai_client_gets_a_stream(client: openai.OpenAI, answerer: Answerer) -> None:
    chunks = list(
        client.chat.completions.create(
            model="ragqa",
            messages=[{"role": "user", "content": LT350}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answerer.ask(LT350).text
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra
    assert last.model_extra["ragqa"]["sources"][0]["exact"] is True
    assert usage.usage
    assert usage.usage.total_tokens == 0  # an exact title needs no generator


def test_the_openai_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["ragqa"]


def test_the_openai_client_is_told_its_mistake(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="the last user message is the question"):
        client.chat.completions.create(model="ragqa", messages=[{"role": "user", "content": " "}])
    with pytest.raises(openai.UnprocessableEntityError, match="n: Input should be less than or equal to 1"):
        client.chat.completions.create(model="ragqa", messages=[{"role": "user", "content": "a"}], n=2)
