"""What a job asks for: the task, its grader, the search budget and pins, and the frozen judge made from them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from luthier.design import Frozen, Placement
from luthier.trial import RUNG_PAIRS, RUNG_ROWS

Family = Literal["decoder", "encoder"]
Objective = Literal["perplexity", "reward"]


class DataKind(StrEnum):
    """What a row is, after normalisation to TRL's column names."""

    TEXT = "text"  # text
    PAIRS = "pairs"  # prompt, completion
    CHAT = "chat"  # messages [, tools]
    PREFERENCE = "preference"  # prompt, chosen, rejected
    PROMPTS = "prompts"  # prompt, and what a grader reads
    UNPAIRED = "unpaired"  # prompt, completion, label (whether the completion is desirable)


def rung_rows(kind: DataKind) -> int:
    """How many held-out rows a trial is scored on at a rung, at most."""
    return RUNG_PAIRS if kind is DataKind.PREFERENCE else RUNG_ROWS


SimilarityMetric = Literal[
    "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class StringCheck(Frozen):
    """OpenAI's `string_check` grader: 1.0 where the comparison holds, else 0.0."""

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
    """1.0 where the last number of the input equals the last number of the reference within the tolerance, else 0.0."""

    type: Literal["number"] = "number"
    name: str = "number"
    input: str = "{{sample.output_text}}"
    reference: str = "{{item.reference}}"
    tolerance: float = Field(
        default=1e-6, ge=0, description="largest |input - reference|, as a share of |reference| where that is above 1"
    )


class Math(Frozen):
    """1.0 where the input's final expression equals the reference's by the rules of mathematics, else 0.0."""

    type: Literal["math"] = "math"
    name: str = "math"
    input: str = "{{sample.output_text}}"
    reference: str = "{{item.reference}}"
    float_rounding: int = Field(default=6, ge=0, le=15, description="decimal places that numbers must share")


def _expected(what: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "expected {expected}", {"expected": what})


def _no_image(value: Any) -> None:
    if value is not None:
        raise _expected("left out, as the code runs with the packages that Luthier itself is installed with")


class Python(Frozen):
    """OpenAI's `python` grader: what the source's function `grade(sample, item)` returns."""

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
    """OpenAI's content as one text: a string, a part, or a list of both."""
    parts = value if isinstance(value, list) else [value]
    texts = [part["text"] if isinstance(part, dict) and "text" in part else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise _expected("a string, or parts of type 'input_text' or 'output_text' (images and audio are not graded)")
    return "".join(texts)


class GraderMessage(Frozen):
    """A message to the model that grades; `developer` is sent as `system`, which every server knows."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[str, BeforeValidator(_text)] = Field(description="text with templates")


class SamplingParams(Frozen):
    """Sent as they are; what is left out is for the server to decide."""

    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)


class ScoreModel(Frozen):
    """OpenAI's `score_model` grader: the score that a model gives, within the range."""

    type: Literal["score_model"] = "score_model"
    name: str = "score_model"
    model: str = Field(min_length=1, description="as the endpoint calls it")
    input: tuple[GraderMessage, ...] = Field(min_length=1, max_length=100, description="what the model is asked")
    range: tuple[float, float] = Field(default=(0.0, 1.0), description="lowest and highest score")
    sampling_params: SamplingParams | None = None

    @field_validator("range")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise _expected("two numbers, the lower one first")
        return value


class LabelModel(Frozen):
    """OpenAI's `label_model` grader: 1.0 where a model chooses a passing label, else 0.0."""

    type: Literal["label_model"] = "label_model"
    name: str = "label_model"
    model: str = Field(min_length=1, description="as the endpoint calls it")
    input: tuple[GraderMessage, ...] = Field(min_length=1, max_length=100, description="what the model is asked")
    labels: tuple[str, ...] = Field(min_length=2, max_length=100, description="what the model chooses from")
    passing_labels: tuple[str, ...] = Field(min_length=1, description="the labels that are graded 1.0")

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
    """OpenAI's `multi` grader: a formula over the grades of others. Its reward is whatever the formula gives."""

    type: Literal["multi"] = "multi"
    name: str = "multi"
    graders: dict[GraderKey, SingleGrader] = Field(min_length=1, max_length=10, description="by their names in formula")
    calculate_output: str = Field(
        max_length=500,
        description="numbers, names of graders, + - * / ** (or ^), and min, max, abs, floor, ceil, exp, sqrt, log",
        examples=["0.8 * answer + 0.2 * style"],
    )

    def __hash__(self) -> int:  # workers keep what they have prepared by the judge that they prepared it for
        return hash(self.model_dump_json())


Grader = Annotated[
    StringCheck | TextSimilarity | Number | Math | Multi | Python | ScoreModel | LabelModel,
    Field(discriminator="type"),
]


class EnvironmentSpec(Frozen):
    """Where rows and reward come from instead of a file and a grader. `GET /v1/environments` lists the names."""

    name: str = Field(min_length=1, max_length=200, description="e.g. reasoning_gym/chain_sum or tools/move")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="the environment's own, by their names")
    rows: int = Field(default=256, ge=20, le=20_000, description="how many to make; the splits are taken from them")
    max_turns: int = Field(default=8, ge=1, le=32, description="answers of the model after which an episode is over")

    def __hash__(self) -> int:  # workers keep what they have prepared by the judge that they prepared it for
        return hash(self.model_dump_json())


class Task(Frozen):
    goal: Literal["auto", "domain", "behaviour"] = Field(
        default="auto", description="`domain`: know the text; `behaviour`: answer like the examples"
    )
    grader: Grader | None = Field(default=None, description="how generations are graded; needs a reference answer")
    environment: EnvironmentSpec | None = Field(
        default=None,
        exclude_if=lambda environment: environment is None,  # tasks older than the field keep their text
        description="what makes the rows and scores the answers, in place of training_file and grader",
    )

    @property
    def rewarded(self) -> bool:
        """Whether it says how good an answer is, so that answers of the model's own can be learnt from."""
        return self.grader is not None or self.environment is not None


class Pin(Frozen):
    """Axes that the user fixes; each lists the values that remain allowed."""

    algorithm: tuple[str, ...] | None = Field(
        default=None,
        description="programs: an algorithm, or up to three in order, such as sft+dpo; docs/design-space.md has those "
        "that go with each kind of data",
    )
    update: tuple[str, ...] | None = Field(
        default=None,
        description="full, top_layers, lora, rslora, dora, layernorm, bitfit, pissa, lora_plus, vera, ia3, oft, "
        "adalora, prompt, prefix; qlora where all workers have CUDA and bitsandbytes",
    )
    placement: tuple[Placement, ...] | None = Field(
        default=None,
        exclude_if=lambda placement: placement is None,
        description="of lora, rslora, dora, lora_plus, pissa: all, attention, mlp, embeddings (all and the embeddings)",
    )
    rank: tuple[int, ...] | None = Field(
        default=None,
        exclude_if=lambda rank: rank is None,
        description="of lora, rslora, dora, lora_plus, adalora, qlora, and of pissa up to 32",
    )
    model: tuple[str, ...] | None = Field(default=None, description="names of registered base models")
    layers: tuple[int, ...] | None = Field(default=None, description="layers kept")
    kv_heads: tuple[int, ...] | None = Field(default=None, description="key/value heads kept")
    window: tuple[int, ...] | None = Field(default=None, description="attention window in tokens; 0: the model's own")
    rope_factor: tuple[float, ...] | None = Field(
        default=None,
        description="context, as a multiple of the model's own, by stretched rotary positions; 1: the model's own. "
        "Rows are read up to the longest one, by every trial of the job",
    )
    epochs: tuple[float, ...] | None = None
    batch_size: tuple[int, ...] | None = None
    learning_rate_multiplier: tuple[float, ...] | None = Field(
        default=None, description="relative to the update's own default learning rate"
    )
    beta: tuple[float, ...] | None = Field(default=None, description="of dpo: pull towards the reference")
    ipo_beta: tuple[float, ...] | None = Field(default=None, description="of ipo: pull towards the reference")
    simpo_beta: tuple[float, ...] | None = Field(default=None, description="of simpo: scale of the reward")
    simpo_gamma: tuple[float, ...] | None = Field(default=None, description="of simpo: margin of the reward")
    orpo_beta: tuple[float, ...] | None = Field(default=None, description="of orpo: weight of the odds ratio")
    grpo_group: tuple[int, ...] | None = Field(default=None, description="of grpo: answers drawn for each prompt")
    grpo_beta: tuple[float, ...] | None = Field(default=None, description="of grpo: pull towards the reference")
    rloo_group: tuple[int, ...] | None = Field(default=None, description="of rloo: answers drawn for each prompt")
    rloo_beta: tuple[float, ...] | None = Field(default=None, description="of rloo: pull towards the reference")
    raft_group: tuple[int, ...] | None = Field(default=None, description="of raft: answers drawn for each prompt")
    kto_beta: tuple[float, ...] | None = Field(default=None, description="of kto: pull towards the reference")
    kto_desirable_weight: tuple[float, ...] | None = Field(
        default=None, description="of kto: weight of a desirable row, an undesirable one weighing 1"
    )
    mask: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = Field(
        default=None, description="of mlm: share of the tokens that are masked"
    )


class Search(Frozen):
    trials: int = Field(default=24, ge=1, le=10_000, description="designs tried, the two baselines included")
    device_seconds: float | None = Field(default=None, gt=0, description="sum over workers; nothing runs past it")
    deadline: datetime | None = Field(default=None, description="wall clock; nothing runs past it")
    objective: Literal["auto", "perplexity", "reward"] = "auto"
    finalists: int = Field(
        default=3,
        ge=1,
        le=20,
        description="how many of the best are trained to the end, confirmed, and keep their weights",
    )
    confirmations: int = Field(
        default=2, ge=0, le=10, description="further seeds with which the finalists and the default are trained"
    )
    memory: bool = Field(
        default=True,
        description="try the best designs of like jobs of this installation first, or start from general experience",
    )
    early_finish: bool = Field(
        default=True, description="end before the budget is spent where further designs are not expected to pay"
    )
    pin: Pin = Pin()


class Constraints(Frozen):
    parameters: int | None = Field(default=None, ge=1, description="largest allowed number of model parameters")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda limit: limit is None,  # jobs older than the field keep their text
        description="most memory that a trial may be expected to need, on a CPU the whole worker process",
    )


class JudgeSpec(Frozen):
    """Everything that decides a score, fixed when the job starts and the same for every trial of the job.

    The rows themselves are content-addressed: `validation` and `test` are digests of JSONL blobs. `window` and
    `max_tokens` are final, whatever the context of the model that is scored: all models read the same text. Objective
    `perplexity` is compared by bits per byte, which ranks models of one tokenizer exactly as perplexity does. For
    encoders both are made of the pseudo-log-likelihood (Salazar et al. 2020), which no decoder's is compared with: the
    models of one job are of one family.
    """

    kind: DataKind
    validation: str = Field(description="digest of the rows that choose between trials")
    test: str = Field(description="digest of the rows that no proposal ever sees")
    objective: Objective
    grader: Grader | None = None
    window: int = Field(default=512, ge=8, description="tokens in one piece of long text; nothing is dropped")
    max_tokens: int = Field(default=2048, ge=8, description="longest row in tokens; longer ones are cut on the right")
    max_new_tokens: int = Field(default=64, ge=1, description="length limit of a graded generation")
    max_rows: int = Field(default=128, ge=1, description="rows scored for perplexity, first ones of the split")
    max_generations: int = Field(default=32, ge=1, description="prompts answered and graded")
    tools: bool = Field(default=False, description="rows show tools or calls of them, which the chat template must too")
    environment: EnvironmentSpec | None = Field(
        default=None,
        exclude_if=lambda environment: environment is None,
        description="what scores the answers in place of the grader",
    )
    family: Family = Field(
        default="decoder",
        exclude_if=lambda family: family == "decoder",  # as do the next two, for judges older than the field
        description="of all models of the job; decides how likely a text is said to be",
    )
    pseudo_positions: int = Field(
        default=8,
        ge=1,
        exclude_if=lambda positions: positions == 8,
        description="of encoders: tokens scored in one window, evenly spaced; each takes a pass of its own",
    )
    pseudo_windows: int = Field(
        default=128,
        ge=1,
        exclude_if=lambda windows: windows == 128,
        description="of encoders: windows scored, evenly spaced over those of the rows",
    )
