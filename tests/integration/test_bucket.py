"""A service whose datasets, checkpoints and weights are in a bucket: moto answers as S3 does, over HTTP."""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest

from luthier.blobs import Blobs
from service.blob_gc import GRACE
from tests.integration.service_harness import FakeWorker, Service, serving, sums

pytest_plugins = ("tests.buckets",)

MEBIBYTE = 2**20
LARGE = 64  # MiB: more than the driver sends in one part


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, bucket: str) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("bucket"), blobs_url=f"s3://{bucket}/a/prefix") as service:
        service.add_model()
        yield service


def objects(bucket: str) -> dict[str, int]:
    """All that the bucket holds, with sizes."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}


def test_a_job_goes_from_its_dataset_to_its_weights_with_no_file_on_this_machine(service: Service, bucket: str) -> None:
    worker = FakeWorker(service.http)
    worker.register()
    job_id = service.submit(sums(), search={"trials": 4, "confirmations": 0})
    assert worker.work_until_ended(service.client, job_id) == "succeeded"

    file = service.client.job(job_id).training_file
    assert len(service.client.file_content(file).splitlines()) == len(sums())
    best = service.client.best(job_id)
    with service.client.artifact(job_id) as pieces:
        archive = io.BytesIO(b"".join(pieces))
    with tarfile.open(fileobj=archive) as tar:
        weights = tar.extractfile(next(name for name in tar.getnames() if name.endswith("model.safetensors")))
        assert weights is not None
        assert weights.read() == f"weights of {best.trial}".encode()
    assert all(re.fullmatch(r"a/prefix/(..)/(..)/\1\2[0-9a-f]{60}", name) for name in objects(bucket))
    assert not (service.context.settings.home_dir / "blobs").exists()


def test_a_large_blob_streams_in_and_out_in_parts_and_is_deleted_when_nothing_refers_to_it(
    service: Service, bucket: str
) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(LARGE):
            yield bytes([number]) * MEBIBYTE

    sha = hashlib.sha256()
    for piece in pieces():
        sha.update(piece)
    digest, size = sha.hexdigest(), LARGE * MEBIBYTE
    assert service.http.put("/v1/blobs", content=pieces()).json() == {"digest": digest, "size": size}
    key = f"a/prefix/{digest[:2]}/{digest[2:4]}/{digest}"
    assert objects(bucket)[key] == size
    assert not any("/incoming/" in name for name in objects(bucket))

    back = hashlib.sha256()
    with service.http.stream("GET", f"/v1/blobs/{digest}") as answer:
        assert answer.headers["content-length"] == str(size)
        for piece in answer.iter_bytes():
            back.update(piece)
    assert back.hexdigest() == digest

    ctx = service.context
    ctx.garbage.release({digest})
    assert ctx.garbage.sweep(ctx.database, ctx.blobs, datetime.now(UTC)) == set(), "spared: just uploaded"
    assert ctx.garbage.sweep(ctx.database, ctx.blobs, datetime.now(UTC) + GRACE) == {digest}
    assert key not in objects(bucket)
    assert service.http.get(f"/v1/blobs/{digest}").status_code == 404


def test_what_one_machine_wrote_another_reads(service: Service, bucket: str) -> None:
    digest = service.context.blobs.put_bytes(b"spruce")
    with Blobs(f"s3://{bucket}/a/prefix/").open(digest) as file:
        assert file.read() == b"spruce"
