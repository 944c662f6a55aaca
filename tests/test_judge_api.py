"""The Python API: compare, acompare, compare_many."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judge
from calibration.confidence import Calibration, NotCalibrated, fit
from judge.testing import ScriptedBackend, prefer_longer, sample_pair
from judge.types import InvalidReason, Outcome, Reply


def test_compare_judges_one_pair_in_both_orders() -> None:
    """One call gives outcome, preference, per-order verdicts, consistency, confidence and the rubric's ref."""
    backend = ScriptedBackend(prefer_longer)
    result = judge.compare("q", candidate="a longer answer", baseline="short", rubric="helpfulness@1", judge=backend)
    assert (result.outcome, result.consistent, str(result.rubric), len(backend.asked)) == (
        Outcome.WIN,
        True,
        "helpfulness@1",
        2,
    )
    assert result.preference == result.confidence == pytest.approx(16 / 22)
    assert [verdict.outcome for verdict in result.verdicts] == [Outcome.WIN, Outcome.WIN]


def test_an_order_dependent_judge_is_seen_through() -> None:
    """A judge that always picks the first place gives a tie and is called inconsistent."""
    first = ScriptedBackend(lambda ask: Reply(text=ask.labels.first))
    result = judge.compare("q", candidate="a", baseline="b", judge=first)
    assert (result.outcome, result.preference, result.consistent) == (Outcome.TIE, 0.5, False)


def test_an_unreadable_verdict_is_no_exception() -> None:
    """The comparison carries the reason."""
    mute = ScriptedBackend(lambda _ask: Reply(text=""))
    assert judge.compare("q", candidate="a", baseline="b", judge=mute).invalid is InvalidReason.EMPTY


def test_acompare_gives_the_same_inside_a_loop() -> None:
    """The asynchronous face returns what the synchronous one does, also many at once."""

    async def work() -> list[judge.Comparison]:
        calls = [judge.acompare("q", candidate="aa" * n, baseline="b", judge="scripted:longer") for n in (1, 2, 3)]
        return await asyncio.gather(*calls)

    alone = [judge.compare("q", candidate="aa" * n, baseline="b", judge="scripted:longer") for n in (1, 2, 3)]
    assert asyncio.run(work()) == alone


def test_compare_works_where_a_loop_is_running() -> None:
    """In a notebook an event loop runs already; compare works there too, and hands errors on."""

    async def cell() -> judge.Comparison:
        return judge.compare("q", candidate="aa", baseline="b", judge="scripted:longer")

    async def bad() -> None:
        judge.compare("q", candidate="aa", baseline="b", judge="no-such-judge")

    assert asyncio.run(cell()).outcome is Outcome.WIN
    with pytest.raises(judge.InputError, match="no-such-judge"):
        asyncio.run(bad())


def test_compare_many_keeps_the_order_of_the_pairs() -> None:
    """Results come in input order whatever order they were settled in."""
    pairs = [sample_pair(f"p{n}", candidate="x" * (n % 5)) for n in range(50)]
    results = judge.compare_many(pairs, judge=ScriptedBackend(prefer_longer, batch=3, concurrency=4))
    assert [result.pair_id for result in results] == [pair.id for pair in pairs]


def test_compare_many_of_nothing_is_nothing() -> None:
    """No pairs give no comparisons."""
    assert judge.compare_many([], judge="scripted") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidate": None}, "candidate is NoneType, not text"),
        ({"context": "Paris"}, "give a list of texts"),
        ({"reference": "\ud800"}, "reference holds a lone surrogate"),
        ({"baseline": "\ud800"}, "baseline holds a lone surrogate at character 0"),
        ({"rubric": "nope@1"}, "nope"),
        ({"rubric": Path("no/such.md")}, "no/such.md"),
        ({"judge": "nope"}, "there is no judge 'nope'"),
    ],
)
def test_bad_input_is_one_clear_error(changes: dict[str, object], message: str) -> None:
    """Every argument that cannot be used raises InputError with its name."""
    call: dict[str, object] = {"candidate": "a", "baseline": "b", "judge": "scripted"} | changes
    with pytest.raises(judge.InputError, match=message):
        judge.compare("q", **call)  # type: ignore[arg-type]


def test_a_seed_out_of_range_is_refused() -> None:
    """The seed of all draws must fit what the journal can hold."""
    with pytest.raises(judge.InputError, match="seed is 1180591620717411303424"):
        judge.compare_many([sample_pair()], judge="scripted", seed=2**70)


def test_pair_ids_must_be_unique() -> None:
    """Two pairs with one id cannot be told apart."""
    with pytest.raises(judge.InputError, match="must be unique"):
        judge.compare_many([sample_pair(), sample_pair()], judge="scripted")


def test_the_public_names_are_what_is_listed() -> None:
    """Everything in __all__ exists, is sorted, and is all that a star import gives."""
    assert judge.__all__ == sorted(judge.__all__)
    assert all(getattr(judge, name) is not None for name in judge.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    """import judge leaves pydantic, duckdb, polars, numpy, aiohttp and every model library unloaded."""
    heavy = [
        "pydantic",
        "duckdb",
        "polars",
        "numpy",
        "aiohttp",
        "torch",
        "transformers",
        "litellm",
        "openai",
        "scipy",
        "streamlit",
    ]
    code = f"import sys, judge; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def fitted(judge_id: str, rubric: str = "helpfulness@1") -> Calibration:
    """A calibration of an over-confident judge on a hundred made-up labels."""
    preferences = [0.02, 0.98] * 50
    outcomes = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0] * 10
    return fit(preferences, outcomes, rubric=rubric, judge=judge_id, gold="made up")


def test_a_calibration_gives_the_confidence_on_the_human_scale(tmp_path: Path) -> None:
    """With a calibration, by value or by file, the comparison says how often people side with the judge."""
    backend = ScriptedBackend(prefer_longer)
    made = fitted(str(backend.id))
    plain = judge.compare("q", candidate="long answer", baseline="short", judge=backend)
    given = judge.compare("q", candidate="long answer", baseline="short", judge=backend, calibration=made)
    assert plain.calibrated is None and plain.preference is not None
    assert given.calibrated == made.confidence(plain.preference)
    assert given.confidence == plain.confidence
    path = tmp_path / "calibration.json"
    path.write_text(made.to_json(), encoding="utf-8")
    assert judge.compare("q", candidate="long answer", baseline="short", judge=backend, calibration=path) == given


def test_a_calibration_of_another_rubric_or_judge_is_refused_before_any_call() -> None:
    """A calibration speaks for one rubric and one judge; elsewhere nothing is asked and the difference is named."""
    backend = ScriptedBackend(prefer_longer)
    for made in (fitted("another judge"), fitted(str(backend.id), "brevity@1")):
        with pytest.raises(NotCalibrated, match="was fitted for"):
            judge.compare("q", candidate="a", baseline="b", judge=backend, calibration=made)
    assert backend.asked == []


def test_an_invalid_comparison_has_no_calibrated_confidence() -> None:
    """What has no verdict has no confidence on any scale."""
    backend = ScriptedBackend(lambda _ask: Reply(text="no verdict in this text"))
    result = judge.compare("q", candidate="a", baseline="b", judge=backend, calibration=fitted(str(backend.id)))
    assert result.invalid is not None and result.calibrated is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99}'])
def test_a_file_that_is_no_calibration_is_an_input_error(tmp_path: Path, text: str) -> None:
    """Whatever else stands in the file, the message says how to make a calibration."""
    path = tmp_path / "c.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(judge.InputError, match="calibrat"):
        judge.compare("q", candidate="a", baseline="b", judge="scripted", calibration=path)


def test_a_rubric_is_parsed_once_and_a_changed_file_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing again parses no YAML; a file of one's own that was edited is read again, one that was not is not."""
    import rubrics.library

    parsed: list[str] = []
    real = rubrics.library.parse

    def counted(data: bytes, *, path: str) -> Any:
        parsed.append(path)
        return real(data, path=path)

    monkeypatch.setattr(rubrics.library, "parse", counted)
    monkeypatch.setattr("judge.api._parsed", {})
    texts = {"candidate": "long enough", "baseline": "no", "judge": "scripted:longer"}
    for _ in range(3):
        judge.compare("q", rubric="correctness@1", **texts)
    assert len(parsed) == 1
    own = tmp_path / "own.md"
    source = rubrics.library.shipped() / "correctness" / "v1.md"
    own.write_text(source.read_text(encoding="utf-8").replace("name: correctness", "name: mine"), encoding="utf-8")
    for _ in range(3):
        judge.compare("q", rubric=own, **texts)
    assert len(parsed) == 2
    own.write_text(own.read_text(encoding="utf-8") + "\nOne sentence more.\n", encoding="utf-8")
    before = judge.compare("q", rubric=own, **texts).rubric.digest
    assert len(parsed) == 3
    assert judge.compare("q", rubric=own, **texts).rubric.digest == before and len(parsed) == 3
