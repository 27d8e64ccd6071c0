"""The typed Python client of a Luthier service.

    with Client("http://127.0.0.1:8420") as client:
        file = client.upload(Path("train.jsonl"))
        job = client.create_job(file.id, search={"trials": 12})
        while not client.job(job.id).status.terminal:
            time.sleep(10)
        client.download(job.id, Path("best"))

A request that the service refuses raises the class of `luthier.errors` that the service raised; a service that cannot
be reached raises Unreachable.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

from luthier.api_types import (
    Alias,
    ApiKey,
    Best,
    ChatChunk,
    ChatCompletion,
    Checkpoint,
    CheckpointPage,
    CurvePoints,
    Curves,
    Dataset,
    DatasetRows,
    Deleted,
    DesignEstimate,
    DesignSpace,
    Environment,
    Event,
    FileObject,
    GraderRun,
    GraderValidation,
    Job,
    Landscape,
    Model,
    NewApiKey,
    Page,
    Schedule,
    ScheduleRun,
    Timeline,
    Trial,
    TrialDetails,
    TrialLine,
    TrialSample,
    Update,
    WebhookDelivery,
    WebhookEndpoint,
    Worker,
)
from luthier.client.transport import Line, Pieces, error_in, unpack
from luthier.keys import Scope
from luthier.report import Report
from luthier.trial import TRAIN_LOSS, Point

CHUNK: Final = 1 << 20
ANSWER_SECONDS: Final = 600.0  # that a model may take to its first word, loading included


class Client(Line):
    """One connection pool to one service; close it, or use it as a context manager. Thread-safe."""

    # Files

    def upload(self, path: Path) -> FileObject:
        """Upload a dataset. Raises DatasetError with the first faults of the file, or TooLarge."""
        with path.open("rb") as stream:
            return self.upload_stream(stream, path.name)

    def upload_stream(self, stream: IO[bytes], filename: str) -> FileObject:
        """Like `upload`; the ending of `filename` says what the stream holds."""
        return self._one(FileObject, "POST", "/v1/files", files={"file": (filename, stream)}, data=_PURPOSE)

    def files(self, *, limit: int | None = None) -> list[FileObject]:
        """Newest first; all of them, or the first `limit`."""
        return self._list(Page[FileObject], "/v1/files", limit)

    def file(self, file_id: str) -> FileObject:
        return self._one(FileObject, "GET", f"/v1/files/{file_id}")

    def file_content(self, file_id: str) -> bytes:
        """The file as it was uploaded."""
        return self._send("GET", f"/v1/files/{file_id}/content").content

    def delete_file(self, file_id: str) -> Deleted:
        """Raises Conflict while a job that has not ended uses the file."""
        return self._one(Deleted, "DELETE", f"/v1/files/{file_id}")

    def dataset(self, file_id: str) -> Dataset:
        """The profile of a file."""
        return self._one(Dataset, "GET", f"/v1/datasets/{file_id}")

    def rows(self, file_id: str, *, first: int = 1, limit: int = 20, contains: str = "") -> DatasetRows:
        """A page of a file's rows as they were normalised, counted from 1; those in which something stands."""
        wanted = {"first": first, "limit": limit, "contains": contains}
        return self._one(DatasetRows, "GET", f"/v1/datasets/{file_id}/rows", params=wanted)

    # Jobs

    def create_job(self, training_file: str | None = None, **options: Any) -> Job:
        """Create a job; `options` are the fields of POST /v1/fine_tuning/jobs, those left None are not sent.

        Without a file, `task` must name an environment; the rows that it makes are the job's `training_file` then.
        """
        options["training_file"] = training_file
        body = {name: value for name, value in options.items() if value is not None}
        return self._one(Job, "POST", _JOBS, json=body)

    def environments(self) -> list[Environment]:
        """What a job can name in `task.environment`."""
        return list(self._one(Page[Environment], "GET", "/v1/environments").data)

    def jobs(
        self,
        *,
        limit: int | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        schedule_id: str | None = None,
    ) -> list[Job]:
        """Newest first, only those that carry all of `metadata` and all `tags`, and those that a schedule made; all of
        them, or the first `limit`."""
        wanted: dict[str, Any] = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        wanted |= {"tag": list(tags)} | ({} if schedule_id is None else {"schedule_id": schedule_id})
        return self._list(Page[Job], _JOBS, limit, wanted)

    def job(self, job_id: str) -> Job:
        return self._one(Job, "GET", f"{_JOBS}/{job_id}")

    def cancel(self, job_id: str) -> Job:
        """Raises Conflict for a job that has ended."""
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/cancel")

    def pause(self, job_id: str) -> Job:
        """Running trials are given back with a checkpoint, and nothing is started until `resume`. Raises Conflict for a
        job that has ended."""
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/pause")

    def resume(self, job_id: str) -> Job:
        """Raises Conflict for a job that has ended."""
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/resume")

    def events(self, job_id: str, *, limit: int | None = None) -> list[Event]:
        """Newest first; all of them, or the first `limit`."""
        return self._list(Page[Event], f"{_JOBS}/{job_id}/events", limit)

    def describe(self, job_id: str, *, notes: str | None = None, tags: Sequence[str] | None = None) -> Job:
        """Write notes and tags beside a job; what is left out stays as it is."""
        body = {name: value for name, value in {"notes": notes, "tags": tags}.items() if value is not None}
        return self._one(Job, "PATCH", f"{_JOBS}/{job_id}", json=body)

    def stream(self, job_id: str, after: str | None = None) -> Iterator[Update]:
        """A job as it goes on, until it has ended: its own state, trials, points of curves and events. `after`: the id
        of an event; nothing that came later is left out, though some of it may come twice."""
        params = {} if after is None else {"after": after}
        with self._stream("GET", f"{_JOBS}/{job_id}/events/stream", params=params) as response:
            message: dict[str, str] = {}
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                if field in ("event", "id", "data"):
                    message[field] = value
                elif not line and "event" in message:
                    kind, seen = message.pop("event"), message.get("id")
                    data = _NEWS[kind].model_validate_json(message["data"]) if kind in _NEWS else None
                    yield Update.model_construct(kind=cast("Any", kind), id=seen, data=data)

    def checkpoints(self, job_id: str, *, limit: int | None = None) -> list[Checkpoint]:
        """Where trials were scored on held-out rows, newest first; all of them, or the first `limit`."""
        return self._list(CheckpointPage, f"{_JOBS}/{job_id}/checkpoints", limit)

    # Graders

    def run_grader(self, grader: Mapping[str, Any], model_sample: str, item: Mapping[str, Any]) -> GraderRun:
        """Grade one answer to one row; what goes wrong on the way is in `metadata.errors`."""
        body = {"grader": grader, "model_sample": model_sample, "item": item}
        return self._one(GraderRun, "POST", f"{_GRADERS}/run", json=body)

    def validate_grader(self, grader: Mapping[str, Any]) -> GraderValidation:
        """The grader with its defaults. Raises UserError naming the field at fault."""
        return self._one(GraderValidation, "POST", f"{_GRADERS}/validate", json={"grader": grader})

    # Results

    def trials(self, job_id: str) -> list[Trial]:
        """In the order in which they were proposed; 0 is the untuned base, 1 the plain LoRA default."""
        return self._list(Page[Trial], f"{_JOBS}/{job_id}/trials")

    def points(self, job_id: str, trial_id: str, name: str | None = None) -> list[Point]:
        """A trial's curves, or only the one called `name`."""
        wanted = {} if name is None else {"name": name}
        page = self._one(Page[Point], "GET", f"{_JOBS}/{job_id}/trials/{trial_id}/points", params=wanted)
        return list(page.data)

    def trial(self, job_id: str, trial: str) -> TrialDetails:
        """One trial, by its id or its number: its design in sentences, and the weights that were kept."""
        return self._one(TrialDetails, "GET", f"{_JOBS}/{job_id}/trials/{trial}")

    def log(self, job_id: str, trial: str) -> list[TrialLine]:
        """What its workers did with a trial, the last thousand lines."""
        return list(self._one(Page[TrialLine], "GET", f"{_JOBS}/{job_id}/trials/{trial}/log").data)

    def samples(self, job_id: str, trial: str) -> list[TrialSample]:
        """A trial's answers to held-out prompts beside the base's."""
        return list(self._one(Page[TrialSample], "GET", f"{_JOBS}/{job_id}/trials/{trial}/samples").data)

    def add_trial(self, job_id: str, **design: Any) -> Trial:
        """Queue a design by hand: `design`, a whole one, or `change` to that of `trial` (left out: the best so far).

        Raises IllegalDesign, Infeasible, or Conflict where the job takes no more.
        """
        body = {name: value for name, value in design.items() if value is not None}
        return self._one(Trial, "POST", f"{_JOBS}/{job_id}/trials", json=body)

    def cancel_trial(self, job_id: str, trial: str) -> Trial:
        """Stop one trial; the job goes on. Raises Conflict for one that has ended."""
        return self._one(Trial, "POST", f"{_JOBS}/{job_id}/trials/{trial}/cancel")

    def best(self, job_id: str) -> Best:
        """The winner beside its baselines. Raises NotFound until a trial is complete."""
        return self._one(Best, "GET", f"{_JOBS}/{job_id}/best")

    def report(self, job_id: str) -> Report:
        """What the job has found out, and how sure that is; as far as it has come."""
        return self._one(Report, "GET", f"{_JOBS}/{job_id}/report", params={"format": "json"})

    def report_page(self, job_id: str, form: Literal["html", "markdown"]) -> str:
        """The report as a page for people."""
        return self._send("GET", f"{_JOBS}/{job_id}/report", params={"format": form}).content.decode()

    def estimate(self, **question: Any) -> DesignEstimate:
        """What a design, or a change to one, would take; `question` are the fields of POST /v1/designs/estimate, those
        left None are not sent. Nothing is trained."""
        body = {name: value for name, value in question.items() if value is not None}
        return self._one(DesignEstimate, "POST", "/v1/designs/estimate", json=body)

    def design_space(self, training_file: str | None = None, **options: Any) -> DesignSpace:
        """What a job would search, why the rest is not legal, and what it would take; `options` as in `create_job`."""
        body = {name: value for name, value in {"training_file": training_file, **options}.items() if value is not None}
        return self._one(DesignSpace, "POST", "/v1/designs/space", json=body)

    def curves(self, job_id: str, name: str = TRAIN_LOSS, *, points: int = 200) -> Curves:
        """One curve of all trials, each thinned to so many points, and where the trials were scored on the way."""
        wanted = {"name": name, "points": points}
        return self._one(Curves, "GET", f"{_JOBS}/{job_id}/curves", params=wanted)

    def landscape(self, job_id: str) -> Landscape:
        """All scored designs by column."""
        return self._one(Landscape, "GET", f"{_JOBS}/{job_id}/landscape")

    def timeline(self, job_id: str) -> Timeline:
        """Which worker trained what, and when."""
        return self._one(Timeline, "GET", f"{_JOBS}/{job_id}/timeline")

    @contextmanager
    def artifact(self, job_id: str, form: str = "merged") -> Iterator[Iterator[bytes]]:
        """The best trial's weights, as `adapter`, `merged` or `gguf`, in pieces of a tar archive.

        Raises NotFound with the reason where they do not exist in that form, UserError where they cannot be put in it.
        """
        with self._stream("GET", f"{_JOBS}/{job_id}/artifact", params={"format": form}) as response:
            yield response.iter_bytes(CHUNK)

    def download(self, job_id: str, folder: Path, form: str = "merged") -> list[Path]:
        """Unpack the best trial's weights into `folder`, which is made if need be; answers with the files."""
        with self.artifact(job_id, form) as pieces:
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=cast("IO[bytes]", Pieces(pieces)), mode="r|", bufsize=CHUNK) as archive:
                return [unpack(archive, member, folder) for member in archive]

    def optuna(self, job_id: str, path: Path) -> None:
        """Write the job, as far as it has come, as an Optuna storage file for `optuna-dashboard sqlite:///PATH`."""
        with self._stream("GET", f"{_JOBS}/{job_id}/optuna") as response, path.open("wb") as file:
            for piece in response.iter_bytes(CHUNK):
                file.write(piece)

    # Answers

    def chat(self, model: str, messages: str | Sequence[Mapping[str, Any]], **options: Any) -> ChatCompletion:
        """Let a base model, or the result of a job, answer; text is one message of the user. `options` are the fields
        of POST /v1/chat/completions, those left None are not sent. The first answer waits until the model is loaded."""
        body = _question(model, messages, options)
        return self._one(ChatCompletion, "POST", _CHAT, json=body, timeout=ANSWER_SECONDS)

    def stream_chat(self, model: str, messages: str | Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]:
        """Like `chat`, for its text piece by piece while the model speaks."""
        body = _question(model, messages, options) | {"stream": True}
        with self._stream("POST", _CHAT, json=body, timeout=ANSWER_SECONDS) as response:
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if data in ("", "[DONE]"):
                    continue
                if "error" in (found := json.loads(data)):
                    raise error_in(found)
                for choice in ChatChunk.model_validate(found).choices:
                    if choice.delta.content:
                        yield choice.delta.content

    # Models and workers

    def models(self) -> list[Model]:
        """Base models first, then those that jobs have made."""
        return list(self._one(Page[Model], "GET", "/v1/models").data)

    def model(self, model_id: str) -> Model:
        return self._one(Model, "GET", f"/v1/models/{model_id}")

    def add_model(self, name: str, source: str) -> Model:
        """Register a base model from a folder or a GGUF file that the service and its workers can read, or from the
        hub. Returns when it is converted or downloaded."""
        body = {"name": name, "source": source}
        return self._one(Model, "POST", "/v1/models", json=body, timeout=None)

    def remove_model(self, name: str) -> Deleted:
        """Forget a base model, or delete the result of a job. Raises Conflict for a base model while a job that has not
        ended uses it."""
        return self._one(Deleted, "DELETE", f"/v1/models/{name}")

    def workers(self) -> list[Worker]:
        return list(self._one(Page[Worker], "GET", "/v1/workers").data)

    # Schedules

    def create_schedule(self, name: str, cron: str, job: Mapping[str, Any], **options: Any) -> Schedule:
        """Create jobs again and again. `job` is the body of POST /v1/fine_tuning/jobs, whose `training_file` may be
        {"newest": filename}; `options` are the other fields of POST /v1/schedules, those left None are not sent."""
        body = {"name": name, "cron": cron, "job": job} | {key: v for key, v in options.items() if v is not None}
        return self._one(Schedule, "POST", _SCHEDULES, json=body)

    def schedules(self, *, limit: int | None = None) -> list[Schedule]:
        """Newest first; all of them, or the first `limit`."""
        return self._list(Page[Schedule], _SCHEDULES, limit)

    def schedule(self, schedule_id: str) -> Schedule:
        return self._one(Schedule, "GET", f"{_SCHEDULES}/{schedule_id}")

    def change_schedule(self, schedule_id: str, **changes: Any) -> Schedule:
        """What is not named stays; `enabled=False` stops it for the time being."""
        return self._one(Schedule, "PATCH", f"{_SCHEDULES}/{schedule_id}", json=changes)

    def delete_schedule(self, schedule_id: str) -> Deleted:
        """With its history; its jobs stay."""
        return self._one(Deleted, "DELETE", f"{_SCHEDULES}/{schedule_id}")

    def run_schedule(self, schedule_id: str) -> ScheduleRun:
        """Run it now, also where it is disabled; the answer says what came of it."""
        return self._one(ScheduleRun, "POST", f"{_SCHEDULES}/{schedule_id}/run")

    def schedule_runs(self, schedule_id: str, *, limit: int | None = None) -> list[ScheduleRun]:
        """What became of each tick, the latest first; all of them, or the first `limit`."""
        return self._list(Page[ScheduleRun], f"{_SCHEDULES}/{schedule_id}/runs", limit)

    # Aliases

    def aliases(self) -> list[Alias]:
        """By name, each with all that it has stood for."""
        return list(self._one(Page[Alias], "GET", _ALIASES).data)

    def alias(self, name: str) -> Alias:
        return self._one(Alias, "GET", f"{_ALIASES}/{name}")

    def set_alias(self, name: str, model: str) -> Alias:
        """Let `alias/NAME` stand for a fine-tuned model."""
        return self._one(Alias, "POST", _ALIASES, json={"name": name, "model": model})

    def roll_back(self, name: str) -> Alias:
        """Let `alias/NAME` stand for what it stood for before. Raises Conflict where that is nothing."""
        return self._one(Alias, "POST", f"{_ALIASES}/{name}/rollback")

    def delete_alias(self, name: str) -> Deleted:
        """With its history; the models stay."""
        return self._one(Deleted, "DELETE", f"{_ALIASES}/{name}")

    # Webhooks

    def create_webhook(self, url: str, events: Sequence[str] | None = None) -> WebhookEndpoint:
        """Have events sent to `url`, all of them or those named. The answer alone holds the secret that signs them."""
        body = {"url": url} | ({} if events is None else {"events": list(events)})
        return self._one(WebhookEndpoint, "POST", _WEBHOOKS, json=body)

    def webhooks(self, *, limit: int | None = None) -> list[WebhookEndpoint]:
        """Newest first; all of them, or the first `limit`."""
        return self._list(Page[WebhookEndpoint], _WEBHOOKS, limit)

    def delete_webhook(self, endpoint_id: str) -> Deleted:
        """With what is still to be delivered to it."""
        return self._one(Deleted, "DELETE", f"{_WEBHOOKS}/{endpoint_id}")

    def webhook_deliveries(self, endpoint_id: str, *, limit: int | None = None) -> list[WebhookDelivery]:
        """What was sent and what is still to be, newest first; all of them, or the first `limit`."""
        return self._list(Page[WebhookDelivery], f"{_WEBHOOKS}/{endpoint_id}/deliveries", limit)

    # Keys

    def api_keys(self) -> list[ApiKey]:
        """Newest first, revoked ones too."""
        return list(self._one(Page[ApiKey], "GET", "/v1/keys").data)

    def create_key(self, name: str, scope: Scope = Scope.SUBMIT, *, days: float | None = None) -> NewApiKey:
        """A key that expires after so many days, or never. The answer is the only one that holds the key itself."""
        return self._one(NewApiKey, "POST", "/v1/keys", json={"name": name, "scope": scope, "days": days})

    def revoke_key(self, key_id: str) -> ApiKey:
        """From now on the key opens nothing, and whoever logged in with it is logged out."""
        return self._one(ApiKey, "DELETE", f"/v1/keys/{key_id}")


_JOBS: Final = "/v1/fine_tuning/jobs"
_NEWS: Final[dict[str, type[Job | Trial | CurvePoints | Event]]] = {
    "job": Job,
    "trial": Trial,
    "points": CurvePoints,
    "event": Event,
}
_SCHEDULES: Final = "/v1/schedules"
_ALIASES: Final = "/v1/aliases"
_WEBHOOKS: Final = "/v1/webhook_endpoints"
_CHAT: Final = "/v1/chat/completions"
_GRADERS: Final = "/v1/fine_tuning/alpha/graders"
_PURPOSE: Final = {"purpose": "fine-tune"}


def _question(model: str, messages: str | Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    given = {name: value for name, value in options.items() if value is not None}
    return {"model": model, "messages": said, **given}
