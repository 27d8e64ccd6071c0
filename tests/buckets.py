"""A bucket to keep blobs in: moto answers as S3 does, over HTTP on this machine."""

import secrets
from collections.abc import Iterator

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The name of an empty one. Whoever speaks to S3 meanwhile finds it as the environment says."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    name = f"luthier-{secrets.token_hex(8)}"  # all servers of one process share their buckets
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", address)
        environment.setenv("AWS_ACCESS_KEY_ID", "anybody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield name
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # what it keeps would go on asking this server
    server.stop()
