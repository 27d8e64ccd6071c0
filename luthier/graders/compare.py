"""Comparing texts: OpenAI's `string_check` and `text_similarity`."""

from __future__ import annotations

import re
from typing import Final

from luthier.errors import GraderFault
from luthier.graders.subprocess import Child
from luthier.task import SimilarityMetric, StringCheck

_WORD: Final = re.compile(r"[^\W_]+")


def holds(grader: StringCheck, given: str, reference: str) -> bool:
    """Whether the grader's comparison is true."""
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


# A sign counts where nothing stands before it that it could be subtracted from; digits of a word (H2O) do not count.
_NUMBER: Final = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-+−])?(?<![A-Za-z0-9_.])"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)


def last_number(text: str) -> float | None:
    """The last number of a text; commas between groups of three digits are read over. None where there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None


def close(given: float, reference: float, tolerance: float) -> bool:
    """Whether two numbers differ by no more than `tolerance`, or that share of the reference where it is above 1."""
    return abs(given - reference) <= tolerance * max(1.0, abs(reference))


MAX_CHARACTERS: Final = 20_000

_comparer: Final = Child("math", "-P", "-m", "luthier.graders.math_process")


def equal(given: str, reference: str, float_rounding: int) -> bool:
    """Whether two texts end with the same mathematics. Raises GraderFault where that cannot be said.

    An answer is read from its end: only its last MAX_CHARACTERS count.
    """
    answer = _comparer.ask([given[-MAX_CHARACTERS:], reference[-MAX_CHARACTERS:], float_rounding])
    match answer:
        case "":
            raise GraderFault("the answer and the reference could not be compared within the limits of time and memory")
        case "null":
            raise GraderFault("the reference holds no mathematical expression")
        case _:
            return answer == "true"
