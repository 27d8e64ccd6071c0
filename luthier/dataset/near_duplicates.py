"""Find prompts that nearly repeat one another, by MinHash over their character 5-grams (Broder 1997).

Two prompts are near-duplicates if their shingles have a weighted Jaccard similarity of at least 0.7. A shingle that n
of N prompts have weighs log(N / n) / n^¼. So a template that many prompts share counts little, and the values in it
decide. So are prompts that differ only by phrases which many prompts have, and lack elsewhere in the file
(common_phrases). Prompts with other numbers or operators are never near-duplicates: `3 + 3` is another question than
`4 + 4`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Final
from zlib import crc32

from luthier.dataset.common_phrases import same_but_for_phrases
from luthier.dataset.rows import text_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Shingles = NDArray[np.uint32]

MOST_PROMPTS: Final = 200_000  # beyond these the search would take minutes
SIMILARITY: Final = 0.7
_CHARACTERS: Final = 4_000  # of a prompt that are compared
_SHINGLE: Final = 5
_MOST_SHINGLES: Final = 400  # those with the lowest hashes, which are a random sample of a long prompt's
_FEWEST_SHINGLES: Final = 8  # shorter prompts are compared only as a whole, by their hash
_BANDS: Final = 16
_ROWS: Final = 4  # of 16 bands: finds pairs of similarity 0.7 with probability 0.99
_COMPARED: Final = 8
_BATCH: Final = 1_000  # prompts whose signatures are computed at once
_KEPT: Final = 4  # results of earlier searches
_TABLE: Final = 2**22  # counters of shingles at most; some share one
_GAPS: Final = re.compile(r"""[\s.,;:!?"'…()]+""")
_VALUES: Final = re.compile(r"\d+(?:[.,:]\d+)*|(?<=[\s\d)])[-+*/^=<>%×÷](?=[\s\d(])")


_lock: Final = Lock()
_results: Final[dict[str, dict[str, str]]] = {}  # the oldest first


def near_duplicates(texts: Mapping[str, str], *, values: bool) -> Mapping[str, str] | None:
    """Return, for each prompt that nearly repeats another one, the prompt that stands for its group.

    `texts` are the folded prompts by their hash. `values`: prompts with other numbers are different. The result depends
    only on the set of texts, and that of the last few sets is kept: a job that is created after the upload of its file
    searches no second time. None if there are more than 200,000 prompts: then nothing was searched for. 100,000 prompts
    of 100 characters take 5 to 10 seconds on one core, and 600 MB.
    """
    if len(texts) > MOST_PROMPTS:
        return None
    key = text_hash(" ".join([str(values), str(SIMILARITY), *sorted(texts)]))
    with _lock:
        known = _results.get(key)
    if known is None:
        known = _searched(texts, values=values) if len(texts) > 1 else {}
        with _lock:
            _results[key] = known
            while len(_results) > _KEPT:
                del _results[next(iter(_results))]
    return known


def _searched(texts: Mapping[str, str], *, values: bool) -> dict[str, str]:
    names = sorted(texts, key=lambda name: (texts[name], name))
    prompts = _Prompts([texts[name] for name in names], values=values)
    groups = _Groups(len(names))
    for one, other in prompts.candidates():
        if prompts.similarity(one, other) >= SIMILARITY:
            groups.join(one, other)
    if values:
        for first, *others in same_but_for_phrases([texts[name] for name in names]):
            for other in others:
                groups.join(first, other)
    return {
        names[one]: min((names[other] for other in group), key=text_hash)  # any, but as random as a hash
        for group in groups.members()
        for one in group
    }


class _Prompts:
    """The shingles of prompts, and their MinHash signatures."""

    def __init__(self, texts: list[str], *, values: bool) -> None:
        import numpy as np

        self._shingles = [_shingles(text) for text in texts]
        self._mask = min(_TABLE, 1 << (256 * len(texts)).bit_length()) - 1
        counts = np.zeros(self._mask + 1, dtype=np.int64)
        for start in range(0, len(texts), 10_000):
            batch = np.concatenate(self._shingles[start : start + 10_000])
            counts += np.bincount(batch & self._mask, minlength=self._mask + 1)
        counts = np.maximum(counts, 1)
        self._weights = (np.log(len(texts) / counts) / counts**0.25).clip(min=0)
        self._totals = [float(self._weights[shingles & self._mask].sum()) for shingles in self._shingles]
        common = counts > max(100, len(texts) // 20)  # in a template of so many prompts, only the values are compared
        own = [shingles[~common[shingles & self._mask]] for shingles in self._shingles]
        self._compared = np.array([len(shingles) >= _FEWEST_SHINGLES for shingles in own])
        self._signatures = np.zeros((len(texts), _BANDS * _ROWS), dtype=np.uint32)
        places = np.flatnonzero(self._compared)
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            self._signatures[some] = signatures([own[place] for place in some])
        found = (" ".join(_VALUES.findall(text[:_CHARACTERS])) if values else "" for text in texts)
        self._values = np.fromiter((crc32(each.encode()) for each in found), dtype=np.uint64, count=len(texts))

    def candidates(self) -> list[tuple[int, int]]:
        """Return pairs of prompts with the same values that agree in a band, and in most of their signatures.

        Of a prompt's pairs, the 8 nearest in the alphabet are returned at most: so a template of many prompts costs no
        more than they do.
        """
        import numpy as np

        pairs = [np.zeros(0, dtype=np.int64)]
        size = len(self._values)
        places = np.flatnonzero(self._compared)
        for band in range(_BANDS):
            keys = self._values[places] + np.uint64(band)
            for row in range(_ROWS):
                keys = keys * np.uint64(0x9E3779B97F4A7C15) + self._signatures[places, band * _ROWS + row]
            order = np.argsort(keys, kind="stable")
            for step in range(1, _COMPARED + 1):
                same = np.flatnonzero(keys[order[step:]] == keys[order[:-step]])
                one, other = places[order[same + step]], places[order[same]]
                alike = (self._signatures[one] == self._signatures[other]).mean(axis=1) > SIMILARITY - 0.2
                alike &= self._values[one] == self._values[other]
                pairs.append((one * size + (one - other))[alike])
        found = np.unique(np.concatenate(pairs))
        one, distance = found // size, found % size
        place = np.arange(len(one)) - np.searchsorted(one, one)  # of a pair among those of the same prompt
        near = place < _COMPARED
        return list(zip(one[near].tolist(), (one - distance)[near].tolist(), strict=True))

    def similarity(self, one: int, other: int) -> float:
        """Return the weighted Jaccard similarity of two prompts."""
        import numpy as np

        both = np.intersect1d(self._shingles[one], self._shingles[other], assume_unique=True)
        shared = float(self._weights[both & self._mask].sum())
        either = self._totals[one] + self._totals[other] - shared
        return shared / either if either > 0 else 0.0


def signatures(sets: Sequence[Shingles]) -> NDArray[np.uint32]:
    """Return the MinHash signatures of sets that are not empty, one a row, as datasketch's `affine32` scheme has them.

    One permutation of all sets at a time is much faster than datasketch, which computes one set at a time.
    """
    import numpy as np
    from datasketch import MinHash

    mixed = np.concatenate(sets)
    mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    starts = np.cumsum([0, *map(len, sets[:-1])])
    factors, terms = MinHash(num_perm=_BANDS * _ROWS, scheme="affine32").permutations
    columns = [np.minimum.reduceat(mixed * a + b, starts) for a, b in zip(factors, terms, strict=True)]
    return np.stack(columns, axis=1)


class _Groups:
    """Disjoint sets of the numbers below `count`."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def join(self, one: int, other: int) -> None:
        self._parents[self._root(one)] = self._root(other)

    def members(self) -> list[list[int]]:
        """Return the sets of two or more."""
        found: dict[int, list[int]] = {}
        for one in range(len(self._parents)):
            found.setdefault(self._root(one), []).append(one)
        return [group for group in found.values() if len(group) > 1]

    def _root(self, one: int) -> int:
        while self._parents[one] != one:
            self._parents[one] = self._parents[self._parents[one]]
            one = self._parents[one]
        return one


def _shingles(text: str) -> Shingles:
    """Return the hashes of the 5-grams of a text, sorted and each once; none for a text that is shorter."""
    import numpy as np

    plain = _GAPS.sub(" ", text[:_CHARACTERS]).strip()
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    length = len(codes) - _SHINGLE + 1
    if length < 1:
        return np.zeros(0, dtype=np.uint32)
    hashes = np.zeros(length, dtype=np.uint32)
    for offset in range(_SHINGLE):
        hashes = hashes * np.uint32(0x01000193) ^ codes[offset : offset + length]
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(0x85EBCA6B)  # MurmurHash3's finaliser: mixes all bits
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    hashes ^= hashes >> np.uint32(16)
    hashes.sort()
    different: NDArray[np.bool_] = np.append(True, hashes[1:] != hashes[:-1])  # numpy.unique is slower for so few
    return hashes[different][:_MOST_SHINGLES]
