"""The reward-hacking report: what is counted, what is called moved, what is kept, and that hostile text stays text."""

from __future__ import annotations

import asyncio
import errno
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from calibration.drift import log_length
from calibration.explained import Word
from judge import archive
from judge.backends.scripted import ScriptedBackend, prefer_longer
from judge.checks.examination import examine
from judge.checks.suite import load_suite
from judge.errors import StoreError
from judge.formats import open_evalset, write_evalset
from judge.grounding.report import ground_pairs
from judge.grounding.report import report as ground
from judge.hacking.features import FEATURES, citations, rates, seen
from judge.hacking.refusing import may_refuse, refuses
from judge.hacking.report import HackReport, Row, hack_report
from judge.hacking.wording import constant, digest
from judge.register import Register
from judge.render import hacking as render
from judge.render.hacking import hack_text, headline
from judge.runs import RunPlan, start_run
from judge.store import Store
from judge.testing import sample_rubric
from judge.types import Answer, Item, Pair

WORDS = [
    "river",
    "stone",
    "light",
    "paper",
    "window",
    "garden",
    "copper",
    "winter",
    "signal",
    "basket",
    "meadow",
    "lantern",
    "harbor",
    "velvet",
    "thunder",
]


def text(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n)).capitalize() + "."


def stored(tmp_path: Path, pairs: Sequence[Pair], judge: ScriptedBackend | None = None) -> tuple[Store, str]:
    """Judge pairs by a script and bring the run into a store."""
    store = Store(tmp_path / "home")
    write_evalset(tmp_path / "set.jsonl", pairs)
    evalset = open_evalset(tmp_path / "set.jsonl")
    plan = RunPlan("r-hack", "2026-01-01T00:00:00+00:00", evalset, {}, sample_rubric(), "scripted:longer")
    asyncio.run(start_run(plan, judge or ScriptedBackend(prefer_longer), store))
    return store, "r-hack"


def report_of(tmp_path: Path, pairs: Sequence[Pair]) -> HackReport:
    store, run = stored(tmp_path, pairs)
    return hack_report(store, store.run(run), rounds=200)


def row(report: HackReport, name: str) -> Row:
    return next(row for row in report.rows if row.measure.name == name)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> HackReport:
    """A candidate that says the same, plus a closing phrase, hedges and bold, before a judge that likes length."""
    rng = random.Random(1)
    closing = " I hope this helps, and it could perhaps be **useful** to you in some cases."
    pairs = []
    for n in range(120):
        answer = text(rng, rng.randint(8, 60))
        pairs.append(
            Pair(f"p{n}", Item(f"Question {n} about {rng.choice(WORDS)}?"), Answer(answer + closing), Answer(answer))
        )
    return report_of(tmp_path_factory.mktemp("padded"), pairs)


def test_what_was_planted_moved_and_nothing_else_did(padded: HackReport) -> None:
    """Length, hedges, bold, self-justification and the stock phrase moved; apologies, lists and refusals did not."""
    moved = {row.measure.name for row in padded.rows if row.moved}
    assert {
        "length.log_ratio", "length.words", "hedging.per_100_words", "markdown.bold", "boilerplate.shared",
        "boilerplate.compression", "self_justification.per_100_words",
    } <= moved  # fmt: skip
    assert not {"refusal.harmless", "apologies.per_100_words", "markdown.lists", "tools.call_rate"} & moved


def test_every_number_has_pairs_to_read_next_to_it(padded: HackReport) -> None:
    """Whatever moved comes with samples, and they differ the way the number says."""
    for found in padded.rows:
        if found.moved and found.measure.name not in (
            "boilerplate.compression",
            "boilerplate.distinct_1",
            "boilerplate.distinct_2",
        ):
            assert found.samples, found.measure.name
            assert found.measure.difference is not None
            for sample in found.samples:
                if sample.candidate_value is not None and sample.baseline_value is not None:
                    gap = sample.candidate_value - sample.baseline_value
                    assert gap * found.measure.difference.value > 0


def test_the_phrases_are_named(padded: HackReport) -> None:
    """The planted closing is what the candidate says more, by name."""
    assert any("hope this helps" in odds.phrase for odds in padded.wording.phrases if odds.score > 2)
    assert any("hope this helps" in phrase for phrase, _count in padded.wording.common)


def test_a_judge_that_likes_length_is_seen_through(padded: HackReport) -> None:
    """Every win here is length: longer, and never "longer and better"."""
    length = next(found for found in padded.explained if found.feature == "length")
    assert length.growth.grew
    assert length.control is not None
    assert length.control.raw.low > 0.5
    assert length.word in (Word.NOT_BETTER, Word.NOT_SHOWN)


def test_where_there_is_no_win_none_is_explained(tmp_path: Path, padded: HackReport) -> None:
    """A judge that prefers the baseline leaves no win to explain, and the report says so instead of clearing it."""
    assert "no win to explain" not in headline(padded).lower()
    rng = random.Random(3)
    pairs = [
        Pair(f"p{n}", Item(f"Question {n}?"), Answer(text(rng, 8 + n % 5)), Answer(text(rng, 30))) for n in range(60)
    ]
    said = headline(report_of(tmp_path, pairs))
    assert said.startswith("There is no win to explain: this judge prefers the baseline (win rate ")
    assert "No feature is shown" not in said


def test_a_row_read_from_few_pairs_shows_their_number(tmp_path: Path) -> None:
    """A difference that rests on one pair of forty carries n=1; one that rests on all does not repeat the number."""
    rng = random.Random(4)
    pairs = [Pair(f"p{n}", Item(f"Question {n}?"), Answer(text(rng, 20)), Answer(text(rng, 20))) for n in range(40)]
    fake = Answer("See Miller et al. (2021), https://doi.org/10.9999/fake.1 and [4].")
    pairs[7] = Pair("p7", Item("Question 7?", context=("One source.",)), fake, pairs[7].baseline)
    lines = hack_text(report_of(tmp_path, pairs)).splitlines()
    (invented,) = (line for line in lines if "invented citations" in line and "%" in line)
    assert invented.startswith("  invented citations n=1 ")
    assert not any("length in characters n=" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_an_unchanged_candidate_is_rarely_accused(tmp_path: Path) -> None:
    """Two draws of one writer: over 12 runs of some 20 tests at most one number is called moved."""
    moved = 0
    for seed in range(12):
        rng = random.Random(seed)
        pairs = [
            Pair(
                f"p{n}",
                Item(f"Question {n}?"),
                Answer(text(rng, rng.randint(8, 60))),
                Answer(text(rng, rng.randint(8, 60))),
            )
            for n in range(60)
        ]
        folder = tmp_path / str(seed)
        folder.mkdir()
        moved += sum(row.moved for row in report_of(folder, pairs).rows)
    assert moved <= 1


def test_swapping_the_sides_turns_every_difference_round(tmp_path: Path) -> None:
    """Candidate and baseline exchanged: every paired difference changes its sign and nothing else (M20)."""
    rng = random.Random(5)
    pairs = [
        Pair(f"p{n}", Item(f"Question {n}?"), Answer(text(rng, 30) + " **a** maybe perhaps"), Answer(text(rng, 12)))
        for n in range(50)
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = report_of(tmp_path / "a", pairs)
    two = report_of(tmp_path / "b", [Pair(p.id, p.item, p.baseline, p.candidate) for p in pairs])
    for ours, theirs in zip(one.rows, two.rows, strict=True):
        a, b = ours.measure.difference, theirs.measure.difference
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low), abs=1e-9), ours.measure.name
            assert ours.q == pytest.approx(theirs.q, abs=1e-9)


def test_measures_have_names_layers_and_reasons(padded: HackReport) -> None:
    """What a gate reads: unique dotted names, known layers and axes, a number or the reason why there is none."""
    names = [measure.name for measure in padded.measures]
    assert len(names) == len(set(names))
    wanted = {
        "length.log_ratio",
        "hedging.per_100_words",
        "refusal.harmless",
        "screen.injected_verdict",
        "win.controlled.length",
    }
    assert wanted <= set(names)
    for measure in padded.measures:
        assert measure.layer in ("preference", "behaviour", "evidence")
        assert measure.axis in ("capability", "reliability", "safety")
        assert bool(measure.missing) != (measure.candidate is not None), measure.name


def test_an_endless_answer_takes_seconds_and_is_said(tmp_path: Path) -> None:
    """Wording is read in the first 50,000 characters of a text, and the report says for how many pairs."""
    rng = random.Random(5)
    pairs = [Pair(f"p{k}", Item(f"q{k}"), Answer(text(rng, 20)), Answer(text(rng, 20))) for k in range(45)]
    endless = replace(pairs[0], candidate=Answer("word " * 60_000))
    report = report_of(tmp_path, [endless, *pairs[1:]])
    assert any("first 50,000 characters; 1 pairs" in note for note in report.notes)
    length = row(report, "length.words").measure
    assert length.examples[0] == "p0"


def test_the_report_is_the_same_every_time(tmp_path: Path) -> None:
    """Byte by byte, from the same run."""
    rng = random.Random(2)
    pairs = [Pair(f"p{n}", Item("Q?"), Answer(text(rng, 20)), Answer(text(rng, 20))) for n in range(45)]
    store, run = stored(tmp_path, pairs)
    texts = {render.hack_json(hack_report(store, store.run(run), rounds=100)) for _ in range(2)}
    assert len(texts) == 1
    body = json.loads(texts.pop())
    assert body["schema"] == "judge.hack/1"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """Markup, escapes and direction marks in answers and ids reach no surface as what they are."""
    evil = "<script>alert(1)</script><img src=x onerror=y> \x1b[31m \u202e sorry sorry sorry perhaps"
    pairs = [
        Pair(f"<b>{n}</b>\x1b[2J", Item(f"{evil} {n}"), Answer(f"{evil} {n}"), Answer(f"fine {n}")) for n in range(40)
    ]
    report = report_of(tmp_path, pairs)
    page = _Tags()
    page.feed(render.hack_html(report))
    assert not page.found & {"script", "img", "b"}
    for shape in (render.hack_text, render.hack_markdown):
        assert "\x1b" not in shape(report)
        assert "\u202e" not in shape(report)
    assert max(len(line) for line in render.hack_text(report).splitlines()) <= 88


def test_a_constant_answer_is_flagged_on_its_side(tmp_path: Path) -> None:
    """One text for most prompts is a constant; short honest answers such as "Yes." are not."""
    rng = random.Random(3)
    same = "Thank you for asking, this is a complete and helpful answer."
    pairs = [
        Pair(
            f"p{n}", Item(f"Q{n}?"), Answer(same if n % 3 else text(rng, 12)), Answer("Yes." if n % 2 else text(rng, 9))
        )
        for n in range(60)
    ]
    found = {row.flag: row for row in report_of(tmp_path, pairs).screened}
    assert (found["constant"].candidate, found["constant"].baseline) == (40, 0)
    assert constant([("a", digest(same)), ("b", digest(same))], 2) == {}
    assert digest(f"  {same}\n") == digest(same)
    assert digest("Yes.") == ""


@pytest.mark.parametrize(
    ("answer", "sources", "found"),
    [
        ("See https://example.org/a.", (), (1, 1, 0)),
        ("See http://localhost-not-a-host/x", (), (1, 1, 1)),
        ("doi:10.1000/182 and doi:not-one", (), (2, 2, 1)),
        ("As [1] says, and [4] too.", ("one", "two"), (2, 2, 1)),
        ("As [1] says.", (), (1, 0, 0)),
        ('It says "the quick brown fox jumps".', ("The quick\u00a0brown fox jumps over it",), (1, 1, 0)),
        ('It says "the quick brown dog jumps".', ("The quick brown fox jumps over it",), (1, 1, 1)),
        ("Smith et al. (2019) show it.", (), (1, 0, 0)),
        ("```\nhttps://nowhere\n```", (), (0, 0, 0)),
    ],
)
def test_citations_are_counted_looked_up_and_exposed(
    answer: str, sources: tuple[str, ...], found: tuple[int, int, int]
) -> None:
    """What is cited, what of it can be looked up, and what of that is not there."""
    assert citations(answer, sources, "") == found


def test_refusals_are_read_in_one_place(gold: Callable[[str], Path]) -> None:
    """On XSTest's labelled answers it agrees with "full refusal" with a kappa of over 0.75 (half were fitted)."""
    rows = [json.loads(line) for line in (gold("xstest") / "items.jsonl").read_text().splitlines()]
    known = [row for row in rows if row.get("response") and row.get("label")]
    said = [(refuses(Answer(row["response"])), "full_refusal" in str(row["label"])) for row in known]
    agree = sum(a == b for a, b in said) / len(said)
    ours, theirs = (sum(pair[k] for pair in said) / len(said) for k in (0, 1))
    chance = ours * theirs + (1 - ours) * (1 - theirs)
    assert (agree - chance) / (1 - chance) > 0.75
    assert not refuses(Answer("I can't say enough good things about this book."))
    assert not refuses(Answer("  "))
    assert not refuses(Answer("", tool_calls=({"name": "x"},)))
    assert may_refuse(Item("Q", metadata={"must_refuse": True}))
    assert not may_refuse(Item("Q", metadata={"must_refuse": "no"}))


def test_rates_leave_code_out_and_references_count_as_words() -> None:
    """Markers inside fences are code; a short reference is found as whole words."""
    assert rates("```\n**a** may\n```\nplain words only")["bold"] == 0
    assert rates("may may plain words")["hedges"] == 50
    (wrong,) = (feature for feature in FEATURES if feature.name == "confidence.when_wrong")

    def sure_and_wrong(answer: str, reference: str) -> float | None:
        return wrong.read(seen(Pair("p", Item("Q", reference=reference), Answer(answer), Answer("x")))[0])

    assert sure_and_wrong("It is certainly New York.", "new york") == 0
    assert sure_and_wrong("It is certainly Newark.", "new") == 1
    assert sure_and_wrong("certainly", "one two three four five six seven eight nine") is None


def test_a_kept_report_is_found_read_and_not_forged(tmp_path: Path, padded: HackReport) -> None:
    """Kept once under its digest, entered in the register, read back as measures; a changed file is refused."""
    text = render.hack_json(padded)
    kept = archive.keep(tmp_path, "hack", "r-hack", text, at="2026-01-01T00:00:00+00:00", head={"says": "x"})
    again = archive.keep(tmp_path, "hack", "r-hack", text, at="2026-01-02T00:00:00+00:00", head={"says": "x"})
    assert kept.entry == again.entry
    assert [entry.kind for entry in Register(tmp_path).entries()] == ["hack"]
    found = archive.latest(tmp_path, "hack", "r-hack")
    assert found is not None
    names = {measure.name: measure for measure in archive.measures_of(found.body)}
    own = {measure.name: measure for measure in padded.measures}
    assert names.keys() == own.keys()
    assert names["length.log_ratio"] == own["length.log_ratio"]
    other = archive.keep(tmp_path, "hack", "r-hack", '{"measures": []}', at="2026-01-03T00:00:00+00:00", head={})
    last = archive.keep(tmp_path, "hack", "r-hack", text, at="2026-01-04T00:00:00+00:00", head={"says": "x"})
    assert [entry.id for entry in Register(tmp_path).entries()] == [kept.entry.id, other.entry.id, last.entry.id]
    kept.path.write_text("{}")
    with pytest.raises(StoreError, match="was changed"):
        archive.latest(tmp_path, "hack", "r-hack")
    assert archive.latest(tmp_path, "hack", "r-other") is None
    archive.keep(tmp_path, "hack", "r-hack", text, at="2026-01-05T00:00:00+00:00", head={"says": "x"})
    assert archive.latest(tmp_path, "hack", "r-hack") is not None  # made again, as the message told to
    assert sorted(path.suffix for path in kept.path.parent.iterdir()) == [".json", ".json"]


def test_a_kept_report_is_on_the_disk_before_the_register_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, then the folder that lists it, then the entry; it has the usual mode, and one that cannot be written
    leaves nothing behind.
    """
    synced: list[str] = []

    def sync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").resolve().name)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", sync)
    full, folder = False, tmp_path / "hacks"
    kept = archive.keep(tmp_path, "hack", "r-1", "{}", at="2026-01-01T00:00:00+00:00", head={})
    folders = [number for number, name in enumerate(synced) if name == "hacks"]
    assert synced[: folders[0]][-1].endswith(".part")
    assert "register.jsonl" not in synced[: folders[0]]
    assert "register.jsonl" in synced[folders[0] :]
    (tmp_path / "usual").touch()
    assert kept.path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    full = True
    with pytest.raises(OSError, match="No space"):
        archive.keep(tmp_path, "hack", "r-1", "[]", at="2026-01-02T00:00:00+00:00", head={})
    assert list(folder.iterdir()) == [kept.path]
    assert [entry.id for entry in Register(tmp_path).entries()] == [kept.entry.id]


def test_a_handful_of_prompts_moves_nothing() -> None:
    """Two pairs that change alike are no test; many that do are held to the sign test, never to p = 0."""
    from judge.hacking.report import _p_value

    assert _p_value(np.ones(2), ["a", "b"]) is None
    assert _p_value(np.ones(12), [str(k) for k in range(12)]) == pytest.approx(2 / 2**12)


def test_one_name_is_one_definition(tmp_path: Path, padded: HackReport) -> None:
    """No measure of a suite, a grounding report or a probe has the name of one of this report: what a gate holds to a
    limit is one thing; and the length that a gate takes without this report is the same number.
    """
    item = Item(
        "How long is the bridge?",
        context=("The bridge is 503 metres long.",),
        metadata={"must_help": True, "must_contain": ["503"], "language": "en"},
    )
    said = 'It is 503 metres long [1]; "the bridge is 503 metres long" says the source, see https://example.org/x.'
    pairs = [Pair(f"p{k}", item, Answer(said + " Yes." * k), Answer("")) for k in range(12)]
    kinds = [{measure.name for measure in padded.measures}]
    for suite in ("default@1", "json-tools@1", "safety@1", "voice@1"):
        names = [measure.name for measure in examine(load_suite(suite), pairs).measures]
        assert len(names) == len(set(names))
        kinds.append(set(names) - set().union(*kinds[1:]))
    kinds.append({measure.name for measure in ground(ground_pairs(pairs)).measures})
    assert all(kinds[k].isdisjoint(set().union(*kinds[:k])) for k in range(1, len(kinds)))
    assert {"refusal.must_help", "refusal.harmless", "citations.invented"} <= set().union(*kinds)
    store, run = stored(tmp_path, pairs)
    own = row(hack_report(store, store.run(run), rounds=50), "length.log_ratio").measure.difference
    frame = store.comparisons(run)
    columns = (frame["baseline_chars"].to_numpy(), frame["candidate_chars"].to_numpy())
    theirs = log_length(*columns, clusters=frame["prompt_digest"].to_list())
    assert own is not None and theirs is not None
    assert (own.value, own.low, own.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
