"""Graders: how good an answer is, from 0.0 to 1.0, after OpenAI's `string_check` and `text_similarity`.

Templates are plain substitution: `{{item.path}}` reads the row, `{{sample.path}}` what the model made. Nothing of the
user's is run, and what a template puts in is never read as a template again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from luthier.errors import UserError
from luthier.task import Grader, SimilarityMetric, StringCheck, TextSimilarity

_TEMPLATE: Final = re.compile(r"\{\{([^{}]*)\}\}")
_WORD: Final = re.compile(r"[^\W_]+")


def grade(grader: Grader, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """Grade one answer: `item` is the row with its extra columns, `sample` holds `output_text`.

    Raises UserError naming a template whose path is not there.
    """
    given = fill(grader.input, item=item, sample=sample)
    reference = fill(grader.reference, item=item, sample=sample)
    match grader:
        case StringCheck():
            return float(_holds(grader, given, reference))
        case TextSimilarity():
            return _similarity(grader.evaluation_metric, given, reference)


def fill(template: str, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """Put the values in. Strings go in as they are, anything else as JSON; numbers in a path index lists."""
    roots = {"item": item, "sample": sample}
    return _TEMPLATE.sub(lambda found: _look_up(found[1].strip(), roots), template)


def _look_up(path: str, roots: Mapping[str, Any]) -> str:
    value: Any = roots
    keys = path.split(".")
    if len(keys) < 2:
        raise _unknown(path, "expected a path that starts with `item.` or `sample.`")
    for key in keys:
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            known = ", ".join(f"`{name}`" for name in list(value)[:12]) if isinstance(value, Mapping) else "nothing"
            raise _unknown(path, f"there is no {key!r}; found {known or 'nothing'}")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unknown(path: str, why: str) -> UserError:
    return UserError(f"the template `{{{{{path}}}}}` cannot be filled: {why}", param="grader")


def _holds(grader: StringCheck, given: str, reference: str) -> bool:
    match grader.operation:
        case "eq":
            return given == reference
        case "ne":
            return given != reference
        case "like":
            return reference in given
        case "ilike":
            return reference.casefold() in given.casefold()


def _similarity(metric: SimilarityMetric, given: str, reference: str) -> float:
    """The metric, within 0 and 1. Equal texts score 1 also where they are too short to have the metric's n-grams."""
    if given == reference:
        return 1.0
    match metric:
        case "fuzzy_match":
            score = _fuzzy(given, reference)
        case "bleu":
            score = _bleu(given, reference)
        case "gleu":
            score = _gleu(given, reference)
        case "rouge_1" | "rouge_2" | "rouge_3" | "rouge_4" | "rouge_5" | "rouge_l":
            score = _rouge(metric, given, reference)
    return min(1.0, max(0.0, score))


def _fuzzy(given: str, reference: str) -> float:
    """Normalised insert/delete distance (rapidfuzz's `ratio`)."""
    from rapidfuzz import fuzz

    return fuzz.ratio(given, reference) / 100


def _bleu(given: str, reference: str) -> float:
    """Sentence BLEU (Papineni et al. 2002), smoothed by method 1 of Chen and Cherry (2014); words are split at spaces.

    Answers of fewer than four words are scored by the n-grams they have.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method1
    return float(sentence_bleu([reference.split()], given.split(), smoothing_function=smoothing, auto_reweigh=True))


def _gleu(given: str, reference: str) -> float:
    """Sentence GLEU (Wu et al. 2016): the smaller of n-gram precision and recall, n from 1 to 4."""
    from nltk.translate.gleu_score import sentence_gleu

    return float(sentence_gleu([reference.split()], given.split()))


def _rouge(metric: SimilarityMetric, given: str, reference: str) -> float:
    """ROUGE's F1 (Lin 2004), over words of any script: rouge-score's own tokenizer knows only a to z."""
    from rouge_score.rouge_scorer import RougeScorer

    name = metric.replace("_", "").replace("l", "L")
    score = RougeScorer([name], tokenizer=_Words()).score(reference, given)[name]
    return float(score.fmeasure)


class _Words:
    """The part of rouge-score's `Tokenizer` that its scorer calls."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())
