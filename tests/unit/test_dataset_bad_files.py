"""Every bad file is refused with the message that the table promises."""

from pathlib import Path

import pytest

from luthier.dataset import load
from luthier.errors import DatasetError
from luthier.settings import Settings
from tests.unit.bad_file import BadFile
from tests.unit.bad_files import BAD_FILES


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.case)
def test_a_bad_file_is_refused_with_words_that_help(bad: BadFile, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with path.open("wb") as stream:
        stream.writelines(bad.content())
    with pytest.raises(DatasetError, match=bad.message) as refused:
        load(path, bad.name, max_row_bytes=Settings().max_row_bytes)
    assert len(refused.value.faults) <= 20
    assert len(str(refused.value)) < 20_000


def test_the_cases_have_names_of_their_own() -> None:
    assert len({bad.case for bad in BAD_FILES}) == len(BAD_FILES) >= 45
