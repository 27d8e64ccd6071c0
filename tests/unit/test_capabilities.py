"""How what an architecture allows is kept, and what follows where it cannot be found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.errors import LuthierError, UserError
from luthier.models import confined
from luthier.models.base_model import ModelFacts
from luthier.models.capabilities import with_capabilities
from tests.unit.search_samples import entry

FACTS = entry().facts
FOUND = {"dora": "it has experts"}
SOURCE = Path("/models/own")


class Asked:
    """Stands for the child process: answers, or raises."""

    def __init__(self, answer: dict[str, str] | LuthierError, untrainable: str | None = None) -> None:
        self.answer = answer
        self.untrainable = untrainable
        self.questions: list[Any] = []

    def __call__(self, module: str, question: Any, **limits: Any) -> dict[str, Any]:
        self.questions.append(question)
        if isinstance(self.answer, LuthierError):
            raise self.answer
        return {"unsupported": self.answer, "untrainable": self.untrainable}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked(FOUND)
    monkeypatch.setattr(confined, "ask", found)
    return found


def known(folder: Path, architecture: str = "a") -> ModelFacts:
    return with_capabilities(FACTS, {"model_type": "llama"}, architecture, folder, source=SOURCE)


def test_an_architecture_is_tried_once_in_a_home(asked: Asked, tmp_path: Path) -> None:
    assert known(tmp_path).unsupported == known(tmp_path).unsupported == FOUND
    assert len(asked.questions) == 1
    known(tmp_path, "another")
    known(tmp_path / "home")
    assert len(asked.questions) == 3


def test_it_is_tried_again_with_other_libraries(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(tmp_path)
    monkeypatch.setattr("luthier.models.capabilities.version", lambda package: "9.9")
    known(tmp_path)
    assert len(asked.questions) == 2


def test_nothing_is_left_out_where_the_tries_do_not_end(asked: Asked, tmp_path: Path) -> None:
    for error in (UserError("took too long", param="source"), LuthierError("exit code 1")):
        asked.answer = error
        facts = known(tmp_path)
        assert (facts.unsupported, facts.untried) == (None, error.message)
        assert ModelFacts.model_validate(facts.model_dump(mode="json")) == facts
    asked.answer = FOUND
    assert known(tmp_path).unsupported == FOUND  # the failure was not kept


def test_a_model_that_cannot_be_trained_is_refused_each_time(asked: Asked, tmp_path: Path) -> None:
    asked.untrainable = "its scores are not finite"
    for _ in range(2):
        with pytest.raises(UserError, match=r"/models/own.*not finite") as refused:
            known(tmp_path)
        assert refused.value.param == "source"
    asked.untrainable = None
    assert known(tmp_path).unsupported == FOUND  # the refusal was not kept


def test_facts_without_the_field_stay_as_they_were_stored(asked: Asked, tmp_path: Path) -> None:
    stored = FACTS.model_dump(mode="json")
    assert {"unsupported", "untried", "chat_fault"}.isdisjoint(stored)
    assert ModelFacts.model_validate(stored) == FACTS
    asked.answer = {}
    assert known(tmp_path) == FACTS
    failing = FACTS.model_copy(update={"unsupported": FOUND})
    assert ModelFacts.model_validate(failing.model_dump(mode="json")) == failing
