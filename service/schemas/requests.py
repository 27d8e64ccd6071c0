"""The bodies of requests. Every field that is not listed here is refused by name."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from luthier.api_types import WebhookEvent
from luthier.design import Design, Frozen
from luthier.keys import Scope
from luthier.schedule import CatchUp, Overlap
from luthier.task import Constraints, DataKind, Grader, Search, Task

MAX_SEED: Final = 2**31 - 1


class _Auto:
    """Accepts "auto" as "not pinned"; what else is expected is put into words."""

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

# PostgreSQL stores no zero bytes.
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]


class Hyperparameters(Frozen):
    """Each value is "auto", left to the search, or a pin on it."""

    n_epochs: AutoCount = None
    batch_size: AutoCount = None
    learning_rate_multiplier: AutoNumber = Field(
        default=None, description="relative to the default learning rate of the update"
    )


class DpoHyperparameters(Hyperparameters):
    beta: AutoNumber = Field(default=None, description="pull towards the reference model")


class SupervisedMethod(Frozen):
    hyperparameters: Hyperparameters = Hyperparameters()


class DpoMethod(Frozen):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class ReinforcementHyperparameters(Hyperparameters):
    """`eval_interval`, `eval_samples` and `reasoning_effort` are accepted and ignored; an event of the job says so."""

    compute_multiplier: AutoNumber = Field(
        default=None, description="how many answers are drawn for each prompt, relative to each algorithm's default"
    )
    eval_interval: AutoCount = None
    eval_samples: AutoCount = None
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None


class ReinforcementMethod(Frozen):
    grader: Grader = Field(description="as `task.grader`; given in one of the two places")
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()


class Method(Frozen):
    """`auto` lets the service design the method; `supervised` and `dpo` pin the algorithm, `reinforcement` pins it to
    those that maximise a reward."""

    type: Literal["auto", "supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None
    reinforcement: ReinforcementMethod | None = None


class JobWithoutFile(Frozen):
    """What jobs and schedules of jobs have in common."""

    validation_file: Name | None = Field(default=None, description="id of a file whose rows choose between the trials")
    model: Name | None = Field(default=None, description='a registered base model; left out or "auto": any of them')
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(default=None, description="OpenAI's older place for them")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    suffix: Annotated[str, Field(max_length=64), AfterValidator(_plain)] | None = Field(
        default=None, description="part of the fine-tuned model's name"
    )
    metadata: dict[MetadataKey, MetadataValue] | None = Field(default=None, max_length=16)
    integrations: tuple[Any, ...] | None = Field(
        default=None, description="refused unless it is empty: the service's settings say where trials are tracked"
    )
    task: Task = Task()
    search: Search = Search()
    constraints: Constraints = Constraints()


class CreateJob(JobWithoutFile):
    """OpenAI's body; `model` and `method` may be left out, and `task`, `search` and `constraints` are Luthier's own."""

    training_file: Name | None = Field(
        default=None,
        description="id of an uploaded file; left out where `task.environment` makes the rows",
        examples=["file-5f2a…"],
    )


class ValidateGrader(Frozen):
    grader: Grader


class RunGrader(Frozen):
    """OpenAI's body: one answer, and the row that it answers."""

    grader: Grader
    model_sample: str = Field(description="the answer; `sample.output_text`, and `sample.output_json` if it is JSON")
    item: dict[str, Any] = Field(default_factory=dict, description="the row, as templates read it: `item.…`")


class AddModel(Frozen):
    """A base model: a folder or a GGUF file that the service and the workers can read, or a model of the hub."""

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", examples=["SmolLM2-135M-Instruct"]
    )
    source: Name = Field(
        description="absolute path of a folder with config.json, tokenizer.json and *.safetensors, or of a GGUF file; "
        "or a hub id, org/name or org/name@revision"
    )


class DeviceChoice(Frozen):
    """A device that need not be there."""

    kind: Literal["cpu", "cuda", "mps"]
    memory_bytes: int = Field(ge=1, description="that a trial may have")


class EstimateDesign(Frozen):
    """A design, or a change to one, and where it is to be trained on what."""

    design: Design | None = Field(
        default=None, description="left out: the best of the job so far, or the plain LoRA default"
    )
    change: dict[str, Any] | None = Field(
        default=None,
        description="what is to be otherwise: names of `search.pin`, or rank, block, tokens, top_layers, depth_rule, "
        "rope_rule, later_update",
        examples=[{"update": "full"}, {"rank": 64}, {"layers": 20, "epochs": 3}],
    )
    model: Name | None = Field(default=None, description="a registered base model, for the plain default")
    dataset: Name | None = Field(default=None, description="id of an uploaded file", examples=["file-5f2ab0"])
    job: Name | None = Field(default=None, description="in place of a dataset: its rows, judge and constraints")
    trial: Name | None = Field(default=None, description="of the job: its design in place of the best one")
    device: Name | DeviceChoice | None = Field(
        default=None,
        description="name of a live worker, or a kind and its memory; left out: the first live worker, else the "
        "service's own CPU",
    )


Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00]*$")]


class DescribeJob(Frozen):
    """What people write beside a job; what is left out stays as it is."""

    notes: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    tags: tuple[Tag, ...] | None = Field(default=None, max_length=32)


class AddTrial(Frozen):
    """A design by hand: whole, or as a change to that of a trial."""

    design: Design | None = None
    trial: Name | None = Field(
        default=None, description="id or number of the trial that `change` starts from; left out: the best so far"
    )
    change: dict[str, Any] | None = Field(
        default=None, description="as in POST /v1/designs/estimate", examples=[{"rank": 64}, {"update": "full"}]
    )


class LookAtSpace(CreateJob):
    """A request for a job as it would be made; where an environment makes the rows, what these will be."""

    kind: DataKind | None = Field(default=None, description="of the rows, where there is no file")
    rows: int = Field(default=256, ge=1, description="to train on, where there is no file")


class NewestFile(Frozen):
    """The file that is the newest one of its name when a run begins, so that new data is picked up."""

    newest: Name = Field(description="filename, as it was uploaded", examples=["train.jsonl"])


def _file(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        raise _expected("the id of an uploaded file, or {'newest': filename}") from error


class ScheduledJob(JobWithoutFile):
    """The body of POST /v1/fine_tuning/jobs, whose file may be the newest one of a name."""

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
    time_zone: Name = Field(default="UTC", description="of the IANA database", examples=["Europe/Berlin"])
    job: ScheduledJob
    overlap: Overlap = Field(
        default=Overlap.SKIP,
        description="while an earlier run has not ended: `skip` this one, `queue` it, `replace` the earlier one, or "
        "`allow` both",
    )
    misfire_grace_seconds: Seconds = Field(default=300.0, description="a tick noticed later than so has been missed")
    catch_up: CatchUp = Field(
        default=CatchUp.LATEST, description="which ticks that have been missed are made up for: none, latest, all"
    )
    catch_up_seconds: Seconds = Field(default=86400.0, description="how far back those may lie")
    enabled: bool = True
    alert_after: Streak = Field(
        default=3, description="runs that fail in a row before `luthier.schedule.failing` is sent to webhooks"
    )
    alias: AliasName | None = Field(
        default=None, description="the alias that a winner takes over where it beats the champion beyond the noise"
    )


class ChangeSchedule(Frozen):
    """What is to be otherwise; all else stays."""

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
    alias: AliasName | None = Field(default=None, description="null: winners are no longer promoted")


def _http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or any(c.isspace() for c in value):
        raise _expected("a URL that begins with http:// or https://")
    return value


class CreateEndpoint(Frozen):
    """Where to send which events."""

    url: Annotated[Name, AfterValidator(_http_url)] = Field(examples=["https://example.com/luthier"])
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1, max_length=100)] = Field(
        default=get_args(WebhookEvent), description="left out: all that there are"
    )


class AddKey(Frozen):
    """A key for somebody or something."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)] = Field(
        description="whose it is, or what it is for"
    )
    scope: Scope = Field(default=Scope.SUBMIT, description="`read` < `submit` < `admin`; `worker` is for workers")
    days: float | None = Field(default=None, gt=0, le=36_500, description="until it expires; null: never")


class SetAlias(Frozen):
    """Let an alias stand for a model."""

    name: AliasName = Field(examples=["support"])
    model: Name = Field(description="a fine-tuned model", examples=["ft:tiny-chat:luthier:7c91d4e2"])
