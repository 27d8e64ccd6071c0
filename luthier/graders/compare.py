"""Comparing texts: OpenAI's `string_check` and `text_similarity`."""

from __future__ import annotations

import re
from typing import Final

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
