"""Graders give 0 to 1, and templates are only ever filled, never run."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import UserError
from luthier.graders import fill, grade
from luthier.task import SimilarityMetric, StringCheck, TextSimilarity

METRICS = get_args(SimilarityMetric)


def _check(operation: Any, given: str, reference: str) -> float:
    return grade(StringCheck(operation=operation), item={"reference": reference}, sample={"output_text": given})


def _similarity(metric: Any, given: str, reference: str) -> float:
    grader = TextSimilarity(evaluation_metric=metric)
    return grade(grader, item={"reference": reference}, sample={"output_text": given})


@pytest.mark.parametrize(
    ("operation", "answer", "reference", "score"),
    [
        ("eq", "Paris", "Paris", 1),
        ("eq", "Paris ", "Paris", 0),
        ("eq", "paris", "Paris", 0),
        ("ne", "Paris", "Paris", 0),
        ("ne", "paris", "Paris", 1),
        ("like", "It is Paris.", "Paris", 1),
        ("like", "It is paris.", "Paris", 0),
        ("like", "Par", "Paris", 0),
        ("ilike", "It is PARIS.", "paris", 1),
        ("ilike", "It is Rome.", "paris", 0),
        ("ilike", "STRASSE", "straße", 1),
    ],
)
def test_string_checks_compare_as_openais_do(operation: str, answer: str, reference: str, score: float) -> None:
    assert _check(operation, answer, reference) == score


@pytest.mark.parametrize(
    ("metric", "answer", "reference", "score"),
    [
        ("fuzzy_match", "abcd", "abce", 0.75),
        (
            "bleu",
            "the cat sat on the mat",
            "the cat sat on a mat",
            math.exp(sum(map(math.log, (5 / 6, 3 / 5, 2 / 4, 1 / 3))) / 4),
        ),
        ("bleu", "the cat", "the dog", math.sqrt(1 / 2 * 0.1 / 1)),
        ("gleu", "the cat", "the cat sat", 3 / 6),
        ("rouge_1", "the cat", "the cat sat", 0.8),
        ("rouge_2", "the cat", "the cat sat", 2 / 3),
        ("rouge_3", "a b c d", "a b c e", 0.5),
        ("rouge_4", "a b c d", "a b c e", 0),
        ("rouge_5", "a b c d e", "a b c d e f", 2 / 3),
        ("rouge_l", "the cat sat", "the old cat sat", 6 / 7),
    ],
)
def test_similarities_have_their_published_values(metric: str, answer: str, reference: str, score: float) -> None:
    assert _similarity(metric, answer, reference) == pytest.approx(score)


@pytest.mark.parametrize("metric", METRICS)
def test_an_equal_answer_scores_one_even_where_it_is_short(metric: str) -> None:
    assert _similarity(metric, "Paris", "Paris") == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_answer_scores_nothing(metric: str) -> None:
    assert _similarity(metric, "", "Paris is the capital of France") == 0.0


def test_rouge_reads_other_scripts_than_latin() -> None:
    assert _similarity("rouge_1", "добрый день", "добрый вечер") == 0.5


@settings(max_examples=100)
@given(metric=st.sampled_from(METRICS), answer=st.text(), reference=st.text())
def test_every_similarity_is_within_zero_and_one(metric: str, answer: str, reference: str) -> None:
    assert 0.0 <= _similarity(metric, answer, reference) <= 1.0


ITEM = {
    "reference": "Paris",
    "number": 4,
    "right": True,
    "nothing": None,
    "country": {"name": "France", "cities": ["Paris", "Lyon"]},
    "odd key": "x",
    "sneaky": "{{item.number}}",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{item.reference}}", "Paris"),
        ("{{ item.reference }}!", "Paris!"),
        ("{{item.country.name}}: {{item.country.cities.1}}", "France: Lyon"),
        ("{{item.number}} {{item.right}} {{item.nothing}}", "4 true null"),
        ("{{item.country}}", '{"name": "France", "cities": ["Paris", "Lyon"]}'),
        ("{{item.odd key}}", "x"),
        ("{{sample.output_text}}", "said"),
        ("{{item.sneaky}}", "{{item.number}}"),
        ("no template { } {x}", "no template { } {x}"),
    ],
)
def test_templates_are_filled(template: str, text: str) -> None:
    assert fill(template, item=ITEM, sample={"output_text": "said"}) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{item.answer}}",
            r"`\{\{item\.answer\}\}`.*'answer'.* `reference`, `number`",
        ),
        ("{{item.country.capital}}", r"'capital'.* `name`, `cities`"),
        ("{{item.country.cities.2}}", r"'2'.* nothing"),
        ("{{item.reference.upper}}", r"'upper'.* nothing"),
        ("{{item.reference.__class__}}", r"'__class__'"),
        ("{{sample.output}}", r"'output'.* `output_text`"),
        ("{{reference}}", r"`item\.`.*`sample\.`"),
        ("{{}}", r"`item\.`.*`sample\.`"),
        ("{{other.x}}", r"'other'.* `item`, `sample`"),
        ("{{item.number + 1}}", r"'number \+ 1'"),
    ],
)
def test_an_unknown_path_is_the_users_error_and_is_named(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        grade(StringCheck(input=template), item=ITEM, sample={"output_text": ""})
    assert refused.value.param == "grader"


def test_braces_without_end_take_no_time() -> None:
    template = "{{" + " " * 100_000 + "{{" * 50_000
    assert fill(template, item={}, sample={}) == template
