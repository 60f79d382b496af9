"""What requests may say. Everything is bounded; what is not known is refused."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints, model_validator

from ragqa.settings import Decoding

_EXAMPLE: Final = "What is the description of Lumen Trail Headlamp LT-350?"

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=4000, pattern=r"[^\s\x00-\x1f]")]
# To JSON 3.0 is a whole number, too; "3" and true are not.
_INTEGRAL: Final = BeforeValidator(
    lambda given: int(given) if isinstance(given, float) and given.is_integer() else given
)
Stop = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100)]
Share = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Changes(_Body):
    """Settings of `AnswerSettings` that a request may change; what it leaves out is as the service was started."""

    top_k: Annotated[int, Field(strict=True, ge=1, le=50), _INTEGRAL] | None = None
    context_products: Annotated[int, Field(strict=True, ge=1, le=9), _INTEGRAL] | None = None
    max_new_tokens: Annotated[int, Field(strict=True, ge=1, le=512), _INTEGRAL] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31), _INTEGRAL] | None = None
    stop: Annotated[list[Stop], Field(max_length=4)] | None = None
    probabilities: StrictBool | None = None
    min_confidence: Share | None = None
    precision: Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)] | None = None
    decoding: Decoding | None = None

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: value for name, value in self if value is not None}


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class Ask(_Body):
    """One question, or several."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": _EXAMPLE},
                {"questions": [_EXAMPLE, "Do you have surfboards?"], "settings": {"top_k": 3}},
            ],
            "oneOf": [
                {"required": ["question"], "not": {"required": ["questions"]}},
                {
                    "required": ["questions"],
                    "not": {"required": ["question"]},
                    "properties": {"stream": {"const": False}},
                },
            ],
        }
    )

    question: Text = Field(default="", json_schema_extra=_without_default)
    questions: Annotated[list[Text], Field(min_length=1, max_length=1000)] = Field(
        default_factory=list, json_schema_extra=_without_default
    )
    stream: StrictBool = Field(False, description="answer with server-sent events: pieces, then the whole answer")
    prompt: StrictBool = Field(False, description="also what the generator was given")
    candidates: StrictBool = Field(
        False, description="also what was found for each question, and why; of a stream the first event, named found"
    )
    settings: Changes = Field(default_factory=Changes)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.question) == bool(self.questions):
            raise ValueError("give either question or questions")
        if self.stream and self.questions:
            raise ValueError("a stream takes one question, not questions")
        return self


class Search(_Body):
    """A question whose candidates are wanted, without an answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"question": "lumen headlamp", "top_k": 3}]})

    question: Text
    top_k: Annotated[int, Field(strict=True, ge=1, le=50), _INTEGRAL] = 5


class Message(BaseModel):
    """A message of a conversation, as OpenAI has it; parts of a message other than text are refused."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Chat(BaseModel):
    """A chat completion, as OpenAI has it. The last user message is the question; others are not read."""

    model_config = ConfigDict(
        extra="allow",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"model": "ragqa", "messages": [{"role": "user", "content": _EXAMPLE}]}]},
    )

    model: Annotated[str, StringConstraints(max_length=200)] = "ragqa"
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: StrictBool | None = None
    stream_options: dict[str, Any] | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=1), _INTEGRAL] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1), _INTEGRAL] | None = None
    max_completion_tokens: Annotated[int, Field(strict=True, ge=1), _INTEGRAL] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31), _INTEGRAL] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None

    def changes(self) -> Changes:
        """Its settings."""
        most = self.max_completion_tokens or self.max_tokens
        return Changes(
            max_new_tokens=None if most is None else min(most, 512),
            temperature=self.temperature,
            seed=self.seed,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop,
        )
