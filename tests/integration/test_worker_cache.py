"""Workers of one machine share a folder of blobs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.integration.service_harness import serving
from workers.service_client import ServiceClient


def test_workers_that_fetch_the_same_blob_at_once_all_get_it_whole(tmp_path: Path) -> None:
    content = b"0123456789" * 400_000
    with serving(tmp_path / "home") as service:
        digest = service.context.store_bytes(content)
        links = [ServiceClient(service.url, tmp_path / "cache") for _ in range(4)]
        with ThreadPoolExecutor(len(links)) as pool:
            found = list(pool.map(lambda service: service.get_blob(digest).read_bytes(), links))
        for service in links:
            service.close()
    assert found == [content] * len(links)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [digest]
