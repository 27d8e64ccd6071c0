"""The whole tree of errors: one JSON shape, a status on each class, and a way back from JSON and from a pickle."""

import copy
import json
import pickle

import pytest

from luthier import errors
from luthier.errors import DatasetError, LuthierError, tree

STATUS = {
    "luthier_error": 500,
    "user_error": 400,
    "dataset_error": 400,
    "illegal_design": 400,
    "grader_fault": 400,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "too_many_requests": 429,
    "lease_lost": 409,
    "stopped": 409,
    "interrupted": 503,
    "paused": 503,
    "infeasible": 422,
    "trial_failed": 500,
    "missing_metric": 500,
    "blob_missing": 404,
    "unreachable": 503,
}
STANDARD = {
    "user_error": ValueError,
    "dataset_error": ValueError,
    "illegal_design": ValueError,
    "grader_fault": ValueError,
    "not_found": LookupError,
    "trial_failed": RuntimeError,
    "missing_metric": LookupError,
    "blob_missing": LookupError,
    "unreachable": ConnectionError,
}

whole_tree = pytest.mark.parametrize("error", tree().values(), ids=tree())


def test_the_tree_holds_exactly_these_codes() -> None:
    assert {code: cls.status for code, cls in tree().items()} == STATUS


@whole_tree
def test_a_code_leads_back_to_its_class(error: type[LuthierError]) -> None:
    assert tree()[error("lost").code] is error


@whole_tree
def test_an_error_has_the_json_shape_of_openai(error: type[LuthierError]) -> None:
    kind = "invalid_request_error" if issubclass(error, errors.UserError) else "server_error"
    raised = error("row 3: no field `prompt`", param="file")
    expected = {"message": "row 3: no field `prompt`", "type": kind, "param": "file", "code": raised.code}
    assert json.loads(json.dumps(raised.body())) == {"error": expected}


@whole_tree
def test_an_error_can_be_caught_as_what_python_calls_it(error: type[LuthierError]) -> None:
    assert issubclass(error, STANDARD.get(error("").code, Exception))


@whole_tree
@pytest.mark.parametrize("how", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_an_error_survives_the_way_to_another_process(error: type[LuthierError], how) -> None:
    raised = error("the loss is nan", param="loss")
    arrived = how(raised)
    assert type(arrived) is error
    assert str(arrived) == str(raised) == raised.message
    assert arrived.body() == raised.body()
    assert vars(arrived) == vars(raised)


def test_a_dataset_error_lists_its_faults_once_each_even_after_a_pickle() -> None:
    raised = DatasetError("2 rows cannot be used", faults=["row 1: empty", "row 7: no `messages`"])
    assert str(raised) == "2 rows cannot be used\n  - row 1: empty\n  - row 7: no `messages`"
    arrived = pickle.loads(pickle.dumps(raised))
    assert (str(arrived), arrived.faults, arrived.param) == (str(raised), raised.faults, "file")


@whole_tree
def test_the_drawing_of_the_tree_shows_each_class_with_its_status(error: type[LuthierError]) -> None:
    assert errors.__doc__ is not None
    lines = [line for line in errors.__doc__.splitlines() if error.__name__ in line.split()]
    assert len(lines) == 1
    assert str(error.status) in lines[0].split()
