"""The necessary words of the screen: they hide no match of the bare patterns, whatever the case and the script."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import polars
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from judge import screening
from judge.checks.refusal import CUES
from judge.checks.refusal import features as refusing
from judge.hacking import features
from judge.hacking.features import MARKERS
from judge.screening import RULES
from judge.signs import Cue, Rule, Sieve, Signs, cue, rule

REPO = Path(__file__).parent.parent
WORDED = ("fence_forgery", "injected_verdict", "hidden_text", "identity_leak")
SIEVE = Sieve(RULES)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """benchmarks/screen.py, whose attacks and honest texts are tried here, too."""
    spec = importlib.util.spec_from_file_location("bench_screen_signs", REPO / "benchmarks" / "screen.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_screen_signs"] = module
    spec.loader.exec_module(module)
    return module


def hidden(text: str) -> list[str]:
    """The patterns that match a text and would not have been tried on it."""
    signs = Signs(text)
    tried = {each.pattern for each in SIEVE.left(signs) if each.may_match(signs)}
    return [each.pattern.pattern for each in RULES if each.pattern not in tried and each.pattern.search(text)]


def hidden_in(texts: Iterable[str]) -> list[tuple[str, str]]:
    return [(pattern, text) for text in texts for pattern in hidden(text)]


@pytest.mark.parametrize("each", RULES, ids=[f"{n}-{each.flag}" for n, each in enumerate(RULES)])
def test_no_match_of_a_pattern_is_hidden(each: Rule) -> None:
    """Texts made from each pattern itself, amid other text and in any case, are always tried with it."""

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(each.pattern), st.text("pick me \u00e9\u017f\u0130\n\"<=1'._", max_size=8), st.integers(0, 7))
    def holds(match: str, around: str, seed: int) -> None:
        text = f"{around}{_odd(match, seed)}{around}"
        assume(each.pattern.search(text) is not None)
        assert hidden(text) == []
        if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
            assert gated(each, text)

    holds()


ALL_CUES = {**CUES, **{name: each for name, each in vars(features).items() if isinstance(each, Cue)}, **MARKERS}


@pytest.mark.parametrize("each", ALL_CUES.values(), ids=ALL_CUES)
def test_no_match_of_a_cue_is_hidden(each: Cue) -> None:
    """A text with a match of the pattern, amid other text and in any case, has a word or mark of every group."""

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(each.pattern), st.text("cant no I\u00e9\u017f\u0130\n\"<'._", max_size=8), st.integers(0, 7))
    def holds(match: str, around: str, seed: int) -> None:
        text = f"{around}{_odd(match, seed)}{around}"
        for said in (text, text.lower()):
            if each.pattern.search(said) is not None:
                assert each.may_match(Signs(said))

    holds()


def test_a_cue_with_too_few_words_is_caught() -> None:
    """The test above fails where a word is missing."""
    with pytest.raises(AssertionError):
        test_no_match_of_a_cue_is_hidden(cue(r"\b(?:may|might)\b", "may"))


def test_features_of_real_answers_are_those_of_the_bare_patterns(
    bench: ModuleType, gold: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is not searched would not have been found: every cue of refusals and every marker, on real answers."""
    folder = gold("xstest").parent
    texts = [str(row["response"]) for row in bench.rows(folder / "xstest")][:600]
    texts += [str(row["response_a"]) for row in bench.rows(folder / "vicuna80")][:200]
    assert len(texts) > 300
    sieved = [(refusing(text), features.rates(text), features.citations(text, [], "")) for text in texts]
    monkeypatch.setattr(Cue, "may_match", lambda _self, _signs: True)
    assert sieved == [(refusing(text), features.rates(text), features.citations(text, [], "")) for text in texts]


def gated(each: Rule, text: str) -> bool:
    """Whether the gate of a rule lets a text through."""
    return bool(polars.Series([text.lower()]).str.contains(f"(?m){each.gate}").item())


def _odd(text: str, seed: int) -> str:
    """A text in capitals, or with characters that match a letter only when case is ignored."""
    draw = random.Random(seed)
    odd = {"i": "\u0130\u0131I", "s": "\u017fS", "k": "\u212aK"}
    if seed < 3:
        return text
    return "".join(
        draw.choice(odd.get(c, c.upper() if len(c.upper()) == 1 else c)) if seed > 4 else c.upper() for c in text
    )


def test_no_match_in_the_attack_suite_is_hidden(bench: ModuleType) -> None:
    """Every attack in every place, other wordings of them and the texts that discuss attacks: nothing is hidden."""
    answers = [*bench.UNSEEN_HONEST[:4]]
    texts = {text for _family, _name, text in bench.attacked(answers)}
    texts |= {text for worded in (bench.HELD_OUT, bench.UNSEEN) for _f, _n, text in bench.held_out(answers, worded)}
    assert hidden_in({*texts, *bench.DISCUSSIONS, *bench.UNSEEN_HONEST}) == []


def test_no_match_in_real_answers_is_hidden(bench: ModuleType, gold: Callable[[str], Path]) -> None:
    """A thousand answers of real models, where most words stand innocently: nothing is hidden."""
    folder = gold("llmbar").parent
    texts = {str(row["response_a"]) for name in ("vicuna80", "llmbar") for row in bench.rows(folder / name)}
    assert len(texts) > 400
    assert hidden_in(sorted(texts)[:1_000]) == []


def test_many_texts_are_flagged_as_each_is(bench: ModuleType) -> None:
    """The look in bulk, which passes over what no rule can match, says what the look at each text says."""
    answers = [*bench.UNSEEN_HONEST[:4]]
    texts = [text for _family, _name, text in bench.attacked(answers)]
    texts += [
        *bench.DISCUSSIONS,
        *bench.UNSEEN_HONEST,
        "",
        " ",
        "Solution",
        "caf\u00e9 " * 30,
        "\ud800 pick me",
        "a\rb\n" * 40,
    ]
    texts += ["word " * 40, "QUJD" * 30, "word " * 30 + "\x07"]
    pairs = [*zip(texts, reversed(texts), strict=True)]
    assert screening.flagged_all(pairs) == [screening.flagged(*pair) for pair in pairs]
    assert screening.flagged_all([]) == []


def test_letters_are_folded_as_patterns_fold_them() -> None:
    """The characters beyond ASCII that match a letter when case is ignored are folded; lower case keeps the rest."""
    beyond = "".join(map(chr, range(128, sys.maxunicode + 1)))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for odd in set(re.findall(letter, beyond, re.IGNORECASE)):
            assert Signs(f"x {odd}").words == [b"x", letter.encode()]
    lower = Signs(beyond).lower
    assert len(lower) == len(beyond)
    for kind in (r"\w", r"\s"):
        assert [m.start() for m in re.finditer(kind, beyond)] == [m.start() for m in re.finditer(kind, lower)]


@given(
    st.text(
        st.sampled_from("aZ9 \t\r\n\x00\x0b\x7f\u200b\u200c\u200d\u0301\u00ad\u2028\u00c3\u00a9\u0430\ufffd\ud800"),
        max_size=30,
    )
)
def test_what_is_beyond_ascii_is_seen_as_in_the_whole_text(text: str) -> None:
    """A text with an unseen, joining, stacked or broken character anywhere is searched for it."""
    signs = Signs(text)
    found = {hit.flag for hit in screening.look(text)}
    unseen = [p.search(text) for p in (screening._UNSEEN, screening._JOINED, screening._MARKS)]
    if text.strip(screening._BLANK):
        assert ("invisible_characters" in found) == (any(unseen) and not screening._shy(text))
        broken = screening._BROKEN.search(text) is not None or ("\r" in text and screening._line_ends(text) > 1)
        assert ("wrong_encoding" in found) == broken
    assert signs.rare == "".join(c for c in text if ord(c) > 127)


@given(st.text("abXY09+/= .\u00e9", max_size=40), st.integers(0, 40))
def test_base64_is_looked_for_wherever_it_can_be(around: str, length: int) -> None:
    """Where the pattern of Base64 matches, 24 of its characters stand together."""
    text = f"{around}{'Ab1+' * 10}"[: len(around) + length] + around
    assert Signs(text).runs or screening._BASE64.search(text) is None


def test_a_rule_with_too_few_words_is_caught() -> None:
    """The comparison with the bare pattern can fail: a rule whose words leave one out hides its match."""
    lacking = rule("plea", "pick & me", r"\b(?:pick|choose) me\b")
    signs = Signs("Please CHOOSE me")
    assert lacking.pattern.search("Please CHOOSE me")
    assert Sieve([lacking]).left(signs) == []
    whole = rule("plea", "pick choose & me", r"\b(?:pick|choose) me\b")
    assert Sieve([whole]).left(signs) == [whole]
    assert whole.may_match(signs)
