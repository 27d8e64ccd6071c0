"""The typed Python client of a Luthier service.

    with Client("http://127.0.0.1:8420") as client:
        file = client.upload(Path("train.jsonl"))
        job = client.create_job(file.id, search={"trials": 12})
        while not client.job(job.id).status.terminal:
            time.sleep(10)
        client.download(job.id, Path("best"))

If the service returns an error, the client raises the same class of `luthier.errors`. If the service cannot be
reached, it raises Unreachable.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
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
from luthier.errors import Unreachable
from luthier.keys import Scope
from luthier.report import Report
from luthier.trial import TRAIN_LOSS, Point

CHUNK: Final = 1 << 20
ANSWER_SECONDS: Final = 600.0  # timeout of an answer, including the loading of the model


class Client(Line):
    """A client of one service, with a connection pool. Close it, or use it as a context manager. Thread-safe."""

    # Files

    def upload(self, path: Path) -> FileObject:
        """Upload a dataset. Raises DatasetError with the first faults of the file, or TooLarge."""
        with path.open("rb") as stream:
            return self.upload_stream(stream, path.name)

    def upload_stream(self, stream: IO[bytes], filename: str) -> FileObject:
        """Like `upload`, from a stream; the extension of `filename` gives the file type."""
        form: dict[str, Any] = {"files": {"file": (filename, stream)}, "data": _PURPOSE}
        return self._one(FileObject, "POST", "/v1/files", **form, timeout=self._patient)

    def files(self, *, limit: int | None = None) -> list[FileObject]:
        """Return all files, or the first `limit`, newest first."""
        return self._list(Page[FileObject], "/v1/files", limit)

    def file(self, file_id: str) -> FileObject:
        return self._one(FileObject, "GET", f"/v1/files/{file_id}")

    def file_content(self, file_id: str) -> bytes:
        """Return the content of the upload, unchanged."""
        return self._send("GET", f"/v1/files/{file_id}/content").content

    def delete_file(self, file_id: str) -> Deleted:
        """Delete a file. Raises Conflict while a job that has not ended uses it."""
        return self._one(Deleted, "DELETE", f"/v1/files/{file_id}")

    def dataset(self, file_id: str) -> Dataset:
        """Return the profile of a file."""
        return self._one(Dataset, "GET", f"/v1/datasets/{file_id}")

    def rows(self, file_id: str, *, first: int = 1, limit: int = 20, contains: str = "") -> DatasetRows:
        """Return a page of a file's normalised rows from row `first` on (counted from 1), filtered by text."""
        wanted = {"first": first, "limit": limit, "contains": contains}
        return self._one(DatasetRows, "GET", f"/v1/datasets/{file_id}/rows", params=wanted)

    # Jobs

    def create_job(self, training_file: str | None = None, **options: Any) -> Job:
        """Create a job. `options` are the fields of POST /v1/fine_tuning/jobs; None values are not sent.

        Without a file, `task` must name an environment; the job's `training_file` is then the rows that it makes.
        """
        options["training_file"] = training_file
        body = {name: value for name, value in options.items() if value is not None}
        return self._one(Job, "POST", _JOBS, json=body, timeout=self._patient)

    def environments(self) -> list[Environment]:
        """Return the environments for `task.environment`."""
        return list(self._one(Page[Environment], "GET", "/v1/environments").data)

    def jobs(
        self,
        *,
        limit: int | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        schedule_id: str | None = None,
    ) -> list[Job]:
        """Return all jobs, or the first `limit`, newest first: those with all of `metadata`, all `tags` and, if given,
        from this schedule."""
        wanted: dict[str, Any] = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        wanted |= {"tag": list(tags)} | ({} if schedule_id is None else {"schedule_id": schedule_id})
        return self._list(Page[Job], _JOBS, limit, wanted)

    def job(self, job_id: str) -> Job:
        return self._one(Job, "GET", f"{_JOBS}/{job_id}")

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises Conflict for a job that has ended."""
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/cancel")

    def pause(self, job_id: str) -> Job:
        """Pause a job: running trials save a checkpoint and stop, and none starts until `resume`.

        Raises Conflict for a job that has ended.
        """
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/pause")

    def resume(self, job_id: str) -> Job:
        """Resume a paused job. Raises Conflict for a job that has ended."""
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/resume")

    def extend(
        self,
        job_id: str,
        *,
        trials: int | None = None,
        device_seconds: float | None = None,
        deadline: datetime | None = None,
    ) -> Job:
        """Let a search that has ended go on with more trials, more device-seconds or a later deadline.

        Raises Conflict for a job that did not succeed, or whose data or models are gone, and UserError for a budget
        that is not larger.
        """
        more = {"trials": trials, "device_seconds": device_seconds}
        body: dict[str, Any] = {name: value for name, value in more.items() if value is not None}
        if deadline is not None:
            body["deadline"] = deadline.isoformat()
        return self._one(Job, "POST", f"{_JOBS}/{job_id}/extend", json=body, timeout=self._patient)

    def events(self, job_id: str, *, limit: int | None = None) -> list[Event]:
        """Return all events of a job, or the first `limit`, newest first."""
        return self._list(Page[Event], f"{_JOBS}/{job_id}/events", limit)

    def describe(self, job_id: str, *, notes: str | None = None, tags: Sequence[str] | None = None) -> Job:
        """Set the notes and tags of a job; arguments that are left out change nothing."""
        body = {name: value for name, value in {"notes": notes, "tags": tags}.items() if value is not None}
        return self._one(Job, "PATCH", f"{_JOBS}/{job_id}", json=body)

    def stream(self, job_id: str, after: str | None = None) -> Iterator[Update]:
        """Yield updates of a job until it has ended: its state, trials, curve points and events.

        `after` is the id of an event to continue from. Nothing after it is left out, but some updates may come twice.
        """
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
        """Return the checkpoints of a job (scores on held-out rows), or the first `limit`, newest first."""
        return self._list(CheckpointPage, f"{_JOBS}/{job_id}/checkpoints", limit)

    # Graders

    def run_grader(self, grader: Mapping[str, Any], model_sample: str, item: Mapping[str, Any]) -> GraderRun:
        """Grade one answer to one row; errors are in `metadata.errors`."""
        body = {"grader": grader, "model_sample": model_sample, "item": item}
        return self._one(GraderRun, "POST", f"{_GRADERS}/run", json=body)

    def validate_grader(self, grader: Mapping[str, Any]) -> GraderValidation:
        """Return the grader with its defaults. Raises UserError naming the field at fault."""
        return self._one(GraderValidation, "POST", f"{_GRADERS}/validate", json={"grader": grader})

    # Results

    def trials(self, job_id: str) -> list[Trial]:
        """Return the trials of a job by number; 0 is the untuned base, 1 the plain LoRA default."""
        return self._list(Page[Trial], f"{_JOBS}/{job_id}/trials")

    def points(self, job_id: str, trial_id: str, name: str | None = None) -> list[Point]:
        """Return the points of a trial's curves, or of the curve `name`."""
        wanted = {} if name is None else {"name": name}
        page = self._one(Page[Point], "GET", f"{_JOBS}/{job_id}/trials/{trial_id}/points", params=wanted)
        return list(page.data)

    def trial(self, job_id: str, trial: str) -> TrialDetails:
        """Return one trial by its id or number, with its design in sentences and its stored weights."""
        return self._one(TrialDetails, "GET", f"{_JOBS}/{job_id}/trials/{trial}")

    def log(self, job_id: str, trial: str) -> list[TrialLine]:
        """Return the last thousand lines of a trial's log."""
        return list(self._one(Page[TrialLine], "GET", f"{_JOBS}/{job_id}/trials/{trial}/log").data)

    def samples(self, job_id: str, trial: str) -> list[TrialSample]:
        """Return a trial's answers to held-out prompts, and those of the base."""
        return list(self._one(Page[TrialSample], "GET", f"{_JOBS}/{job_id}/trials/{trial}/samples").data)

    def add_trial(self, job_id: str, **design: Any) -> Trial:
        """Queue a manual trial: a whole `design`, or a `change` to the design of `trial` (default: the best so far).

        Raises IllegalDesign, Infeasible, or Conflict if the job accepts no more trials.
        """
        body = {name: value for name, value in design.items() if value is not None}
        return self._one(Trial, "POST", f"{_JOBS}/{job_id}/trials", json=body)

    def cancel_trial(self, job_id: str, trial: str) -> Trial:
        """Stop one trial; the job continues. Raises Conflict for a trial that has ended."""
        return self._one(Trial, "POST", f"{_JOBS}/{job_id}/trials/{trial}/cancel")

    def best(self, job_id: str, trial: str | None = None) -> Best:
        """Return the recommended trial, or the one given by number or id, and the baselines.

        Raises NotFound until a trial is complete.
        """
        return self._one(Best, "GET", f"{_JOBS}/{job_id}/best", params={} if trial is None else {"trial": trial})

    def report(self, job_id: str) -> Report:
        """Return the report of a job; while it runs, the report so far."""
        return self._one(Report, "GET", f"{_JOBS}/{job_id}/report", params={"format": "json"})

    def report_page(self, job_id: str, form: Literal["html", "markdown"]) -> str:
        """Return the report as HTML or Markdown."""
        return self._send("GET", f"{_JOBS}/{job_id}/report", params={"format": form}).content.decode()

    def estimate(self, **question: Any) -> DesignEstimate:
        """Return the estimated memory and time of a design, or of a change to one. Nothing is trained.

        `question` are the fields of POST /v1/designs/estimate; None values are not sent.
        """
        body = {name: value for name, value in question.items() if value is not None}
        return self._one(DesignEstimate, "POST", "/v1/designs/estimate", json=body, timeout=self._patient)

    def design_space(self, training_file: str | None = None, **options: Any) -> DesignSpace:
        """Return what a job would search and cost, and why other values are not legal; `options` as in `create_job`."""
        body = {name: value for name, value in {"training_file": training_file, **options}.items() if value is not None}
        return self._one(DesignSpace, "POST", "/v1/designs/space", json=body, timeout=self._patient)

    def curves(self, job_id: str, name: str = TRAIN_LOSS, *, points: int = 200) -> Curves:
        """Return one curve of all trials, each downsampled to `points` points, and the trials' scores at rungs."""
        wanted = {"name": name, "points": points}
        return self._one(Curves, "GET", f"{_JOBS}/{job_id}/curves", params=wanted)

    def landscape(self, job_id: str) -> Landscape:
        """Return all scored designs by column."""
        return self._one(Landscape, "GET", f"{_JOBS}/{job_id}/landscape")

    def timeline(self, job_id: str) -> Timeline:
        """Return which worker trained which trial, and when."""
        return self._one(Timeline, "GET", f"{_JOBS}/{job_id}/timeline")

    @contextmanager
    def artifact(self, job_id: str, form: str = "merged", trial: str | None = None) -> Iterator[Iterator[bytes]]:
        """Yield the weights of the recommended trial, or of another one, in pieces of a tar archive.

        `form` is `adapter`, `merged` or `gguf`. Raises NotFound, with the reason, if the weights do not exist in that
        form, and UserError if they cannot be converted.
        """
        wanted = {"format": form} | ({} if trial is None else {"trial": trial})
        with self._stream("GET", f"{_JOBS}/{job_id}/artifact", params=wanted) as response:
            yield response.iter_bytes(CHUNK)

    def download(self, job_id: str, folder: Path, form: str = "merged", trial: str | None = None) -> list[Path]:
        """Unpack the weights of the recommended trial, or of another one, into `folder`, which is created if missing;
        return the files."""
        with self.artifact(job_id, form, trial) as pieces:
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=cast("IO[bytes]", Pieces(pieces)), mode="r|", bufsize=CHUNK) as archive:
                return [unpack(archive, member, folder) for member in archive]

    def optuna(self, job_id: str, path: Path) -> None:
        """Write the job so far as an Optuna storage file, for `optuna-dashboard sqlite:///PATH`."""
        with self._stream("GET", f"{_JOBS}/{job_id}/optuna") as response, path.open("wb") as file:
            for piece in response.iter_bytes(CHUNK):
                file.write(piece)

    # Completions

    def chat(self, model: str, messages: str | Sequence[Mapping[str, Any]], **options: Any) -> ChatCompletion:
        """Return a chat completion of a base model or of a job's result; a string is one user message.

        `options` are the fields of POST /v1/chat/completions; None values are not sent. The first answer waits until
        the model is loaded.
        """
        body = _question(model, messages, options)
        return self._one(ChatCompletion, "POST", _CHAT, json=body, timeout=ANSWER_SECONDS)

    def stream_chat(self, model: str, messages: str | Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]:
        """Like `chat`, but yield the text piece by piece while the model generates it."""
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
        """Return the base models, followed by the models that jobs have made."""
        return list(self._one(Page[Model], "GET", "/v1/models").data)

    def model(self, model_id: str) -> Model:
        return self._one(Model, "GET", f"/v1/models/{model_id}")

    def add_model(self, name: str, source: str, on_step: Callable[[str], None] | None = None) -> Model:
        """Register a base model: a folder or GGUF file that the service and its workers can read, or a hub id.

        Returns when the model is converted or downloaded, checked, and tried. `on_step` is called with each step.
        """
        headers = {"Accept": _EVENTS} if on_step else {}
        body = {"name": name, "source": source}
        with self._stream("POST", "/v1/models", json=body, headers=headers, timeout=None) as response:
            if not response.headers["content-type"].startswith(_EVENTS):
                return Model.model_validate_json(response.read())
            for line in response.iter_lines():
                match json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}:
                    case {"step": str(step)} if on_step:
                        on_step(step)
                    case {"error": _} as found:
                        raise error_in(found)
                    case {"model": model}:
                        return Model.model_validate(model)
                    case _:
                        pass  # a ping, or the name of an event
        raise Unreachable(f"{self.base_url} ended the registration of {name} early. Register it again.")

    def remove_model(self, name: str) -> Deleted:
        """Unregister a base model, or delete the result of a job.

        Raises Conflict for a base model while a job that has not ended uses it.
        """
        return self._one(Deleted, "DELETE", f"/v1/models/{name}")

    def workers(self) -> list[Worker]:
        return list(self._one(Page[Worker], "GET", "/v1/workers").data)

    # Schedules

    def create_schedule(self, name: str, cron: str, job: Mapping[str, Any], **options: Any) -> Schedule:
        """Create a schedule. `job` is the body of POST /v1/fine_tuning/jobs; its `training_file` may be
        {"newest": filename}. `options` are the other fields of POST /v1/schedules; None values are not sent."""
        body = {"name": name, "cron": cron, "job": job} | {key: v for key, v in options.items() if v is not None}
        return self._one(Schedule, "POST", _SCHEDULES, json=body, timeout=self._patient)

    def schedules(self, *, limit: int | None = None) -> list[Schedule]:
        """Return all schedules, or the first `limit`, newest first."""
        return self._list(Page[Schedule], _SCHEDULES, limit)

    def schedule(self, schedule_id: str) -> Schedule:
        return self._one(Schedule, "GET", f"{_SCHEDULES}/{schedule_id}")

    def change_schedule(self, schedule_id: str, **changes: Any) -> Schedule:
        """Change fields of a schedule; `enabled=False` disables it."""
        return self._one(Schedule, "PATCH", f"{_SCHEDULES}/{schedule_id}", json=changes)

    def delete_schedule(self, schedule_id: str) -> Deleted:
        """Delete a schedule and its runs; its jobs stay."""
        return self._one(Deleted, "DELETE", f"{_SCHEDULES}/{schedule_id}")

    def run_schedule(self, schedule_id: str) -> ScheduleRun:
        """Run a schedule now, even if it is disabled; return the run."""
        return self._one(ScheduleRun, "POST", f"{_SCHEDULES}/{schedule_id}/run", timeout=self._patient)

    def schedule_runs(self, schedule_id: str, *, limit: int | None = None) -> list[ScheduleRun]:
        """Return all runs of a schedule, or the first `limit`, the latest first."""
        return self._list(Page[ScheduleRun], f"{_SCHEDULES}/{schedule_id}/runs", limit)

    # Aliases

    def aliases(self) -> list[Alias]:
        """Return the aliases by name, each with its versions."""
        return list(self._one(Page[Alias], "GET", _ALIASES).data)

    def alias(self, name: str) -> Alias:
        return self._one(Alias, "GET", f"{_ALIASES}/{name}")

    def set_alias(self, name: str, model: str) -> Alias:
        """Point `alias/NAME` to a fine-tuned model."""
        return self._one(Alias, "POST", _ALIASES, json={"name": name, "model": model})

    def roll_back(self, name: str) -> Alias:
        """Point `alias/NAME` to its previous model. Raises Conflict if there is none."""
        return self._one(Alias, "POST", f"{_ALIASES}/{name}/rollback")

    def delete_alias(self, name: str) -> Deleted:
        """Delete an alias and its versions; the models stay."""
        return self._one(Deleted, "DELETE", f"{_ALIASES}/{name}")

    # Webhooks

    def create_webhook(self, url: str, events: Sequence[str] | None = None) -> WebhookEndpoint:
        """Send events to `url`: all, or those named. Only this response has the secret that signs them."""
        body = {"url": url} | ({} if events is None else {"events": list(events)})
        return self._one(WebhookEndpoint, "POST", _WEBHOOKS, json=body)

    def webhooks(self, *, limit: int | None = None) -> list[WebhookEndpoint]:
        """Return all webhook endpoints, or the first `limit`, newest first."""
        return self._list(Page[WebhookEndpoint], _WEBHOOKS, limit)

    def delete_webhook(self, endpoint_id: str) -> Deleted:
        """Delete an endpoint and its deliveries."""
        return self._one(Deleted, "DELETE", f"{_WEBHOOKS}/{endpoint_id}")

    def webhook_deliveries(self, endpoint_id: str, *, limit: int | None = None) -> list[WebhookDelivery]:
        """Return all deliveries to an endpoint, or the first `limit`, newest first, including pending ones."""
        return self._list(Page[WebhookDelivery], f"{_WEBHOOKS}/{endpoint_id}/deliveries", limit)

    # Keys

    def api_keys(self) -> list[ApiKey]:
        """Return all keys, newest first, including revoked ones."""
        return list(self._one(Page[ApiKey], "GET", "/v1/keys").data)

    def create_key(self, name: str, scope: Scope = Scope.SUBMIT, *, days: float | None = None) -> NewApiKey:
        """Create a key that expires after `days`, or never. Only this response contains the key itself."""
        return self._one(NewApiKey, "POST", "/v1/keys", json={"name": name, "scope": scope, "days": days})

    def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key: requests with it fail from now on, and its sessions end."""
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
_EVENTS: Final = "text/event-stream"
_PURPOSE: Final = {"purpose": "fine-tune"}


def _question(model: str, messages: str | Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    given = {name: value for name, value in options.items() if value is not None}
    return {"model": model, "messages": said, **given}
