"""The settings of a job: the task, its grader, the search budget and pins, and the frozen judge made from them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

from pydantic import AwareDatetime, BeforeValidator, Field, JsonValue, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from luthier.algorithms import Algorithm
from luthier.design import Schedule
from luthier.trial import RUNG_PAIRS, RUNG_ROWS
from luthier.updates import Placement, Update
from luthier.values import Frozen, kinds

Family = Literal["decoder", "encoder"]
Objective = Literal["perplexity", "reward"]


class DataKind(StrEnum):
    """The kind of a dataset's rows, after normalisation to TRL's column names."""

    TEXT = "text"  # text
    PAIRS = "pairs"  # prompt, completion
    CHAT = "chat"  # messages [, tools]
    PREFERENCE = "preference"  # prompt, chosen, rejected
    PROMPTS = "prompts"  # prompt, and columns for a grader
    UNPAIRED = "unpaired"  # prompt, completion, label (KTO: whether the completion is desirable)


def rung_rows(kind: DataKind) -> int:
    """Return how many held-out rows a trial is scored on at a rung, at most."""
    return RUNG_PAIRS if kind is DataKind.PREFERENCE else RUNG_ROWS


SimilarityMetric = Literal[
    "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class StringCheck(Frozen):
    """OpenAI's `string_check` grader: 1.0 if the comparison holds, else 0.0."""

    type: Literal["string_check"] = "string_check"
    name: str = "string_check"
    input: str = "{{sample.output_text}}"
    reference: str = "{{item.reference}}"
    operation: Literal["eq", "ne", "like", "ilike"] = "eq"


class TextSimilarity(Frozen):
    """OpenAI's `text_similarity` grader: 0.0 to 1.0 by the chosen metric."""

    type: Literal["text_similarity"] = "text_similarity"
    name: str = "text_similarity"
    input: str = "{{sample.output_text}}"
    reference: str = "{{item.reference}}"
    evaluation_metric: SimilarityMetric = "fuzzy_match"


class Number(Frozen):
    """1.0 if the last number of the input equals the last number of the reference within the tolerance, else 0.0."""

    type: Literal["number"] = "number"
    name: str = "number"
    input: str = "{{sample.output_text}}"
    reference: str = "{{item.reference}}"
    tolerance: float = Field(
        default=1e-6,
        ge=0,
        description="largest allowed |input - reference|, relative to |reference| if that is above 1",
    )


class Math(Frozen):
    """1.0 if the input's final expression is mathematically equal to the reference's, else 0.0."""

    type: Literal["math"] = "math"
    name: str = "math"
    input: str = "{{sample.output_text}}"
    reference: str = "{{item.reference}}"
    float_rounding: int = Field(default=6, ge=0, le=15, description="decimal places to which numbers must agree")


def _expected(what: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "expected {expected}", {"expected": what})


def _no_image(value: Any) -> None:
    if value is not None:
        raise _expected("left out: the code runs with the packages of Luthier's own installation")


class Python(Frozen):
    """OpenAI's `python` grader: the number that the source's function `grade(sample, item)` returns."""

    type: Literal["python"] = "python"
    name: str = "python"
    source: str = Field(
        min_length=1,
        max_length=256 * 1024,
        description="Python with a function `grade(sample, item)` that returns a number",
        examples=["def grade(sample, item):\n    return float(len(sample['output_text']) < 200)"],
    )
    image_tag: Annotated[None, BeforeValidator(_no_image)] = None


def _text(value: Any) -> Any:
    """Join OpenAI's message content (a string, a part, or a list of both) to one text."""
    parts = value if isinstance(value, list) else [value]
    texts = [part["text"] if isinstance(part, dict) and "text" in part else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise _expected("a string, or parts of type 'input_text' or 'output_text' (images and audio are not graded)")
    return "".join(texts)


class GraderMessage(Frozen):
    """A message to the grading model; `developer` is sent as `system`, which every server supports."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[str, BeforeValidator(_text)] = Field(description="text with templates")


class SamplingParams(Frozen):
    """Sampling parameters, sent unchanged; the server chooses those that are left out."""

    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)


class ScoreModel(Frozen):
    """OpenAI's `score_model` grader: the score that a model gives, within the range."""

    type: Literal["score_model"] = "score_model"
    name: str = "score_model"
    model: str = Field(min_length=1, description="name of the model at the grader API")
    input: tuple[GraderMessage, ...] = Field(min_length=1, max_length=100, description="messages to the model")
    range: tuple[float, float] = Field(default=(0.0, 1.0), description="lowest and highest score")
    sampling_params: SamplingParams | None = None

    @field_validator("range")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise _expected("two numbers, the lower one first")
        return value


class LabelModel(Frozen):
    """OpenAI's `label_model` grader: 1.0 if a model chooses a passing label, else 0.0."""

    type: Literal["label_model"] = "label_model"
    name: str = "label_model"
    model: str = Field(min_length=1, description="name of the model at the grader API")
    input: tuple[GraderMessage, ...] = Field(min_length=1, max_length=100, description="messages to the model")
    labels: tuple[str, ...] = Field(min_length=2, max_length=100, description="labels that the model chooses from")
    passing_labels: tuple[str, ...] = Field(min_length=1, description="labels that are graded 1.0")

    @field_validator("passing_labels")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        labels = info.data.get("labels")
        if labels is not None and not set(value) <= set(labels):
            raise _expected(f"among the labels {', '.join(labels)}")
        return value


SingleGrader = Annotated[
    StringCheck | TextSimilarity | Number | Math | Python | ScoreModel | LabelModel, Field(discriminator="type")
]
GraderKey = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Multi(Frozen):
    """OpenAI's `multi` grader: a formula over the grades of other graders. The reward is the formula's value."""

    type: Literal["multi"] = "multi"
    name: str = "multi"
    graders: dict[GraderKey, SingleGrader] = Field(
        min_length=1, max_length=10, description="graders by their name in the formula"
    )
    calculate_output: str = Field(
        max_length=500,
        description="formula of numbers, grader names, + - * / ** (or ^), and min, max, abs, floor, ceil, exp, sqrt, "
        "log",
        examples=["0.8 * answer + 0.2 * style"],
    )

    def __hash__(self) -> int:  # workers cache prepared data by judge
        return hash(self.model_dump_json())


Grader = Annotated[
    StringCheck | TextSimilarity | Number | Math | Multi | Python | ScoreModel | LabelModel,
    Field(discriminator="type"),
]


class EnvironmentSpec(Frozen):
    """An RL environment that makes the rows and the reward, instead of a file and a grader.

    `GET /v1/environments` lists the names.
    """

    name: str = Field(min_length=1, max_length=200, description="e.g. reasoning_gym/chain_sum or tools/move")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="options of the environment, by name")
    rows: int = Field(default=256, ge=20, le=20_000, description="rows to make, for all three splits together")
    max_turns: int = Field(default=8, ge=1, le=32, description="most answers of the model in one episode")

    def __hash__(self) -> int:  # workers cache prepared data by judge
        return hash(self.model_dump_json())


class Task(Frozen):
    goal: Literal["auto", "domain", "behaviour"] = Field(
        default="auto", description="`domain`: learn the content of the text; `behaviour`: answer like the examples"
    )
    grader: Grader | None = Field(default=None, description="grades generated answers")
    environment: EnvironmentSpec | None = Field(
        default=None,
        exclude_if=lambda environment: environment is None,  # tasks older than the field keep their text
        description="makes the rows and scores the answers, instead of training_file and grader",
    )

    @property
    def rewarded(self) -> bool:
        """True if the task has a reward, so that reinforcement learning is possible."""
        return self.grader is not None or self.environment is not None


# Pins that had their names before algorithms shared hyperparameters; all others are named by `pin_name`'s rule.
_PIN_NAMES: Final = {("dpo", "beta"): "beta", ("mlm", "mask"): "mask"}


def pin_name(algorithm: str, field: str) -> str:
    """The name of the axis, and of the pin, of a hyperparameter of one algorithm: `grpo_group`."""
    return _PIN_NAMES.get((algorithm, field), f"{algorithm}_{field}")


def _setting_pins() -> dict[str, Any]:
    """A field of `Pin` for each hyperparameter of each algorithm."""
    found: dict[str, Any] = {}
    for member in get_args(get_args(Algorithm)[0]):
        for name, field in member.model_fields.items():
            if name != "kind":
                about = f"of {member.kind_name()}: {field.description}"
                values = GenericAlias(tuple, (field.annotation, ...))
                found[pin_name(member.kind_name(), name)] = (values | None, Field(default=None, description=about))
    return found


if TYPE_CHECKING:

    class _SettingPins(Frozen): ...

else:
    _SettingPins = create_model("_SettingPins", __base__=Frozen, **_setting_pins())


class Pin(_SettingPins):
    """Settings that the user pins; each lists the values that remain allowed."""

    algorithm: tuple[str, ...] | None = Field(
        default=None,
        description="recipes: one learning algorithm, or up to three in order, such as sft+dpo; docs/design-space.md "
        "lists those for each kind of data",
    )
    update: tuple[str, ...] | None = Field(
        default=None,
        description=f"{', '.join(kinds(Update))}; qlora only if all workers have CUDA and bitsandbytes",
    )
    placement: tuple[Placement, ...] | None = Field(
        default=None,
        exclude_if=lambda placement: placement is None,
        description="target_modules of lora, rslora, dora, lora_plus and pissa: all, attention, mlp, or embeddings "
        "(all linear layers and the embeddings)",
    )
    rank: tuple[int, ...] | None = Field(
        default=None,
        exclude_if=lambda rank: rank is None,
        description="rank of lora, rslora, dora, lora_plus, adalora and qlora, and of pissa up to 32",
    )
    model: tuple[str, ...] | None = Field(default=None, description="names of registered base models")
    layers: tuple[int, ...] | None = Field(default=None, description="transformer layers kept")
    kv_heads: tuple[int, ...] | None = Field(default=None, description="key/value heads after mean pooling")
    window: tuple[int, ...] | None = Field(default=None, description="attention window in tokens; 0: the model's own")
    rope_factor: tuple[float, ...] | None = Field(
        default=None,
        description="RoPE scaling: context length as a multiple of the model's own; 1: no scaling. All trials of the "
        "job use the max_length of the longest context",
    )
    epochs: tuple[float, ...] | None = Field(
        default=None,
        description="passes over the training rows: at most so many, as a trial ends at its best moment; exactly so "
        "many under a cosine schedule",
    )
    schedule: tuple[Schedule, ...] | None = Field(
        default=None,
        exclude_if=lambda schedule: schedule is None,
        description="learning rate after the warm-up: constant with averaged weights (the default), or cosine decay to "
        "zero",
    )
    batch_size: tuple[int, ...] | None = Field(default=None, description="rows in one optimiser step")
    learning_rate_multiplier: tuple[float, ...] | None = Field(
        default=None, description="relative to the default learning rate of the weight update"
    )
    learning_rate: tuple[float, ...] | None = Field(
        default=None,
        exclude_if=lambda rate: rate is None,
        description="peak learning rate of the first stage, e.g. 3e-4, at most 1. Each design's multiplier follows, "
        "and later stages have the same multiplier. It excludes learning_rate_multiplier",
    )


MAX_TRIALS: Final = 10_000


class Search(Frozen):
    trials: int = Field(default=24, ge=2, le=MAX_TRIALS, description="designs to try, including the two baselines")
    device_seconds: float | None = Field(
        default=None, gt=0, description="budget, summed over all workers; nothing runs past it"
    )
    deadline: datetime | None = Field(default=None, description="wall-clock time at which running trials are stopped")
    objective: Literal["auto", "perplexity", "reward"] = Field(default="auto", description="metric to optimise for")
    finalists: int = Field(
        default=3,
        ge=1,
        le=20,
        description="how many of the best designs are trained to the end, repeated with other seeds, and keep their "
        "weights",
    )
    confirmations: int = Field(
        default=2,
        ge=0,
        le=10,
        description="repeats of the finalists and the plain LoRA default with other seeds",
    )
    memory: bool = Field(
        default=True, description="warm start: try the best designs of similar jobs of this installation first"
    )
    early_finish: bool = Field(
        default=True, description="end the search early if further designs are not expected to improve the result"
    )
    sampler: str = Field(
        default="luthier",
        min_length=1,
        max_length=200,
        exclude_if=lambda sampler: sampler == "luthier",  # jobs older than the field keep their text
        description="what proposes designs after the first ones: `luthier`, Optuna's `tpe`, `gp` or `random`, or the "
        "import path of an Optuna sampler that the setting LUTHIER_SAMPLERS allows, such as `package.module:Class`",
    )
    pin: Pin = Pin()


class Extension(Frozen):
    """What a user added to the budget of a search that had ended."""

    at: AwareDatetime
    first_trial: int = Field(ge=1, description="number of the first trial that is added afterwards")
    trials: int = Field(default=0, ge=0, description="further designs")
    device_seconds: float | None = Field(default=None, description="further device-seconds")
    deadline: AwareDatetime | None = Field(default=None, description="the new deadline")
    ran: float = Field(
        default=0.0, ge=0, description="wall-clock seconds that the search had run since its start or last extension"
    )


class Constraints(Frozen):
    parameters: int | None = Field(default=None, ge=1, description="largest allowed number of model parameters")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda limit: limit is None,  # jobs older than the field keep their text
        description="largest allowed estimated memory of a trial; on a CPU that of the whole worker process",
    )


class JudgeSpec(Frozen):
    """Everything that decides a score, fixed when the job starts and the same for every trial of the job.

    Only repeats have other validation rows, where the job has further splits (`Resplit`).

    `validation` and `test` are digests of JSONL blobs. `window` and `max_tokens` do not depend on the context of the
    scored model: all models read the same text. The objective `perplexity` compares bits per byte, which ranks models
    of one tokenizer exactly as perplexity does. Encoders are scored by the pseudo-log-likelihood (Salazar et al. 2020).
    It does not compare with a decoder's likelihood, so all models of one job are of one family.
    """

    kind: DataKind
    validation: str = Field(description="digest of the validation rows, which the search ranks trials on")
    test: str = Field(description="digest of the test rows, which the search never sees")
    objective: Objective
    grader: Grader | None = None
    window: int = Field(default=512, ge=8, description="tokens in one piece of long text; nothing is dropped")
    max_tokens: int = Field(
        default=2048, ge=8, description="max_length in tokens; longer rows are truncated on the right"
    )
    max_new_tokens: int = Field(default=64, ge=1, description="longest graded generation in tokens")
    max_rows: int = Field(default=128, ge=1, description="rows scored for perplexity, from the start of the split")
    max_generations: int = Field(default=32, ge=1, description="prompts that are answered and graded")
    tools: bool = Field(
        default=False, description="rows contain tools or tool calls, so the chat template must show them"
    )
    environment: EnvironmentSpec | None = Field(
        default=None,
        exclude_if=lambda environment: environment is None,
        description="scores the answers instead of the grader",
    )
    family: Family = Field(
        default="decoder",
        exclude_if=lambda family: family == "decoder",  # like the next two: judges older than the field keep their text
        description="family of all models of the job; decides how likelihood is computed",
    )
    pseudo_positions: int = Field(
        default=8,
        ge=1,
        exclude_if=lambda positions: positions == 8,
        description="encoders: tokens scored per window, evenly spaced; each needs its own forward pass",
    )
    pseudo_windows: int = Field(
        default=128,
        ge=1,
        exclude_if=lambda windows: windows == 128,
        description="encoders: windows scored, evenly spaced over all windows of the rows",
    )
    clock: AwareDatetime | None = Field(
        default=None,
        exclude_if=lambda clock: clock is None,
        description="the time that chat templates show in all texts of the job; null where none shows it",
    )


class Resplit(Frozen):
    """A further split of a job's training and validation rows, as digests of JSONL blobs. The test rows stay."""

    train: str
    validation: str


class TruncatedRows(Frozen):
    """What the length limit of a job does to its rows, as one base model reads them."""

    model: str
    max_length: int = Field(description="`max_tokens` of the judge; longer rows are truncated on the right")
    rows: int = Field(ge=0, description="rows of the training file and of the validation file")
    truncated: int = Field(ge=0, description="rows that are longer")
    without_target: int = Field(
        ge=0, description="rows whose targets all lie beyond the limit: not trained on, and in no metric"
    )
