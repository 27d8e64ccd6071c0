"""The request bodies. A field that is not listed here is refused by name."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from luthier.api_types import WebhookEvent
from luthier.design import Design
from luthier.keys import Scope
from luthier.schedule import CatchUp, Overlap
from luthier.task import MAX_TRIALS, Constraints, DataKind, Grader, Search, Task
from luthier.values import Frozen

MAX_SEED: Final = 2**31 - 1


class _Auto:
    """Accepts "auto" as "not pinned". `expected` describes the other legal values."""

    def __init__(self, expected: str) -> None:
        self._expected = expected

    def __call__(self, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if value is None or value == "auto":
            return None
        try:
            return handler(value)
        except ValidationError as error:
            raise _expected(f"'auto' or {self._expected}") from error


def _plain(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]*", value):
        raise _expected("letters, digits, '.', '_' and '-' only")
    return value


def _expected(words: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{expected}", {"expected": words})


AutoCount = Annotated[int | None, Field(ge=1, examples=["auto", 3]), WrapValidator(_Auto("a whole number, at least 1"))]
AutoNumber = Annotated[float | None, Field(gt=0, examples=["auto", 1.5]), WrapValidator(_Auto("a number above 0"))]

# PostgreSQL cannot store NUL.
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]


class Hyperparameters(Frozen):
    """Each value is "auto", which leaves it to the search, or a pin."""

    n_epochs: AutoCount = None
    batch_size: AutoCount = None
    learning_rate_multiplier: AutoNumber = Field(
        default=None, description="relative to the default learning rate of the weight update"
    )


class DpoHyperparameters(Hyperparameters):
    beta: AutoNumber = Field(default=None, description="strength of the KL penalty towards the reference model")


class SupervisedMethod(Frozen):
    hyperparameters: Hyperparameters = Hyperparameters()


class DpoMethod(Frozen):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class ReinforcementHyperparameters(Hyperparameters):
    """`eval_interval`, `eval_samples` and `reasoning_effort` are accepted and ignored; the event log says so."""

    compute_multiplier: AutoNumber = Field(
        default=None, description="how many answers are sampled for each prompt, relative to each algorithm's default"
    )
    eval_interval: AutoCount = None
    eval_samples: AutoCount = None
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None


class ReinforcementMethod(Frozen):
    grader: Grader = Field(description="the same as `task.grader`; set one of the two")
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()


class Method(Frozen):
    """`auto`: the service chooses the method. `supervised` and `dpo` pin the algorithm; `reinforcement` pins it to the
    algorithms that maximise a reward."""

    type: Literal["auto", "supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None
    reinforcement: ReinforcementMethod | None = None


class JobWithoutFile(Frozen):
    """The fields that jobs and scheduled jobs share."""

    validation_file: Name | None = Field(
        default=None, description="id of a file with the validation rows; left out: split from the training file"
    )
    model: Name | None = Field(default=None, description='a registered base model; left out or "auto": all of them')
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(default=None, description="OpenAI's older field for these")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    suffix: Annotated[str, Field(max_length=64), AfterValidator(_plain)] | None = Field(
        default=None, description="part of the fine-tuned model's name"
    )
    metadata: dict[MetadataKey, MetadataValue] | None = Field(default=None, max_length=16)
    on_bad_rows: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="what happens to rows that the chat template of a base model cannot show: `refuse` the job and "
        "name them, or `drop` them and say how many",
    )
    integrations: tuple[Any, ...] | None = Field(
        default=None, description="must be empty: trackers are configured in the service's settings"
    )
    task: Task = Task()
    search: Search = Search()
    constraints: Constraints = Constraints()


class CreateJob(JobWithoutFile):
    """OpenAI's body, with optional `model` and `method`, and Luthier's own `task`, `search` and `constraints`."""

    training_file: Name | None = Field(
        default=None,
        description="id of an uploaded file; left out where `task.environment` generates the rows",
        examples=["file-5f2a…"],
    )


class ValidateGrader(Frozen):
    grader: Grader


class RunGrader(Frozen):
    """OpenAI's body: one answer and its row."""

    grader: Grader
    model_sample: str = Field(
        description="the answer; graders read it as `sample.output_text`, and as `sample.output_json` if it is JSON"
    )
    item: dict[str, Any] = Field(default_factory=dict, description="the row; templates read it as `item.…`")


class AddModel(Frozen):
    """A base model: a folder or a GGUF file that the service and the workers can read, or a Hugging Face hub id."""

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", examples=["SmolLM2-135M-Instruct"]
    )
    source: Name = Field(
        description="absolute path of a folder with config.json, tokenizer.json and *.safetensors, or of a GGUF file; "
        "or a hub id, org/name or org/name@revision"
    )


class DeviceChoice(Frozen):
    """A hypothetical device."""

    kind: Literal["cpu", "cuda", "mps"]
    memory_bytes: int = Field(ge=1, description="memory that a trial may use")


class EstimateDesign(Frozen):
    """A design, or a change to one, the data to train on, and the device."""

    design: Design | None = Field(
        default=None, description="left out: the best of the job so far, or the plain LoRA default"
    )
    change: dict[str, Any] | None = Field(
        default=None,
        description="the changes: names of `search.pin`, or rank, block, tokens, top_layers, depth_rule, "
        "rope_rule, later_update. All other values of the design stay as they are; where another model, algorithm or "
        "update changes the default learning rate, the rate keeps its multiplier",
        examples=[{"update": "full"}, {"rank": 64}, {"layers": 20, "epochs": 3}],
    )
    model: Name | None = Field(default=None, description="a registered base model, for the plain default")
    dataset: Name | None = Field(default=None, description="id of an uploaded file", examples=["file-5f2ab0"])
    job: Name | None = Field(
        default=None, description="id of a job, instead of a dataset: uses its rows, judge and constraints"
    )
    trial: Name | None = Field(
        default=None, description="a trial of the job, by id or number: uses its design instead of the best one"
    )
    device: Name | DeviceChoice | None = Field(
        default=None,
        description="name of a live worker, or a kind and its memory; left out: the first live worker, or the "
        "service's own CPU",
    )


Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00]*$")]


class ExtendJob(Frozen):
    """More budget for a search that has ended. At least one field is needed."""

    trials: int | None = Field(default=None, ge=1, le=MAX_TRIALS, description="further designs to try")
    device_seconds: float | None = Field(default=None, gt=0, description="further device-seconds")
    deadline: AwareDatetime | None = Field(default=None, description="a later deadline")


class DescribeJob(Frozen):
    """Notes and tags of a job. Fields that are left out keep their values."""

    notes: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    tags: tuple[Tag, ...] | None = Field(default=None, max_length=32)


class AddTrial(Frozen):
    """A design, or a change to the design of a trial."""

    design: Design | None = None
    trial: Name | None = Field(
        default=None, description="id or number of the trial that `change` starts from; left out: the best so far"
    )
    change: dict[str, Any] | None = Field(
        default=None, description="as in POST /v1/designs/estimate", examples=[{"rank": 64}, {"update": "full"}]
    )


class LookAtSpace(CreateJob):
    """The body of a job. Where an environment generates the rows, their kind and number are given here."""

    kind: DataKind | None = Field(default=None, description="kind of the rows, if there is no file")
    rows: int = Field(default=256, ge=1, description="number of training rows, if there is no file")
    check: bool = Field(
        default=False,
        description="check the rows and the request too, as when a job is created: this takes longer, and finds all "
        "that would be refused",
    )


class NewestFile(Frozen):
    """The newest file of a name when a run starts, so that new uploads are used."""

    newest: Name = Field(description="name of the uploaded file", examples=["train.jsonl"])


def _file(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        raise _expected("the id of an uploaded file, or {'newest': filename}") from error


class ScheduledJob(JobWithoutFile):
    """The body of POST /v1/fine_tuning/jobs. Its file may be the newest one of a name."""

    training_file: Annotated[Name | NewestFile | None, WrapValidator(_file)] = None


AliasName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Seconds = Annotated[float, Field(ge=0, le=366 * 86400)]
Streak = Annotated[int, Field(ge=1, le=1000)]


class CreateSchedule(Frozen):
    """A job that is created again and again."""

    name: Name = Field(examples=["nightly"])
    cron: Name = Field(
        description="minute, hour, day of month, month, day of week", examples=["30 3 * * *", "0 22 * * FRI"]
    )
    time_zone: Name = Field(default="UTC", description="a name of the IANA database", examples=["Europe/Berlin"])
    job: ScheduledJob
    overlap: Overlap = Field(
        default=Overlap.SKIP,
        description="if an earlier run has not ended: `skip` the new one, `queue` it, `replace` the earlier one, or "
        "`allow` both",
    )
    misfire_grace_seconds: Seconds = Field(
        default=300.0, description="a tick that is noticed later than this is missed"
    )
    catch_up: CatchUp = Field(default=CatchUp.LATEST, description="which missed ticks are caught up: none, latest, all")
    catch_up_seconds: Seconds = Field(default=86400.0, description="how old a missed tick may be to be caught up")
    enabled: bool = True
    alert_after: Streak = Field(
        default=3, description="failed runs in a row before the webhook `luthier.schedule.failing` is sent"
    )
    alias: AliasName | None = Field(
        default=None, description="the alias to update when a winner is significantly better than its current model"
    )


class ChangeSchedule(Frozen):
    """The fields to change. Fields that are left out keep their values."""

    name: Name | None = None
    cron: Name | None = None
    time_zone: Name | None = None
    job: ScheduledJob | None = None
    overlap: Overlap | None = None
    misfire_grace_seconds: Seconds | None = None
    catch_up: CatchUp | None = None
    catch_up_seconds: Seconds | None = None
    enabled: bool | None = None
    alert_after: Streak | None = None
    alias: AliasName | None = Field(default=None, description="null: winners no longer update an alias")


def _http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or any(c.isspace() for c in value):
        raise _expected("a URL that begins with http:// or https://")
    return value


class CreateEndpoint(Frozen):
    """A webhook endpoint: its URL and the events to send."""

    url: Annotated[Name, AfterValidator(_http_url)] = Field(examples=["https://example.com/luthier"])
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1, max_length=100)] = Field(
        default=get_args(WebhookEvent), description="left out: all events"
    )


class AddKey(Frozen):
    """An API key to create."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)] = Field(
        description="who or what uses the key"
    )
    scope: Scope = Field(default=Scope.SUBMIT, description="`read` < `submit` < `admin`; `worker` is for workers")
    days: float | None = Field(default=None, gt=0, le=36_500, description="days until it expires; null: never")


class SetAlias(Frozen):
    """An alias to set."""

    name: AliasName = Field(examples=["support"])
    model: Name = Field(description="a fine-tuned model", examples=["ft:tiny-chat:luthier:7c91d4e2"])
