"""The request bodies of /v1/chat/completions and /v1/completions: the supported fields of OpenAI's API."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from luthier.dataset import messages as chat
from luthier.errors import UserError
from luthier.values import Frozen
from luthier.worker_protocol import Question, Weights
from service.schemas.requests import Name

LEGACY_TOKENS: Final = 16  # OpenAI's default for /v1/completions
MOST_STOPS: Final = 16


class _Only:
    """A field of OpenAI's API that is supported only with these values, the clients' defaults."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __call__(self, value: Any) -> Any:
        if value is None or value in self._values:
            return None
        legal = " or ".join(map(repr, self._values))
        raise PydanticCustomError(
            "expected", "{expected}", {"expected": f"left out, or {legal}: other values are not supported"}
        )


Zero = Annotated[Any, AfterValidator(_Only(0))]
One = Annotated[Any, AfterValidator(_Only(1))]
No = Annotated[Any, AfterValidator(_Only(False))]
Empty = Annotated[Any, AfterValidator(_Only([], {}, ""))]
NoTool = Annotated[Any, AfterValidator(_Only("none", "auto"))]
Text = Annotated[Any, AfterValidator(_Only({"type": "text"}, ["text"]))]
Ignored = Annotated[Any, Field(default=None, description="accepted and ignored")]


def _conversation(value: Any) -> tuple[dict[str, Any], ...]:
    """Check messages as those of a dataset are, and normalise them for chat templates."""
    try:
        found = tuple(dict(message) for message in chat.prompt(value, "messages"))
        str(found).encode()
    except UserError as error:
        raise PydanticCustomError("conversation", "{reason}", {"reason": error.message}) from error
    except UnicodeEncodeError as error:
        raise PydanticCustomError("expected", "{expected}", {"expected": "text of valid Unicode"}) from error
    return found


Conversation = Annotated[
    tuple[dict[str, Any], ...],
    BeforeValidator(_conversation),
    WithJsonSchema({"type": "array", "items": {"type": "object"}, "minItems": 1}),
]
Stops = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(max_length=MOST_STOPS),
]


class StreamOptions(Frozen):
    include_usage: bool | None = Field(
        default=None, description="end the stream with a chunk that has the token counts"
    )
    include_obfuscation: bool | None = Field(default=None, description="accepted and ignored")


class Sampling(Frozen):
    """The fields that both bodies have."""

    model: Name = Field(
        description="a base model, the result of a job, or an alias", examples=["ft:tiny-chat:luthier:7c91d4aa"]
    )
    stream: bool | None = Field(default=None, description="stream the answer as server-sent events")
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, description="0: greedy decoding; default: 1")
    top_p: float | None = Field(
        default=None, ge=0, le=1, description="nucleus sampling: the probability mass to sample from"
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="the same seed gives the same answer")
    stop: Stops | None = Field(default=None, description="the answer ends before the first of these")
    n: One = None
    presence_penalty: Zero = None
    frequency_penalty: Zero = None
    logit_bias: Empty = None
    user: Ignored = None

    @property
    def counted(self) -> bool:
        """Whether a stream ends with a chunk that has the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CreateChat(Sampling):
    messages: Conversation
    max_tokens: int | None = Field(default=None, ge=1, description="OpenAI's older name for max_completion_tokens")
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="default: what the model's context leaves"
    )
    logprobs: No = None
    top_logprobs: Zero = None
    tools: Empty = None
    tool_choice: NoTool = None
    functions: Empty = None
    response_format: Text = None
    modalities: Text = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    parallel_tool_calls: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None

    def question(self, weights: Weights) -> Question:
        return Question(
            model=self.model,
            weights=weights,
            messages=self.messages,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            **_sampling(self),
        )


class CreateCompletion(Sampling):
    prompt: Annotated[str, BeforeValidator(lambda value: _alone(value))] = Field(
        min_length=1, description="used as it is, without a chat template"
    )
    max_tokens: int | None = Field(default=None, ge=1, description=f"default: {LEGACY_TOKENS}, as with OpenAI")
    best_of: One = None
    echo: No = None
    logprobs: Zero = None
    suffix: Empty = None

    def question(self, weights: Weights) -> Question:
        return Question(
            model=self.model,
            weights=weights,
            prompt=self.prompt,
            max_tokens=self.max_tokens or LEGACY_TOKENS,
            **_sampling(self),
        )


def _alone(value: Any) -> Any:
    """Unpack a list of one prompt. OpenAI accepts several prompts in one request; only one is supported here."""
    match value:
        case [str(prompt)]:
            return prompt
        case list():
            raise PydanticCustomError(
                "expected", "{expected}", {"expected": "one text (several texts, or token ids, are not supported)"}
            )
        case _:
            return value


def _sampling(body: Sampling) -> dict[str, Any]:
    return {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "seed": body.seed,
        "stop": body.stop or (),
    }
