"""Training rows that repeat a gold, eval or frozen prompt are found: exactly, nearly, as a part; nothing else is."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.contamination import Clash, References, _shingles, _signatures, _words, compared_text, distinct

GOLD = "Please explain why the moon is sometimes visible during the day, and how its phases come about."


def held(*texts: str) -> References:
    references = References()
    references.add("gold.jsonl", [(f"g{place}", text) for place, text in enumerate(texts)])
    return references


def only(references: References, text: str) -> Clash | None:
    found = list(references.clashes([("other", "A quite unrelated matter, indeed."), ("row", text)]))
    assert [clash.row for clash in found] in ([], ["row"])
    return found[0] if found else None


@pytest.mark.parametrize(
    "text",
    [
        GOLD,
        GOLD.upper(),
        "  please explain WHY the moon is sometimes\n\nvisible during the day -- and how its phases come about!!",
    ],
)
def test_the_same_words_are_exact(text: str) -> None:
    """Case, spacing and punctuation hide nothing."""
    assert only(held("Something else entirely", GOLD), text) == Clash("row", "g1", "gold.jsonl", "exact", 1.0)


def test_a_changed_word_or_two_is_near_with_its_true_similarity() -> None:
    """The similarity that is reported is the Jaccard of the 3-word shingles, computed and not estimated."""
    text = GOLD.replace("sometimes", "often")
    shingles = [
        {tuple(words[at : at + 3]) for at in range(len(words) - 2)}
        for words in ([word.strip(",.").lower() for word in side.split()] for side in (GOLD, text))
    ]
    jaccard = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    references = held(GOLD)
    references.near = 0.5
    found = only(references, text)
    assert found is not None
    assert (found.how, found.similarity) == ("near", pytest.approx(jaccard))


def test_a_prompt_inside_a_longer_one_is_contained() -> None:
    """A gold prompt with a long text around it is found although the whole is not alike."""
    around = " ".join(f"filler{place}" for place in range(200))
    found = only(held(GOLD), f"{around} {GOLD} {around}")
    assert found is not None
    assert (found.how, found.similarity) == ("contained", 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?!",
        "moon",
        "Please explain why the sky is blue.",
        "Explain how the phases of the business cycle come about, and why prices move in the day.",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    """Short, blank and merely related prompts are no finding."""
    assert only(held(GOLD, "hello there"), text) is None


def test_scripts_without_spaces_are_compared_by_character() -> None:
    """A Chinese prompt with one character changed is near; another one is not."""
    gold = "请解释一下为什么月亮有时候在白天也能看得见以及它的相位是怎样形成的谢谢你的回答"
    assert only(held(gold), gold.replace("谢谢", "多谢")) is not None
    assert only(held(gold), "今天的天气非常好我们一起去公园散步然后吃一顿美味的午餐吧") is None


def test_a_shared_system_text_makes_nothing_alike() -> None:
    """Two conversations with one system text and other questions are two; the user's turns are compared."""
    system = {"role": "system", "content": GOLD}
    one, other = (compared_text((system, {"role": "user", "content": text})) for text in ("what is it", "who was that"))
    assert (one, other) == ("what is it", "who was that")
    assert only(held(one), other) is None


@given(st.lists(st.text(max_size=60), min_size=1, max_size=20))
def test_every_text_finds_itself_and_blocks_do_not_matter(texts: list[str]) -> None:
    """Any text with a word in it finds a reference with the same words; alone or in a block is the same."""
    references = References()
    references.add("r", [(str(place), text) for place, text in enumerate(texts)])
    counts = _words(texts).counts
    together = {clash.row: clash.how for clash in references.clashes((str(at), text) for at, text in enumerate(texts))}
    for place, text in enumerate(texts):
        alone = [clash.how for clash in references.clashes([(str(place), text)])]
        assert alone == (["exact"] if counts[place] and text.strip() else [])
        assert together.get(str(place)) == (alone[0] if alone else None)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=40), st.integers(0, 10**6))
def test_shingles_are_runs_of_words(words: list[str], salt: int) -> None:
    """As many distinct shingles as distinct runs of three words, none over the border of two texts."""
    texts = [" ".join(words), "x y z", f"n{salt}"]
    hashes, owner = _shingles(_words(texts), 3)
    runs = {tuple(words[at : at + 3]) for at in range(len(words) - 2)}
    assert len(set(hashes[owner == 0].tolist())) == len(runs)
    assert Counter(owner.tolist())[1] == 1
    assert Counter(owner.tolist())[2] == 1


def test_equal_minhashes_estimate_jaccard() -> None:
    """The share of equal hashes of two signatures is the Jaccard similarity, within its sampling error."""
    rng = random.Random(0)
    errors = []
    for _ in range(40):
        words = [f"w{rng.randrange(10**6)}" for _ in range(60)]
        changed = list(words)
        for at in rng.sample(range(60), rng.randrange(1, 12)):
            changed[at] = "changed"
        sets = [{tuple(side[at : at + 3]) for at in range(58)} for side in (words, changed)]
        jaccard = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        signatures = _signatures(_words([" ".join(words), " ".join(changed)]))
        errors.append(float((signatures[0] == signatures[1]).mean()) - jaccard)
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.07


def test_planted_near_duplicates_are_found_among_many() -> None:
    """Of 400 near-duplicates at similarity 0.73 in 8,000 rows at least 99% are found, and no other row is."""
    rng = random.Random(1)
    text = lambda size: " ".join(f"w{rng.randrange(3000)}" for _ in range(size))
    gold = [text(60) for _ in range(400)]
    references = held(*gold)
    rows = [(f"clean{place}", text(60)) for place in range(7_600)]
    for place, original in enumerate(gold):
        words = original.split()
        for at in (10, 30, 50):
            words[at] = "changed"
        rows.insert(place * 17, (f"planted{place}", " ".join(words)))
    found = list(references.clashes(rows))
    assert {clash.row[:7] for clash in found} == {"planted"}
    assert len(found) >= 396
    assert all(clash.reference == f"g{clash.row[7:]}" for clash in found)


def test_distinct_texts_are_those_that_repeat_no_earlier_one() -> None:
    """Equal and near texts count once, blank ones never; the first of each kind stays."""
    near = GOLD.replace("sometimes visible during", "sometimes visible in")
    texts = ["", GOLD, "what is it", GOLD.upper(), "What is it?", "who was that", f"{GOLD} Thanks a lot!", near, " ?"]
    assert distinct(texts) == [1, 2, 5, 7]
    assert distinct(texts, near=0.6) == [1, 2, 5]
    assert distinct([]) == []


def test_the_result_is_that_of_another_implementation() -> None:
    """We find exactly the rows that are near; what datasketch finds among the same shingles is a part of them."""
    datasketch = pytest.importorskip("datasketch", reason="an oracle: pip install datasketch")
    rng = random.Random(2)
    gold = [" ".join(f"w{rng.randrange(2000)}" for _ in range(40)) for _ in range(100)]
    rows = []
    for place in range(300):
        words = gold[place % 100].split()
        for at in rng.sample(range(40), rng.choice([1, 2, 6, 12])):
            words[at] = "changed"
        rows.append((str(place), " ".join(words)))

    def sketch(text: str) -> object:
        found = datasketch.MinHash(num_perm=256)
        words = text.split()
        found.update_batch([" ".join(words[at : at + 3]).encode() for at in range(len(words) - 2)])
        return found

    theirs = datasketch.MinHashLSH(threshold=0.7, num_perm=256)
    for place, text in enumerate(gold):
        theirs.insert(f"g{place}", sketch(text))
    near = {row for row, text in rows if theirs.query(sketch(text))}
    ours = {clash.row for clash in held(*gold).clashes(rows)}
    truth = {row for row, text in rows if _jaccard(text, gold[int(row) % 100]) >= 0.7}
    assert ours == truth
    assert near & truth <= ours
    assert len(near & truth) > len(truth) / 2


def _jaccard(one: str, other: str) -> float:
    sets = [{tuple(side.split()[at : at + 3]) for at in range(len(side.split()) - 2)} for side in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])
