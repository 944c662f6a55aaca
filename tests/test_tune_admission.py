"""What is on record of a data set before it is trained on: the card, the register, gold and frozen sets, validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from judge.cli import root
from judge.errors import InputError
from judge.register import Register
from judge.store import Store
from tune.admission import Admission, admit, known_of
from tune.preferences import Preference, Source, digest_of, read_preferences, write_preferences
from tune.splitting import prompt_digest
from tune.triangulation import triangulate


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def rows_of(count: int, *, start: int = 0, **more: Any) -> list[Preference]:
    words = ("river", "stone", "lamp", "winter", "garden", "violin", "harbour", "letter", "copper", "meadow")
    return [
        Preference(
            f"r{n}",
            f"Tell me about the {words[n % 10]} and the {words[n // 10 % 10]} of {n}",
            f"yes {n}",
            f"no {n}",
            **more,
        )
        for n in range(start, start + count)
    ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    return lines(
        tmp_path / "gold.jsonl", {"id": "g1", "prompt": "What do people measure?", "candidate": "x", "baseline": "y"}
    )


def build(home: Path, rows: list[Preference], out: Path, *words: str) -> Result:
    """`judge tune pairs` over rows of a file."""
    write_preferences(out.with_name("in.jsonl"), rows)
    return CliRunner().invoke(
        root, ["tune", "pairs", str(out.with_name("in.jsonl")), "-o", str(out), "--home", str(home), *words]
    )


def admitted(home: Path, path: Path, **more: Any) -> Admission:
    return admit(path, read_preferences(path), Store(home), **more)


def test_what_pairs_recorded_is_what_training_reads(tmp_path: Path, home: Path, gold: Path) -> None:
    """The entry, that it was checked and against what, and the judges: from card and register, or from one of them."""
    path = tmp_path / "set" / "pairs.jsonl"
    path.parent.mkdir()
    made = build(home, rows_of(6, source=Source.JUDGE, labeller="openai:m"), path, "--against", str(gold))
    assert made.exit_code == 0, made.output
    found = admitted(home, path)
    (entry,) = Register(home).entries("dataset")
    assert (found.record["dataset"], found.record["checked"], found.warnings) == (entry.id, True, ())
    assert found.record["against"] == [str(gold)]
    assert found.record["labellers"] == ["judge:openai:m"]
    elsewhere = known_of(path, found.record["digest"], tmp_path / "other-home")
    assert (elsewhere.entry, elsewhere.card, elsewhere.checked, elsewhere.judges) == ("", True, True, ("openai:m",))
    (tmp_path / "set" / "pairs.card.json").unlink()
    alone = known_of(path, found.record["digest"], home)
    assert (alone.entry, alone.card, alone.checked, alone.judges) == (entry.id, False, True, ("openai:m",))


def test_rows_that_were_changed_after_the_check_are_refused(tmp_path: Path, home: Path, gold: Path) -> None:
    """The card describes other rows: the set has to be built again."""
    path = tmp_path / "pairs.jsonl"
    assert build(home, rows_of(6), path, "--against", str(gold)).exit_code == 0
    rows = list(read_preferences(path))
    write_preferences(path, [*rows[:-1], replace(rows[-1], chosen="another answer")])
    with pytest.raises(InputError, match=r"not those that pairs\.card\.json describes"):
        admitted(home, path)


def test_what_was_named_from_one_folder_is_found_from_any(
    tmp_path: Path, home: Path, gold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative name is recorded whole: from another folder, where a file of that name is another, the gold set of
    the record is still what the data is held against.
    """
    path, elsewhere = tmp_path / "pairs.jsonl", tmp_path / "elsewhere"
    monkeypatch.chdir(gold.parent)
    assert build(home, rows_of(6), path, "--against", gold.name).exit_code == 0
    gold.write_bytes(gold.read_bytes() + orjson.dumps({"id": "g2", "prompt": rows_of(6)[3].prompt}) + b"\n")
    elsewhere.mkdir()
    lines(elsewhere / gold.name, {"id": "other", "prompt": "another question altogether"})
    monkeypatch.chdir(elsewhere)
    with pytest.raises(InputError, match=r"row r3 is exact .* to g2"):
        admitted(home, path)


@pytest.mark.parametrize("name", ["gold.jsonl", "latest", "r-1a2b3c"])
def test_a_recorded_name_that_may_be_another_now_is_not_read(
    tmp_path: Path, home: Path, gold: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An older record keeps names as they were typed: what lies there now may be anything, and is said to be lost."""
    path = tmp_path / "pairs.jsonl"
    assert build(home, rows_of(6), path, "--against", str(gold)).exit_code == 0
    monkeypatch.chdir(gold.parent)
    card = path.with_suffix(".card.json")
    old = orjson.loads(card.read_bytes()) | {"against": {name: 1}}
    card.write_bytes(orjson.dumps(old))
    Register(tmp_path / "new").append(
        "dataset", old["digest"], {"against": {name: 1}, "checked": True}, at="2026-01-01"
    )
    found = admitted(tmp_path / "new", path)
    assert [text for text in found.warnings if text.startswith(f"{name} cannot be found again")]


@pytest.mark.parametrize("named", ["gold.jsonl", "./gold.jsonl", "whole"])
def test_a_lost_name_that_is_named_again_is_lost_no_more(
    tmp_path: Path, home: Path, gold: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """An older record's relative name: who names the file with --against, as advised, is warned of it no more."""
    path = tmp_path / "pairs.jsonl"
    assert build(home, rows_of(6), path, "--against", str(gold)).exit_code == 0
    monkeypatch.chdir(gold.parent)
    card = path.with_suffix(".card.json")
    card.write_bytes(orjson.dumps(orjson.loads(card.read_bytes()) | {"against": {"gold.jsonl": 1}}))
    other = tmp_path / "new"
    assert any("gold.jsonl cannot be found again" in text for text in admitted(other, path).warnings)
    found = admitted(other, path, against=(str(gold) if named == "whole" else named,))
    assert (found.warnings, found.record["against"]) == ((), [str(gold.resolve())])


def test_a_gold_item_that_came_after_the_check_is_refused(tmp_path: Path, home: Path, gold: Path) -> None:
    """The gold set of the record has grown, a set was frozen since, or another is named: each refuses the training."""
    path = tmp_path / "pairs.jsonl"
    assert build(home, rows_of(6), path, "--against", str(gold)).exit_code == 0
    taken = {"id": "g2", "prompt": rows_of(6)[3].prompt, "candidate": "x", "baseline": "y"}
    other = lines(tmp_path / "evals.jsonl", taken)
    with pytest.raises(InputError, match=r"row r3 is exact .* to g2 of .*evals\.jsonl\nnothing was trained"):
        admitted(home, path, against=(str(other),))
    frozen = lines(home / "frozen" / "round-1.jsonl", taken)
    with pytest.raises(InputError, match=r"to g2 of .*round-1\.jsonl"):
        admitted(home, path)
    frozen.unlink()
    gold.write_bytes(gold.read_bytes() + other.read_bytes())
    with pytest.raises(InputError, match=r"to g2 of .*gold\.jsonl"):
        admitted(home, path)
    gold.unlink()
    found = admitted(home, path)
    assert found.record["checked"] is True
    assert [text for text in found.warnings if "gold.jsonl cannot be found again" in text]


def test_what_was_held_against_nothing_is_marked(tmp_path: Path, home: Path, gold: Path) -> None:
    """A file of no record, and one built --unchecked: trained on with a warning, recorded; --against is a check."""
    path = tmp_path / "pairs.jsonl"
    write_preferences(path, rows_of(6))
    found = admitted(home, path)
    assert found.record["checked"] is False
    assert "judge tune pairs did not build it" in found.warnings[0]
    named = admitted(home, path, against=(str(gold),))
    assert (named.record["checked"], named.warnings) == (True, ())
    assert build(home, rows_of(6), path, "--unchecked").exit_code == 0
    found = admitted(home, path)
    assert (found.record["checked"], "its record says --unchecked" in found.warnings[0]) == (False, True)


def test_a_major_refresh_needs_validation_pairs_from_elsewhere(tmp_path: Path, home: Path, gold: Path) -> None:
    """Refused without; with pairs on trained prompts, or of the judge that labelled: refused; else kept on record."""
    path, last, extra = (tmp_path / name for name in ("pairs.jsonl", "last.jsonl", "extra.jsonl"))
    write_preferences(last, rows_of(6, start=50))
    rows = rows_of(6, source=Source.JUDGE, labeller="openai:m@1")
    made = build(home, rows, path, "--against", str(gold), "--last", str(last))
    assert made.exit_code == 0, made.output
    assert Register(home).entries("dataset")[0].body["extra_validation"] is True
    with pytest.raises(InputError, match="major change"):
        admitted(home, path)
    write_preferences(extra, rows_of(3, start=4, labeller="ada"))
    with pytest.raises(InputError, match=r"prompts of 2 of its 3 pairs are trained on, .*r4, r5"):
        admitted(home, path, validation=extra)
    write_preferences(extra, rows_of(3, start=80, source=Source.JUDGE, labeller="openai:m@1"))
    with pytest.raises(InputError, match="openai:m@1 labelled the training data, too"):
        admitted(home, path, validation=extra)
    held = rows_of(3, start=80, labeller="ada")
    write_preferences(extra, held)
    with pytest.raises(InputError, match="by the parent"):
        admitted(home, path, validation=extra, seen={prompt_digest(held[0].prompt_text)})
    write_preferences(extra, [held[0], *rows_of(3, start=4, labeller="ada")])
    with pytest.raises(InputError, match=r"prompts of 3 of its 4 pairs are trained on, .*r80, r4, r5"):
        admitted(home, path, validation=extra, seen={prompt_digest(held[0].prompt_text)})
    write_preferences(extra, held)
    found = admitted(home, path, validation=extra)
    assert found.validation == tuple(read_preferences(extra))
    assert found.record["validation"] == {"path": str(extra), "digest": digest_of(held), "rows": 3}
    assert {prompt_digest(row.prompt_text) for row in held} <= set(found.record["prompts"])
    # Built once more without --last, the same rows are still those of a major change.
    assert build(home, rows, path, "--against", str(gold)).exit_code == 0
    with pytest.raises(InputError, match="major change"):
        admitted(home, path)


def test_every_judge_of_a_row_that_was_put_together_is_a_labeller(tmp_path: Path, home: Path) -> None:
    """Two judges and a check on one comparison: both judges are on record, although the row has one source."""
    row = rows_of(1)[0]
    together = triangulate(
        [
            replace(row, source=Source.GATE, labeller=""),
            replace(row, id="b", source=Source.JUDGE, labeller="openai:m", p=0.8),
            replace(row, id="c", source=Source.JUDGE, labeller="local", p=0.7),
        ]
    )
    path = tmp_path / "pairs.jsonl"
    write_preferences(path, [*together.rows, *rows_of(2, start=20)])
    labellers = admitted(home, path).record["labellers"]
    assert {"judge:openai:m", "judge:local"} <= set(labellers)
