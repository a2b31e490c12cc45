"""Scores of written texts against references, on the host."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import sacrebleu


@runtime_checkable
class TextScore(Protocol):
    """Compares texts with references, of which each text has one or more.

    >>> score: TextScore = ExactMatch()
    >>> score(["go left"], [["go left", "turn left"]])
    {'exact_match': 1.0}
    """

    def __call__(
        self, texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Scores texts.

        Args:
          texts: N texts.
          references: for each one or more.

        Returns:
          Numbers by name.
        """
        ...

    def signature(self, references: Sequence[Sequence[str]]) -> str:
        """All that the numbers depend on, for whoever wants to compare with them.

        Args:
          references: for each text one or more.

        Returns:
          A line of text.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Bleu:
    """BLEU of a corpus, 0 to 100, by sacrebleu: name `bleu`.

    Attributes:
      tokenize: how sacrebleu cuts texts into words: "13a" for text as people write it, "none" for
        text whose words stand between spaces.
      lowercase: whether case counts as nothing.

    >>> Bleu("13a", lowercase=True)(["A cat sat on mats."], [["a cat sat on mats."]])["bleu"] > 99
    True

    Papineni et al., BLEU: a method for automatic evaluation of machine translation, 2002; Post, A
    call for clarity in reporting BLEU scores, 2018, arXiv:1804.08771.
    """

    tokenize: str
    lowercase: bool

    def __call__(
        self, texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        if len(texts) != len(references):  # which sacrebleu does not mind
            raise ValueError(f"Bleu: {len(texts)} texts and references of {len(references)}")
        bleu = self._metric()
        return {"bleu": float(bleu.corpus_score(list(texts), _streams(references)).score)}

    def signature(self, references: Sequence[Sequence[str]]) -> str:
        bleu = self._metric()
        # sacrebleu knows how many references there are once it has scored.
        bleu.corpus_score([""] * len(references), _streams(references))
        return f"BLEU {bleu.get_signature()}"

    def _metric(self) -> sacrebleu.BLEU:
        # Texts cut at spaces look tokenised to sacrebleu, which warns of it; here it is wanted.
        return sacrebleu.BLEU(lowercase=self.lowercase, tokenize=self.tokenize, force=True)


def _streams(references: Sequence[Sequence[str]]) -> Any:
    """The first references of all texts, then the second ones; None where a text has fewer."""
    return [list(stream) for stream in itertools.zip_longest(*references)]


@dataclasses.dataclass(frozen=True)
class Rouge:
    """F of single words, of pairs of words, and of the longest common subsequence, 0 to 100.

    Names `rouge1`, `rouge2`, `rougeL`: the mean over texts of the best F among its references.
    Words are runs of a-z and 0-9 in lower case, without stemming, as in the rouge-score package;
    all else separates them, so a text in another script has no words and scores 0.

    >>> Rouge()(["the cat sat"], [["the cat ran"]])["rouge2"]
    50.0

    Lin, ROUGE: a package for automatic evaluation of summaries, 2004.
    """

    def __call__(
        self, texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        sums = [0.0, 0.0, 0.0]
        for text, some in zip(texts, references, strict=True):
            triples = [_rouge(_words(text), _words(reference)) for reference in some]
            for index, alternatives in enumerate(zip(*triples, strict=True)):
                sums[index] += max(alternatives)
        count = max(len(texts), 1)
        names = ("rouge1", "rouge2", "rougeL")
        return {name: 100.0 * total / count for name, total in zip(names, sums, strict=True)}

    def signature(self, references: Sequence[Sequence[str]]) -> str:
        most = max((len(some) for some in references), default=0)
        return f"ROUGE F|words:[a-z0-9]+|case:lc|stem:no|refs:best of {most}"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _rouge(text: list[str], reference: list[str]) -> tuple[float, float, float]:
    def overlap(n: int) -> float:
        one = collections.Counter(zip(*(text[i:] for i in range(n)), strict=False))
        other = collections.Counter(zip(*(reference[i:] for i in range(n)), strict=False))
        return _f((one & other).total(), one.total(), other.total())

    return overlap(1), overlap(2), _f(_common(text, reference), len(text), len(reference))


def _f(hits: int, found: int, wanted: int) -> float:
    return 2.0 * hits / (found + wanted) if hits else 0.0


def _common(text: list[str], reference: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(reference) + 1)
    for word in text:
        diagonal = 0
        for index, other in enumerate(reference, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    """The share of texts that are one of their references word for word: name `exact_match`.

    >>> ExactMatch()(["go  left"], [["go left"]])
    {'exact_match': 1.0}
    """

    def __call__(
        self, texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        hits = [
            text.split() in [reference.split() for reference in some]
            for text, some in zip(texts, references, strict=True)
        ]
        return {"exact_match": sum(hits) / max(len(hits), 1)}

    def signature(self, references: Sequence[Sequence[str]]) -> str:
        return "exact match with any reference|case:mixed|white space:one"


def distance(found: Sequence[Any], wanted: Sequence[Any]) -> int:
    """How many insertions, deletions and replacements make one sequence the other.

    Args:
      found: items that can be compared.
      wanted: likewise.

    Returns:
      The fewest that do.

    >>> distance("sitting", "kitten")
    3

    Levenshtein, Binary codes capable of correcting deletions, insertions, and reversals, 1966.
    """
    row = list(range(len(wanted) + 1))
    for number, item in enumerate(found, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(wanted, 1):
            edits = min(row[place] + 1, row[place - 1] + 1, diagonal + (item != other))
            diagonal, row[place] = row[place], edits
    return row[-1]
