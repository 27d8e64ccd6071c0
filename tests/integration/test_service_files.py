"""Uploading datasets: streamed, checked, kept; refused early and in words."""

import json
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from luthier.dataset import read_rows
from luthier.errors import Conflict, DatasetError, NotFound, TooLarge
from tests.integration.service_harness import FakeWorker, Service, serving, sums, unpaired, wait_until
from tests.unit.bad_file import BadFile
from tests.unit.bad_files import BAD_FILES

pytest_plugins = ("tests.integration.service_fixtures",)

BOUNDARY = "luthier-test"
MEBIBYTE = 2**20


def form(content: bytes, name: str = "train.jsonl", purpose: str = "fine-tune") -> bytes:
    """A complete multipart form."""
    return opening(name) + content + closing(purpose)


def opening(name: str) -> bytes:
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def closing(purpose: str = "fine-tune") -> bytes:
    field = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
    return f"{field}--{BOUNDARY}--\r\n".encode()


def post(http: httpx.Client, body: bytes | Iterator[bytes]) -> httpx.Response:
    return http.post("/v1/files", content=body, headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def jsonl(count: int = 60) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in sums(count)).encode()


def test_an_uploaded_file_can_be_looked_at_listed_and_downloaded_again(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "sums é.jsonl"
    path.write_bytes(jsonl())
    file = service.client.upload(path)

    assert (file.filename, file.bytes, file.status) == ("sums é.jsonl", len(jsonl()), "processed")
    assert (file.luthier.kind, file.luthier.format, file.luthier.rows) == ("pairs", "prompt_completion", 60)
    assert service.client.file(file.id) == file
    assert service.client.files() == [file]
    assert service.client.file_content(file.id) == jsonl()


def test_the_profile_counts_tokens_with_the_first_models_tokenizer(service: Service) -> None:
    profile = service.client.dataset(service.upload(sums()))
    assert (profile.rows, profile.counted_by) == (60, "tiny-chat")


def test_without_a_model_tokens_are_estimated_and_the_profile_says_so(bare: Service) -> None:
    profile = bare.client.dataset(bare.upload(sums()))
    assert profile.counted_by.startswith("estimate: 4 bytes")


def test_unused_columns_and_near_duplicates_are_in_the_profile_and_on_the_page(service: Service) -> None:
    asked = "Please tell me how the harbour office decides which ships may enter first"
    rows = [row | {"licence": "MIT", "topic": "sums"} for row in sums()]
    file_id = service.upload(
        [*rows, *({"prompt": f"{asked}{end}", "completion": "By size."} for end in ("?", " now?"))]
    )
    profile = service.client.dataset(file_id)
    assert profile.unused_columns == ("licence", "topic")
    assert (profile.duplicates, profile.near_repeats, profile.near_duplicates) == (0, 0, 2)
    [note] = profile.notes
    page = service.http.get(f"/datasets/{file_id}").text
    assert "<code>licence</code>, <code>topic</code>" in page
    assert note in page


def test_text_that_is_not_learned_is_named_at_upload_on_the_page_and_in_the_jobs_events(service: Service) -> None:
    rows = [row | {"remark": f"They say that sum {n} is hard"} for n, row in enumerate(sums())]
    file_id = service.upload(rows)
    profile = service.client.dataset(file_id)
    [warning] = profile.warnings
    assert "`remark`" in warning
    assert warning in profile.notes
    assert warning.split("`")[0] in service.http.get(f"/datasets/{file_id}").text
    assert warning in service.messages(service.submit(rows, search={"trials": 2}))


def test_a_job_on_good_and_bad_answers_names_its_own_objective(service: Service) -> None:
    created = service.messages(service.submit(unpaired(), search={"trials": 2}))[0]
    assert "label_auc" in created


def test_rows_are_stored_normalised(service: Service, worker: FakeWorker) -> None:
    rows = [{"instruction": f"Add {n} and 1.", "input": "", "output": str(n + 1), "level": n} for n in range(60)]
    service.submit(rows, search={"trials": 2})
    train = read_rows(service.http.get(f"/v1/blobs/{worker.take().train}").content)
    assert set(train[0]) == {"prompt", "completion", "level"}


def test_a_file_arrives_whole_however_it_is_cut_into_pieces(service: Service) -> None:
    body = form(jsonl(12))
    answer = post(service.http, (body[at : at + 7] for at in range(0, len(body), 7)))
    assert answer.status_code == 200, answer.text
    assert service.client.file_content(answer.json()["id"]) == jsonl(12)


def test_files_are_listed_newest_first_page_by_page(service: Service) -> None:
    ids = [service.upload(sums(12 + n), f"{n}.jsonl") for n in range(5)]
    first = service.http.get("/v1/files", params={"limit": 2}).json()
    second = service.http.get("/v1/files", params={"limit": 10, "after": first["data"][-1]["id"]}).json()
    assert [file["id"] for file in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [file.id for file in service.client.files(limit=3)] == ids[:1:-1]


def test_a_file_can_be_deleted_once_no_live_job_uses_it(service: Service) -> None:
    file_id = service.upload(sums())
    job = service.client.create_job(file_id, search={"trials": 2})
    with pytest.raises(Conflict, match=file_id):
        service.client.delete_file(file_id)
    service.client.cancel(job.id)
    assert service.client.delete_file(file_id).deleted
    with pytest.raises(NotFound, match=file_id):
        service.client.file(file_id)


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.case)
def test_a_bad_file_is_refused_with_its_faults_and_the_service_goes_on(crowded: Service, bad: BadFile) -> None:
    answer = crowded.http.post("/v1/files", files={"file": (bad.name, bad.data)}, data={"purpose": "fine-tune"})
    error = answer.json()["error"]
    assert answer.status_code in (400, 413)
    assert (error["param"], error["type"]) == ("file", "invalid_request_error")
    assert re.search(bad.message, error["message"], re.DOTALL), error["message"]
    assert crowded.http.get("/readyz").status_code == 200
    assert crowded.client.files() == []


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all bad files."""
    with serving(tmp_path_factory.mktemp("crowded")) as service:
        yield service


def test_a_line_of_two_gigabytes_is_refused_after_the_first_few_megabytes(service: Service) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield opening("train.jsonl") + jsonl(12) + b'{"prompt": "'
        while sent < 2 * 1024 * MEBIBYTE:
            sent += MEBIBYTE
            yield b"x" * MEBIBYTE
        yield closing()

    answer = post(service.http, endless())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "train.jsonl: line 13 is longer than 4,194,304 bytes" in answer.json()["error"]["message"]
    assert sent < 64 * MEBIBYTE
    assert service.client.files() == []


def test_a_file_beyond_the_limit_is_refused_while_it_arrives(tmp_path: Path) -> None:
    with serving(tmp_path, max_upload_bytes=MEBIBYTE) as service:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            yield opening("train.txt")
            while sent < 1024 * MEBIBYTE:
                sent += MEBIBYTE
                yield b"word " * (MEBIBYTE // 5)

        answer = post(service.http, endless())
        assert answer.status_code == 413
        assert "larger than 1,048,576 bytes" in answer.json()["error"]["message"]
        assert sent < 64 * MEBIBYTE


def test_the_client_tells_of_a_file_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    path.write_bytes(b"word\n" * MEBIBYTE)
    with (
        serving(tmp_path, max_upload_bytes=MEBIBYTE) as service,
        pytest.raises(TooLarge, match="LUTHIER_MAX_UPLOAD_BYTES"),
    ):
        service.client.upload(path)


def test_a_json_array_on_one_line_is_not_taken_for_one_long_row(tmp_path: Path) -> None:
    with serving(tmp_path, max_row_bytes=1000) as service:
        array = json.dumps(sums(60)).encode()
        assert len(array) > 1000
        assert post(service.http, form(array)).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(jsonl(), purpose="assistants"), "purpose must be 'fine-tune', not 'assistants'"),
        (form(jsonl(), purpose="x" * 5000), "purpose is longer than 1,024 bytes"),
        (opening("a.jsonl") + jsonl(), "closing boundary"),
        (b"", "closing boundary"),
        (opening("a.jsonl") + jsonl() + f"\r\n--{BOUNDARY}--\r\n".encode(), "purpose is missing"),
        (f"--{BOUNDARY}".encode() + closing()[2 + len(f"\r\n--{BOUNDARY}") - 2 :], "file is missing"),
        (opening("a.jsonl") + jsonl() + b"\r\n" + form(jsonl()), "more than one file"),
        (form(jsonl()).replace(b'"file"', b'"document"'), "'document'"),
        (form(jsonl()).replace(b'; filename="train.jsonl"', b""), "file must be a file field"),
        (b"not a form at all", "cannot be parsed"),
    ],
    ids=[
        "another purpose",
        "a long purpose",
        "no end",
        "nothing",
        "no purpose",
        "no file",
        "two files",
        "an unknown field",
        "a file without a name",
        "no form",
    ],
)
def test_a_broken_form_is_refused_in_words(crowded: Service, body: bytes, message: str) -> None:
    answer = post(crowded.http, body)
    assert answer.status_code in (400, 413)
    assert message in answer.json()["error"]["message"]


def test_an_upload_that_breaks_off_leaves_nothing_behind(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(incoming))
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        "Content-Length: 1000000\r\n\r\n"
    ).encode()
    address = (httpx.URL(service.url).host, httpx.URL(service.url).port or 0)
    with socket.create_connection(address) as connection:
        connection.sendall(head + opening("train.jsonl") + jsonl())
        wait_until(lambda: any(incoming.iterdir()))
    wait_until(lambda: not any(incoming.iterdir()))
    assert service.client.files() == []


@pytest.mark.parametrize("name", ["../../etc/train.jsonl", "C:\\data\\train.jsonl", "/train.jsonl"])
def test_a_file_name_is_only_a_name(service: Service, name: str) -> None:
    answer = service.http.post("/v1/files", files={"file": (name, jsonl(12))}, data={"purpose": "fine-tune"})
    assert answer.json()["filename"] == "train.jsonl"


def test_the_client_raises_the_services_own_error(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "What?", "completion": ""}\n' * 12)
    with pytest.raises(DatasetError, match="row 1, field `completion`: expected a non-empty string"):
        service.client.upload(path)
