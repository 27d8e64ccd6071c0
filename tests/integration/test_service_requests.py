"""Bad requests: each is refused with a status, the field at fault, and words that say what to do."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.integration.service_harness import Service, preferences, prompts, serving, sums, texts, unpaired

JOBS = "/v1/fine_tuning/jobs"
FILES = ("training_file", "validation_file")
HEADERS = {"Content-Type": "application/json"}


class Bad(NamedTuple):
    """`body` is completed with a training file of sums, unless it names one; bytes are sent as they are."""

    case: str
    body: Any
    param: str | None
    message: str
    status: int = 400
    method: str = "POST"
    path: str = JOBS


class Home(NamedTuple):
    """A service with a model and one file of each kind."""

    service: Service
    files: dict[str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with serving(tmp_path_factory.mktemp("requests")) as service:
        service.add_model()
        rows = {"sums": sums(), "texts": texts(), "preferences": preferences(), "prompts": prompts()}
        rows["good alone"] = [row | {"label": True} for row in unpaired(59)] + [unpaired(1)[0] | {"label": False}]
        yield Home(service, {name: service.upload(content) for name, content in rows.items()})


def method(kind: str, **hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": kind, kind: {"hyperparameters": hyperparameters}}}


def pin(**axes: Any) -> dict[str, Any]:
    return {"search": {"pin": axes}}


BAD_BODIES = [
    Bad("no body", b"", None, "the body is empty"),
    Bad("no JSON", b"{", None, "the body is not valid JSON"),
    Bad("deep JSON", b"[" * 100_000, None, "cannot be parsed"),
    Bad("half a surrogate", rb'{"training_file": "\ud83d"}', "training_file", "a string of valid Unicode"),
    Bad("a list", b"[]", None, "the body must be a JSON object"),
    Bad("no training file", b"{}", "training_file", "training_file is missing"),
    Bad("an unknown file", {"training_file": "file-no"}, "training_file", "file-no", 404),
    Bad("a file that is a number", {"training_file": 7}, "training_file", "training_file must be a string, not 7"),
    Bad("a zero byte", {"training_file": "a\0b"}, "training_file", "must be a string that matches"),
    Bad("an unknown field", {"epochs": 3}, "epochs", "unknown field epochs"),
    Bad("an unknown nested field", {"search": {"trails": 3}}, "search.trails", "unknown field search.trails"),
    Bad("an unknown model", {"model": "gpt-9"}, "model", "'gpt-9'.*tiny-chat"),
    Bad("an unknown model in a pin", pin(model=["gpt-9"]), "search.pin.model", "'gpt-9'.*tiny-chat"),
    Bad("two models", {"model": "tiny-chat", **pin(model=["tiny-chat"])}, "model", "model and search.pin.model"),
    Bad("an unknown validation file", {"validation_file": "file-no"}, "validation_file", "validation_file: ", 404),
    Bad(
        "a validation file of another kind",
        {"validation_file": "texts"},
        "validation_file",
        "holds text rows, but training_file holds pairs rows",
    ),
    Bad(
        "reinforcement without a grader",
        {"method": {"type": "reinforcement"}},
        "method.reinforcement",
        "method.reinforcement.grader, task.grader",
    ),
    Bad(
        "two graders",
        {
            "method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "string_check"}}},
            "task": {"grader": {"type": "number"}},
        },
        "method.reinforcement.grader",
        "method.reinforcement.grader and task.grader",
    ),
    Bad(
        "reinforcement on preferences",
        {
            "training_file": "preferences",
            "method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "string_check"}}},
        },
        "method.type",
        "grpo needs a reward",
    ),
    Bad("grpo without a grader", pin(algorithm=["grpo"]), "search.pin.algorithm", "grpo needs a reward"),
    Bad("prompts without a grader", {"training_file": "prompts"}, "task.grader", "task.grader"),
    Bad("an unknown method", {"method": {"type": "ppo"}}, "method.type", "'auto', 'supervised', 'dpo' or 'reinforce"),
    Bad(
        "a method's values for another",
        {"method": {"type": "supervised", "dpo": {}}},
        "method.dpo",
        "method.dpo needs method.type 'dpo'.*'supervised'",
    ),
    Bad("dpo on pairs", method("dpo"), "method", "dpo .*pairs"),
    Bad(
        "supervised on text",
        {"training_file": "texts", **method("supervised")},
        "method",
        "sft .*text",
    ),
    Bad(
        "an unknown recipe",
        pin(algorithm=["ppo"]),
        "search.pin.algorithm",
        "'ppo'.*clm, sft",
    ),
    Bad(
        "epochs in words",
        method("supervised", n_epochs="many"),
        "method.supervised.hyperparameters.n_epochs",
        "n_epochs must be 'auto' or a whole number, at least 1, not 'many'",
    ),
    Bad(
        "no epochs",
        method("supervised", n_epochs=0),
        "method.supervised.hyperparameters.n_epochs",
        "'auto' or a whole number, at least 1, not 0",
    ),
    Bad(
        "a negative beta",
        {"training_file": "preferences", **method("dpo", beta=-1)},
        "method.dpo.hyperparameters.beta",
        "'auto' or a number above 0, not -1",
    ),
    Bad(
        "beta for supervised training",
        method("supervised", beta=0.1),
        "method.supervised.hyperparameters.beta",
        "unknown field method.supervised.hyperparameters.beta",
    ),
    Bad(
        "a batch larger than the data",
        {"hyperparameters": {"batch_size": 10_000}},
        "hyperparameters.batch_size",
        "10000 is not possible; choose from 1 to the .* training rows",
    ),
    Bad(
        "the same thing fixed twice",
        {"hyperparameters": {"n_epochs": 2}, **pin(epochs=[1])},
        "hyperparameters.n_epochs",
        "hyperparameters.n_epochs and search.pin.epochs",
    ),
    Bad("beta without dpo", pin(beta=[0.1]), "search.pin.beta", "dpo.* sft, clm"),
    Bad("too few trials", {"search": {"trials": 1}}, "search.trials", "at least 2, not 1"),
    Bad("trials in words", {"search": {"trials": "x"}}, "search.trials", "trials must be a whole number, not 'x'"),
    Bad("no device time", {"search": {"device_seconds": 0}}, "search.device_seconds", "must be more than 0, not 0"),
    Bad("endless time", b'{"training_file": "", "search": {"device_seconds": NaN}}', ".*", "a finite number, not nan"),
    Bad(
        "a deadline in the past",
        {"search": {"deadline": "2020-01-01T00:00:00Z"}},
        "search.deadline",
        "2020-01-01T00:00:00.00:00",
    ),
    Bad(
        "a deadline without a zone",
        {"search": {"deadline": "2090-01-01T00:00:00"}},
        "search.deadline",
        "search.deadline needs a time zone",
    ),
    Bad("a deadline in words", {"search": {"deadline": "soon"}}, "search.deadline", "must be a date and time, e.g."),
    Bad("an unknown objective", {"search": {"objective": "loss"}}, "search.objective", "'auto', 'perplexity' or 'rew"),
    Bad(
        "reward for text",
        {"training_file": "texts", "search": {"objective": "reward"}},
        "search.objective",
        "needs preference data or a grader",
    ),
    Bad(
        "held-out rows of one label",
        {"training_file": "good alone"},
        "training_file",
        r"\d+ (training|validation|test) rows are all desirable",
    ),
    Bad(
        "a grader for text",
        {"training_file": "texts", "task": {"grader": {"type": "string_check"}}},
        "task.grader",
        "text rows",
    ),
    Bad(
        "a template without a column",
        {"task": {"grader": {"type": "string_check", "reference": "{{item.answer}}"}}},
        "task.grader.reference",
        r"`\{\{item.answer\}\}`.*'answer'",
    ),
    Bad(
        "an unknown grader",
        {"task": {"grader": {"type": "magic", "source": "x"}}},
        "task.grader",
        "must be one of 'string_check', 'text_similarity', 'number', 'math', 'multi', 'python', .* as its type",
    ),
    Bad("a grader without a type", {"task": {"grader": {}}}, "task.grader", "needs a field 'type'"),
    Bad(
        "an unknown operation",
        {"task": {"grader": {"type": "string_check", "operation": "is"}}},
        "task.grader.operation",
        "task.grader.operation must be 'eq', 'ne', 'like' or 'ilike', not 'is'",
    ),
    Bad(
        "a goal that the data cannot serve",
        {"training_file": "texts", "task": {"goal": "behaviour"}},
        "task.goal",
        "'behaviour' .*sft.*raft.*text data.* clm",
    ),
    Bad(
        "a model too small to be had",
        {"constraints": {"parameters": 1000}},
        "constraints.parameters",
        "1,000 parameters: tiny-chat has 1,803,904",
    ),
    Bad("an impossible edit", pin(layers=[99]), "search.pin.layers", "99 is not possible; choose from 6, 5, 4, 3, 2"),
    Bad("a long suffix", {"suffix": "x" * 65}, "suffix", "suffix must be at most 64 characters"),
    Bad("a suffix with a slash", {"suffix": "a/b"}, "suffix", "letters, digits, '.', '_' and '-' only, not 'a/b'"),
    Bad("much metadata", {"metadata": {str(n): "" for n in range(17)}}, "metadata", "metadata must be at most 16 ent"),
    Bad("a long key", {"metadata": {"k" * 65: "v"}}, "metadata.k*", "must be at most 64 characters"),
    Bad("a long value", {"metadata": {"k": "v" * 513}}, "metadata.k", "must be at most 512 characters"),
    Bad("metadata that is a list", {"metadata": []}, "metadata", "metadata must be an object, not"),
    Bad(
        "an integration",
        {"integrations": [{"type": "wandb", "wandb": {"project": "luthier"}}]},
        "integrations",
        r"Weights & Biases.* MLflow \(LUTHIER_MLFLOW_URL\).*: neither",
    ),
    Bad("a negative seed", {"seed": -1}, "seed", "seed must be at least 0, not -1"),
    Bad("a seed beyond 31 bits", {"seed": 2**31}, "seed", "seed must be at most 2147483647"),
    Bad("a body too large", b'"' + b"x" * (17 * 2**20) + b'"', None, "larger than 16,777,216 bytes", 413),
]

BAD_ADDRESSES = [
    Bad("an unknown route", None, None, "GET /v2/files.*/docs", 404, "GET", "/v2/files"),
    Bad("a wrong method", None, None, "/v1/files .*PATCH", 405, "PATCH", "/v1/files"),
    Bad("an unknown job", None, "fine_tuning_job_id", "ftjob-no", 404, "GET", f"{JOBS}/ftjob-no"),
    Bad("its events", None, "fine_tuning_job_id", "ftjob-no", 404, "GET", f"{JOBS}/ftjob-no/events"),
    Bad("its trials", None, "fine_tuning_job_id", "ftjob-no", 404, "GET", f"{JOBS}/ftjob-no/trials"),
    Bad("its best", None, "fine_tuning_job_id", "ftjob-no", 404, "GET", f"{JOBS}/ftjob-no/best"),
    Bad("its weights", None, "fine_tuning_job_id", "ftjob-no", 404, "GET", f"{JOBS}/ftjob-no/artifact"),
    Bad("its end", None, "fine_tuning_job_id", "ftjob-no", 404, "POST", f"{JOBS}/ftjob-no/cancel"),
    Bad("its trial", None, "fine_tuning_job_id", "ftjob-no", 404, "GET", f"{JOBS}/ftjob-no/trials/t/points"),
    Bad(
        "weights as a pickle",
        None,
        "format",
        "'adapter', 'merged' or 'gguf', not 'pickle'",
        400,
        "GET",
        f"{JOBS}/x/artifact?format=pickle",
    ),
    Bad("an unknown file", None, "file", "file-no", 404, "GET", "/v1/files/file-no"),
    Bad("its content", None, "file", "file-no", 404, "GET", "/v1/files/file-no/content"),
    Bad("its profile", None, "file", "file-no", 404, "GET", "/v1/datasets/file-no"),
    Bad("a page of nothing", None, "limit", "limit must be at least 1, not '0'", 400, "GET", "/v1/files?limit=0"),
    Bad("a page of words", None, "limit", "limit must be a whole number", 400, "GET", f"{JOBS}?limit=many"),
    Bad("a page after nothing", None, "after", "file-no", 404, "GET", "/v1/files?after=file-no"),
    Bad(
        "an unknown filter",
        None,
        "status",
        "expected after, limit, tag, schedule_id and",
        400,
        "GET",
        f"{JOBS}?status=running",
    ),
    Bad("a zero byte", None, None, "NUL byte", 400, "GET", "/v1/files/a%00b"),
    Bad("an unknown model", None, "model", "'no'", 404, "DELETE", "/v1/models/no"),
    Bad("a model without a folder", {"name": "m"}, "source", "source is missing", 400, "POST", "/v1/models"),
    Bad(
        "a model that is nowhere",
        {"name": "m", "source": "/no/such/folder"},
        "source",
        "'/no/such/folder' does not exist",
        400,
        "POST",
        "/v1/models",
    ),
    Bad(
        "another folder",
        {"name": "m", "source": "/"},
        "source",
        "no config.json",
        400,
        "POST",
        "/v1/models",
    ),
    Bad("a model's bad name", {"name": "a/b", "source": "/"}, "name", "name must be", 400, "POST", "/v1/models"),
    Bad("an unknown worker", None, "worker_id", "'w'", 404, "POST", "/v1/workers/w/lease"),
    Bad("a worker without device", {"name": "w", "pid": 1}, "device", "device is missing", 400, "POST", "/v1/workers"),
    Bad(
        "a heartbeat for nothing",
        {"owner": "w", "fence": 1, "device_seconds": 1},
        "trial_id",
        "'t'",
        404,
        "POST",
        "/v1/trials/t/heartbeat",
    ),
    Bad(
        "a form that is JSON",
        {"file": "x"},
        "file",
        "must be multipart/form-data, not application/json",
        400,
        "POST",
        "/v1/files",
    ),
]


@pytest.mark.parametrize("bad", BAD_BODIES, ids=lambda bad: bad.case)
def test_a_bad_job_is_refused_before_anything_is_queued(home: Home, bad: Bad) -> None:
    body = bad.body
    if isinstance(body, dict):
        body = {"training_file": "sums", **body}
        body = {field: home.files.get(str(value), value) if field in FILES else value for field, value in body.items()}
    expect(home.service.http, bad, body)
    assert home.service.client.jobs() == []


@pytest.mark.parametrize("bad", BAD_ADDRESSES, ids=lambda bad: f"{bad.case}: {bad.method} {bad.path}")
def test_a_bad_address_or_message_is_refused(home: Home, bad: Bad) -> None:
    expect(home.service.http, bad, bad.body)


def test_without_a_model_a_job_says_how_to_register_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("empty")) as service:
        answer = service.http.post(JOBS, json={"training_file": service.upload(sums())})
    assert answer.status_code == 400
    assert "`luthier models add NAME FOLDER`" in answer.json()["error"]["message"]


def test_an_unexpected_error_is_logged_and_shows_nothing_of_the_inside(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("luthier.store.files.list_", broken)
    answer = home.service.http.get("/v1/files")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, "luthier_error")
    assert "secret" not in error["message"]
    assert "GET /v1/files failed: ZeroDivisionError('secret')" in caplog.text


def expect(http: httpx.Client, bad: Bad, body: Any) -> None:
    sent = {"content": body, "headers": HEADERS} if isinstance(body, bytes) else {"json": body}
    answer = http.request(bad.method, bad.path, **sent)
    assert answer.status_code == bad.status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert re.search(bad.message, error["message"]), error["message"]
    assert re.fullmatch(bad.param, error["param"]) if bad.param else error["param"] is None, error
    assert http.get("/readyz").status_code == 200
