"""Graders that compare texts, numbers or expressions: `string_check`, `text_similarity`, `number`, `math`."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from luthier import child_process
from luthier.errors import GraderFault
from luthier.graders.subprocess import Child
from luthier.task import SimilarityMetric, StringCheck

_WORD: Final = re.compile(r"[^\W_]+")


def holds(grader: StringCheck, given: str, reference: str) -> bool:
    """Return whether the grader's comparison is true."""
    match grader.operation:
        case "eq":
            return given == reference
        case "ne":
            return given != reference
        case "like":
            return reference in given
        case "ilike":
            return reference.casefold() in given.casefold()


def similarity(metric: SimilarityMetric, given: str, reference: str) -> float:
    """Return the metric, between 0 and 1. Equal texts score 1 even if they are too short for the metric's n-grams."""
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

    Answers of fewer than four words are scored by the n-grams that they have.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method1
    return float(sentence_bleu([reference.split()], given.split(), smoothing_function=smoothing, auto_reweigh=True))


def _gleu(given: str, reference: str) -> float:
    """Sentence GLEU (Wu et al. 2016): the smaller of n-gram precision and recall, n from 1 to 4."""
    from nltk.translate.gleu_score import sentence_gleu

    return float(sentence_gleu([reference.split()], given.split()))


def _rouge(metric: SimilarityMetric, given: str, reference: str) -> float:
    """ROUGE F1 (Lin 2004), over words of any script: rouge-score's tokenizer supports only a to z."""
    from rouge_score.rouge_scorer import RougeScorer

    name = metric.replace("_", "").replace("l", "L")
    score = RougeScorer([name], tokenizer=_Words()).score(reference, given)[name]
    return float(score.fmeasure)


class _Words:
    """The part of rouge-score's `Tokenizer` that its scorer calls."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())


# A minus after a number or a word is a subtraction, not a sign; digits inside a word (H2O) are not numbers.
_NUMBER: Final = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-+−])?(?<![A-Za-z0-9_.])"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)


def last_number(text: str) -> float | None:
    """Return the last number of a text, or None. Commas between groups of three digits are ignored."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None


def close(given: float, reference: float, tolerance: float) -> bool:
    """Return whether two numbers differ by at most `tolerance`, relative to |reference| if that is above 1."""
    return abs(given - reference) <= tolerance * max(1.0, abs(reference))


MAX_CHARACTERS: Final = 20_000

COMPARISON_SECONDS: Final = 60.0  # wall-clock time of a comparison, which limits its own CPU time
_comparer: Final = Child("math", partial(child_process.piped, "luthier.graders.math_process"), COMPARISON_SECONDS)


def equal(given: str, reference: str, float_rounding: int) -> bool:
    """Return whether the final expressions of two texts are equal. Only the last MAX_CHARACTERS of each are read.

    Raises GraderFault if the reference has no expression or the comparison exceeds its limits.
    """
    try:
        answer = _comparer.ask([given[-MAX_CHARACTERS:], reference[-MAX_CHARACTERS:], float_rounding])
    except TimeoutError as late:
        raise GraderFault(str(late)) from late
    match answer:
        case "":
            raise GraderFault("the answer and the reference could not be compared within the limits of time and memory")
        case "null":
            raise GraderFault("the reference contains no mathematical expression")
        case _:
            return answer == "true"
