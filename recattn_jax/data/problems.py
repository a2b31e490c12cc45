"""Small problems that tell architectures apart, each made of a length and random numbers.

A problem writes its question as symbols, asks at some steps, and knows the answers. The regular and
context-free ones are those of Delétang et al., "Neural networks and the Chomsky hierarchy", arXiv
2207.02098, 2022: a question, and then as many blanks as there are answers.
"""

import abc
import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from recattn_jax.errors import UserError


class Question(NamedTuple):
    """One example.

    Args:
        symbols: int[T], what is read.
        asked: int[Q], at which steps something is asked; growing.
        answers: int[Q], what is right there.
    """

    symbols: Int[np.ndarray, "T"]
    asked: Int[np.ndarray, "Q"]
    answers: Int[np.ndarray, "Q"]


class Draws:
    """Random numbers that no release of NumPy changes.

    Args:
        key: 128 bits.
    """

    def __init__(self, key: int):
        # The raw stream of a bit generator, unlike what NumPy makes of it, never changes.
        self._bits = np.random.Philox(key=key)

    def below(self, high: int, count: int) -> Int[np.ndarray, "count"]:
        """Returns numbers from 0 to below `high`, each as likely."""
        return (self._bits.random_raw(count) % np.uint64(high)).astype(np.int64)

    def uniform(self, count: int) -> np.ndarray:
        """Returns float64 numbers from 0 to below 1."""
        return (self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53

    def some(self, high: int, count: int) -> Int[np.ndarray, "count"]:
        """Returns different numbers from 0 to below `high`, in random order."""
        if count > high:
            raise ValueError(f"{count} different numbers below {high}")
        found: dict[int, None] = {}
        while len(found) < count:  # of many thousands mostly at once; sorting all takes far longer
            found |= dict.fromkeys(self.below(high, count).tolist())
        return np.array(list(found)[:count])


class Problem(abc.ABC):
    """Abstract: questions of any length."""

    @property
    @abc.abstractmethod
    def symbols(self) -> int:
        """How many symbols questions are written in, the blank among them."""

    @property
    @abc.abstractmethod
    def answers(self) -> int:
        """How many different answers there are."""

    @abc.abstractmethod
    def sizes(self, length: int) -> tuple[int, int]:
        """Returns how many steps and answers a question of this length has at most."""

    @abc.abstractmethod
    def make(self, draws: Draws, length: int) -> Question:
        """Makes a question.

        Args:
            draws: where its random numbers come from.
            length: of what is asked about, 1 or more.
        """


class _Spelled(Problem):
    """Abstract: the question, then a blank for each answer."""

    letters: int
    """How many symbols there are besides the blank, which comes after them."""

    @property
    def symbols(self) -> int:
        return self.letters + 1

    @property
    def answers(self) -> int:
        return self.letters

    def sizes(self, length: int) -> tuple[int, int]:
        return length + self.count(length), self.count(length)

    def count(self, length: int) -> int:
        """Returns how many answers there are."""
        del length
        return 1

    @abc.abstractmethod
    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the question and its answers."""

    def make(self, draws: Draws, length: int) -> Question:
        asked, answers = self.ask(draws, length)
        blanks = np.full(len(answers), self.letters)
        steps = len(asked) + np.arange(len(answers))
        return Question(np.concatenate([asked, blanks]), steps, np.asarray(answers))


@dataclasses.dataclass(frozen=True)
class Parity(_Spelled):
    """Whether the ones in a string of zeros and ones are odd in number (regular).

    Example:
        Parity().make(Draws(0), 7).answers        # [0] or [1]
    """

    letters = 2

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        bits = draws.below(2, length)
        return bits, bits.sum(keepdims=True) % 2


@dataclasses.dataclass(frozen=True)
class EvenPairs(_Spelled):
    """Whether neighbours differ at an odd number of places, so the ends do (regular)."""

    letters = 2

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        bits = draws.below(2, length)
        return bits, np.abs(np.diff(bits)).sum(keepdims=True) % 2


@dataclasses.dataclass(frozen=True)
class CycleNavigation(_Spelled):
    """Where steps on a cycle of five places lead: stay, on, or back (regular)."""

    letters = 3

    @property
    def answers(self) -> int:
        return 5

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        moves = draws.below(3, length)
        return moves, np.array([0, 1, -1])[moves].sum(keepdims=True) % 5


@dataclasses.dataclass(frozen=True)
class ModularArithmetic(_Spelled):
    """The value modulo 5 of digits joined by +, - and *, products first (regular).

    A question of an even length is one shorter, for it ends in a digit.
    """

    letters = 5 + 3

    @property
    def answers(self) -> int:
        return 5

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        digits = draws.below(5, (length + 1) // 2)
        signs = draws.below(3, len(digits) - 1)  # plus, minus, times
        asked = np.zeros(2 * len(digits) - 1, np.int64)
        asked[::2], asked[1::2] = digits, 5 + signs
        total, term = 0, int(digits[0])
        for sign, digit in zip(signs, digits[1:], strict=True):
            if sign == 2:
                term = term * int(digit) % 5
            else:
                total, term = total + term, int(digit) if sign == 0 else -int(digit)
        return asked, np.array([(total + term) % 5])


@dataclasses.dataclass(frozen=True)
class Reverse(_Spelled):
    """A string of zeros and ones, from its end (context-free)."""

    letters = 2

    def count(self, length: int) -> int:
        return length

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        bits = draws.below(2, length)
        return bits, bits[::-1]


@dataclasses.dataclass(frozen=True)
class Duplicate(_Spelled):
    """A string of zeros and ones, twice (context-sensitive)."""

    letters = 2

    def count(self, length: int) -> int:
        return 2 * length

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        bits = draws.below(2, length)
        return bits, np.concatenate([bits, bits])


@dataclasses.dataclass(frozen=True)
class BucketSort(_Spelled):
    """Digits from 0 to 4, sorted (context-sensitive)."""

    letters = 5

    def count(self, length: int) -> int:
        return length

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        digits = draws.below(5, length)
        return digits, np.sort(digits)


@dataclasses.dataclass(frozen=True)
class BinaryAddition(_Spelled):
    """The sum of two binary numbers, the lowest bit first (context-sensitive).

    The sign between them is one of `length` steps. There are as many answers: the bits of the sum,
    and then stops. Of one or two steps the question is a sign with what bits there are.
    """

    letters = 3  # 0, 1, plus; as an answer the last is the stop

    def count(self, length: int) -> int:
        return length

    def ask(self, draws: Draws, length: int) -> tuple[np.ndarray, np.ndarray]:
        sign = int(draws.below(max(1, length - 2), 1)[0]) + (length > 2)
        asked = draws.below(2, length)
        first, second = asked[:sign].copy(), asked[sign + 1 :].copy()
        asked[sign] = 2
        total = _number(first) + _number(second)
        answers = np.full(length, 2)
        bits = [total >> place & 1 for place in range(max(1, total.bit_length()))][:length]
        answers[: len(bits)] = bits
        return asked, answers


@dataclasses.dataclass(frozen=True)
class Recall(Problem):
    """Multi-query associative recall: pairs of a key and its value, then keys in random places.

    The length is that of the whole question; the steps after the pairs that ask nothing hold random
    symbols. Nearer places are likelier, by a power law.

    Args:
        vocabulary: symbols; keys are of its first half, without 0, and values of its second.
        pairs: how many there are, each asked once.

    Raises:
        UserError: if there are fewer keys than pairs; from `sizes` and `make`, if the length is too
            short for the pairs.

    Example:
        Recall(vocabulary=8192, pairs=4).make(Draws(0), 64).symbols      # int[64]

    Arora et al., "Zoology", arXiv 2312.04927, 2023.
    """

    vocabulary: int
    pairs: int

    def __post_init__(self) -> None:
        if not 1 <= self.pairs < self.vocabulary // 2:
            raise UserError(
                f"pairs={self.pairs} of vocabulary={self.vocabulary}, which has"
                f" {max(0, self.vocabulary // 2 - 1)} keys; expected 1 or more, and as many keys"
            )

    @property
    def symbols(self) -> int:
        return self.vocabulary

    @property
    def answers(self) -> int:
        return self.vocabulary

    def sizes(self, length: int) -> tuple[int, int]:
        if length < 4 * self.pairs:
            raise UserError(f"length={length}: {self.pairs} pairs need {4 * self.pairs} or more")
        return length, self.pairs

    def make(self, draws: Draws, length: int) -> Question:
        self.sizes(length)
        half, told = self.vocabulary // 2, 2 * self.pairs
        places = (length - told) // 2
        keys = 1 + draws.some(half - 1, self.pairs)
        values = half + draws.below(self.vocabulary - half, self.pairs)
        symbols = draws.below(self.vocabulary, length)
        symbols[:told:2], symbols[1:told:2] = keys, values
        # Without repetition: those that would come first, each at its own rate.
        rates = np.arange(1, places + 1) ** (0.01 - 1.0)
        first = np.argsort(-np.log(draws.uniform(places) + 2.0**-54) / rates)
        asked = told + 2 * first[: self.pairs]
        symbols[asked] = keys
        order = np.argsort(asked)
        return Question(symbols, asked[order], values[order])


@dataclasses.dataclass(frozen=True)
class CopyMemory(Problem):
    """Ten digits, a wait of `length` blanks, and the ten digits again.

    Example:
        CopyMemory().make(Draws(0), 100).symbols      # int[120]

    Hochreiter and Schmidhuber, "Long short-term memory", 1997; as in Arjovsky et al., "Unitary
    evolution recurrent neural networks", arXiv 1511.06464, 2015.
    """

    digits = 8
    items = 10

    @property
    def symbols(self) -> int:
        return self.digits + 2

    @property
    def answers(self) -> int:
        return self.digits

    def sizes(self, length: int) -> tuple[int, int]:
        return length + 2 * self.items, self.items

    def make(self, draws: Draws, length: int) -> Question:
        digits = draws.below(self.digits, self.items)
        steps, _ = self.sizes(length)
        symbols = np.full(steps, self.digits)
        symbols[: self.items] = digits
        asked = steps - self.items + np.arange(self.items)
        symbols[asked[0] - 1] = self.digits + 1  # now
        return Question(symbols, asked, digits)


def _number(bits: np.ndarray) -> int:
    return sum(1 << place for place, bit in enumerate(bits.tolist()) if bit)
