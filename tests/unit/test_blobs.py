"""Content-addressed blobs: the same promises on a local folder, in memory, and in a bucket that is reached as S3 is."""

import hashlib
import io
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from luthier.blobs import Blobs
from luthier.errors import BlobMissing, UserError

pytest_plugins = ("tests.buckets",)

DIGEST = hashlib.sha256(b"spruce").hexdigest()
ABSENT = hashlib.sha256(b"never stored").hexdigest()


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "file":
            return f"file://{tmp_path / 'not made yet'}"
        case "memory":
            return f"memory://{secrets.token_hex(8)}"
        case _:
            return f"s3://{request.getfixturevalue('bucket')}/{secrets.token_hex(8)}"


@pytest.fixture
def blobs(url: str) -> Blobs:
    return Blobs(url)


def names(url: str) -> list[str]:
    """Every file under the URL, relative to it."""
    fs, root = fsspec.url_to_fs(url, use_listings_cache=False)
    return sorted(path.removeprefix(root.rstrip("/") + "/") for path in fs.find(root))


def read(blobs: Blobs, digest: str) -> bytes:
    with blobs.open(digest) as file:
        return file.read()


def test_a_blob_is_named_by_its_sha256_and_comes_back_unchanged(blobs: Blobs) -> None:
    assert blobs.put(io.BytesIO(b"spruce")) == (DIGEST, 6)
    assert read(blobs, DIGEST) == b"spruce"
    assert blobs.exists(DIGEST)
    assert blobs.size(DIGEST) == 6


def test_blobs_lie_two_folders_deep_and_nothing_else_is_left(blobs: Blobs, url: str) -> None:
    blobs.put_bytes(b"spruce")
    assert names(url) == [f"{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}"]


def test_an_empty_blob_and_one_of_many_chunks_are_blobs_too(blobs: Blobs) -> None:
    long = secrets.token_bytes(3 * 2**20 + 17)
    assert read(blobs, blobs.put_bytes(b"")) == b""
    assert blobs.put(io.BytesIO(long)) == (hashlib.sha256(long).hexdigest(), len(long))
    assert read(blobs, hashlib.sha256(long).hexdigest()) == long


def test_put_takes_what_is_left_of_the_stream(blobs: Blobs) -> None:
    stream = io.BytesIO(b"old spruce")
    stream.seek(4)
    assert blobs.put(stream) == (DIGEST, 6)


def test_storing_the_same_content_twice_keeps_one_blob(blobs: Blobs, url: str) -> None:
    assert blobs.put_bytes(b"spruce") == blobs.put_bytes(b"spruce")
    assert len(names(url)) == 1


def test_many_writers_of_the_same_content_do_not_disturb_each_other(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    content = secrets.token_bytes(2**20)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: Blobs(url).put_bytes(content), range(32)))
    assert digests == {hashlib.sha256(content).hexdigest()}
    assert read(Blobs(url), digests.pop()) == content
    assert len(names(url)) == 1


class Torn(io.BytesIO):
    """An upload whose sender goes away in the middle."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError("the sender went away")
        return super().read(3)


def test_an_upload_that_breaks_off_leaves_nothing(blobs: Blobs, url: str) -> None:
    with pytest.raises(ConnectionResetError):
        blobs.put(Torn(b"spruce"))
    assert names(url) == []


def test_what_is_being_written_is_not_yet_a_blob(blobs: Blobs, url: str) -> None:
    seen: list[list[str]] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append([name for name in names(url) if not name.startswith("incoming/")])
            return super().read(3)

    blobs.put(Watched(b"spruce"))
    assert seen == [[], [], []]
    assert blobs.exists(DIGEST)


def test_another_instance_sees_writes_and_deletions_at_once(url: str) -> None:
    ctx, there = Blobs(url), Blobs(url)
    assert not there.exists(DIGEST)
    ctx.put_bytes(b"spruce")
    assert there.exists(DIGEST)
    ctx.delete(DIGEST)
    assert not there.exists(DIGEST)


def test_a_deleted_blob_is_gone_and_deleting_it_again_is_harmless(blobs: Blobs) -> None:
    blobs.put_bytes(b"spruce")
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)
    with pytest.raises(BlobMissing):
        blobs.open(DIGEST)


@pytest.mark.parametrize("ask", [Blobs.open, Blobs.size])
def test_an_absent_blob_is_reported_by_its_digest(blobs: Blobs, ask: Callable[[Blobs, str], object]) -> None:
    assert not blobs.exists(ABSENT)
    with pytest.raises(BlobMissing, match=ABSENT):
        ask(blobs, ABSENT)


@pytest.mark.parametrize("name", ["", "secret", "../secret", "../../secret", DIGEST.upper(), DIGEST + "\n", DIGEST[1:]])
def test_a_name_that_is_no_digest_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"not a blob")
    blobs = Blobs(f"file://{tmp_path / 'blobs'}")
    blobs.put_bytes(b"spruce")
    assert not blobs.exists(name)
    blobs.delete(name)
    for ask in (blobs.open, blobs.size):
        with pytest.raises(BlobMissing):
            ask(name)
    assert (tmp_path / "secret").read_bytes() == b"not a blob"
    assert blobs.exists(DIGEST)


def test_an_unknown_kind_of_url_is_refused_with_its_name() -> None:
    with pytest.raises(UserError, match=r"nowhere://x.*nowhere") as caught:
        Blobs("nowhere://x")
    assert caught.value.param == "blobs_url"
