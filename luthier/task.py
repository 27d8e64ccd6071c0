"""What a job asks for: the task, its grader, the search budget and pins, and the frozen judge made from them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from luthier.design import Frozen, Placement


class DataKind(StrEnum):
    """What a row is, after normalisation to TRL's column names."""

    TEXT = "text"  # text
    PAIRS = "pairs"  # prompt, completion
    CHAT = "chat"  # messages [, tools]
    PREFERENCE = "preference"  # prompt, chosen, rejected


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


SingleGrader = Annotated[StringCheck | TextSimilarity | Number | Math, Field(discriminator="type")]
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


Grader = Annotated[StringCheck | TextSimilarity | Number | Math | Multi, Field(discriminator="type")]


class Task(Frozen):
    goal: Literal["auto", "domain", "behaviour"] = Field(
        default="auto", description="`domain`: know the text; `behaviour`: answer like the examples"
    )
    grader: Grader | None = Field(default=None, description="how generations are graded; needs a reference answer")


class Pin(Frozen):
    """Axes that the user fixes; each lists the values that remain allowed."""

    algorithm: tuple[str, ...] | None = Field(
        default=None, description="programs: clm, sft, dpo, sft+dpo, ipo, sft+ipo, simpo, sft+simpo, orpo"
    )
    update: tuple[str, ...] | None = Field(
        default=None,
        description="full, top_layers, lora, rslora, dora, layernorm, bitfit, pissa, lora_plus, vera, ia3, oft, "
        "adalora, prompt, prefix",
    )
    placement: tuple[Placement, ...] | None = Field(
        default=None,
        exclude_if=lambda placement: placement is None,
        description="of lora, rslora, dora, lora_plus, pissa: all, attention, mlp, embeddings (all and the embeddings)",
    )
    model: tuple[str, ...] | None = Field(default=None, description="names of registered base models")
    layers: tuple[int, ...] | None = Field(default=None, description="layers kept")
    kv_heads: tuple[int, ...] | None = Field(default=None, description="key/value heads kept")
    window: tuple[int, ...] | None = Field(default=None, description="attention window in tokens; 0: the model's own")
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


class Search(Frozen):
    trials: int = Field(default=24, ge=1, le=10_000, description="designs tried, the two baselines included")
    device_seconds: float | None = Field(default=None, gt=0, description="sum over workers; nothing runs past it")
    deadline: datetime | None = Field(default=None, description="wall clock; nothing runs past it")
    objective: Literal["auto", "perplexity", "reward"] = "auto"
    finalists: int = Field(default=3, ge=1, le=20, description="how many of the best keep their weights")
    pin: Pin = Pin()


class Constraints(Frozen):
    parameters: int | None = Field(default=None, ge=1, description="largest allowed number of model parameters")


class JudgeSpec(Frozen):
    """Everything that decides a score, fixed when the job starts and the same for every trial of the job.

    The rows themselves are content-addressed: `validation` and `test` are digests of JSONL blobs. Objective
    `perplexity` is compared by bits per byte, which ranks models of one tokenizer exactly as perplexity does.
    """

    kind: DataKind
    validation: str = Field(description="digest of the rows that choose between trials")
    test: str = Field(description="digest of the rows that no proposal ever sees")
    objective: Literal["perplexity", "reward"]
    grader: Grader | None = None
    window: int = Field(default=512, ge=8, description="tokens in one piece of long text; nothing is dropped")
    max_tokens: int = Field(default=2048, ge=8, description="longest row in tokens; longer ones are cut on the right")
    max_new_tokens: int = Field(default=64, ge=1, description="length limit of a graded generation")
    max_rows: int = Field(default=128, ge=1, description="rows scored for perplexity, first ones of the split")
    max_generations: int = Field(default=32, ge=1, description="prompts answered and graded")
