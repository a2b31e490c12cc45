"""BLEU against sacrebleu called directly, ROUGE against rouge-score."""

import numpy as np
import pytest
import sacrebleu

from recattn_jax.tasks.text_scores import Bleu, ExactMatch, Rouge
from tests.oracles import oracle

WORDS = ("the", "a", "cat", "dog", "sat", "on", ",", ".", "The-cat", "naïve", "東京", "x1", "don't")


def sentences(seed, count=30, least=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(least, 12))) for _ in range(count)]


TEXTS = {
    "random": (sentences(0), [[a] for a in sentences(1, least=1)]),
    "several references": (
        sentences(2),
        [[a, b, c] for a, b, c in zip(*(sentences(s, least=1) for s in (3, 4, 5)), strict=True)],
    ),
    "near": ([s + " cat" for s in sentences(6)], [[s + " dog"] for s in sentences(6)]),
    "empty hypotheses": (["", "", "the cat"], [["the cat"], ["a"], ["the cat"]]),
    "all empty": (["", ""], [["a b"], ["c"]]),
    "single words": (["cat", "dog"], [["cat"], ["cat"]]),
    "repeats": (["the the the the the the the"], [["the cat is on the mat"]]),
    "ties": (["a b c d", "b a"], [["a b", "c d"], ["a b", "b a"]]),
    "another script": (["東京 は 晴れ", "Привет, мир"], [["東京 は 雨"], ["Привет мир"]]),
    "accents": (["un café à la crème"], [["Un cafe à la crème !"]]),
    "punctuation alone": (["...", "?!"], [["..."], ["!"]]),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("tokenize", ["13a", "none"])
def test_bleu_is_sacrebleus(name, tokenize):
    texts, references = TEXTS[name]
    streams = [list(stream) for stream in zip(*references, strict=True)]
    wanted = sacrebleu.corpus_bleu(texts, streams, tokenize=tokenize, lowercase=True, force=True)
    found = Bleu(tokenize, lowercase=True)(texts, references)
    assert found == {"bleu": pytest.approx(wanted.score)}


def test_bleu_takes_as_many_references_as_there_are():
    """A missing reference is none, not an empty one: the same as one that is there twice."""
    texts = ["the cat sat on the mat", "a dog ran on"]
    uneven = [["the cat sat on a mat"], ["the dog ran on", "a dog ran off"]]
    even = [uneven[0] * 2, uneven[1]]
    bleu = Bleu("13a", lowercase=False)
    assert bleu(texts, uneven)["bleu"] == pytest.approx(bleu(texts, even)["bleu"])
    assert bleu(texts, uneven)["bleu"] > bleu(texts, [some[:1] for some in uneven])["bleu"]


def test_the_signature_says_what_was_done():
    parts = Bleu("13a", lowercase=True).signature([["a"], ["b"]]).split("|")
    assert parts[0] == "BLEU nrefs:1"
    assert {"case:lc", "tok:13a", f"version:{sacrebleu.__version__}"} <= set(parts)
    assert "nrefs:var" in Bleu("none", lowercase=False).signature([["a"], ["b", "c"]])
    assert "best of 2" in Rouge().signature([["a"], ["b", "c"]])


@pytest.mark.parametrize("name", TEXTS)
def test_rouge_equals_rouge_score(name):
    scorer = oracle("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    texts, references = TEXTS[name]
    each = [scorer.score_multi(some, text) for text, some in zip(texts, references, strict=True)]
    found = Rouge()(texts, references)
    for kind in ("rouge1", "rouge2", "rougeL"):
        wanted = 100 * np.mean([score[kind].fmeasure for score in each])
        assert found[kind] == pytest.approx(wanted), kind


def test_exact_match_is_of_words():
    texts = ["I_TURN I_JUMP", "I_TURN", "", "I_turn", "I_TURN I_JUMP "]
    references = [["I_TURN  I_JUMP"], ["I_JUMP", "I_TURN"], ["a"], ["I_TURN"], ["I_TURN_I_JUMP"]]
    assert ExactMatch()(texts, references) == {"exact_match": 2 / 5}


@pytest.mark.parametrize("score", [Bleu("13a", lowercase=False), Rouge(), ExactMatch()])
def test_a_missing_reference_is_refused(score):
    with pytest.raises((ValueError, EOFError)):
        score(["a", "b"], [["a"]])
