"""Probes and attacks: built, judged, measured and kept, on judges whose weakness is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from judge import archive
from judge.errors import InputError
from judge.formats import write_evalset
from judge.hacking.attacks import ATTACKS, FAMILIES, PROBES, Attack, Place
from judge.hacking.probes import attack_pairs, probe_pairs
from judge.testing import sample_rubric
from judge.types import Answer, Item, Outcome, Pair

REPO = Path(__file__).parent.parent


def some(n: int, *, labelled: bool = False) -> list[Pair]:
    return [
        Pair(
            f"p{k}", Item(f"Question number {k}?"), Answer(f"Candidate {k} says something of its own. And {k} more."),
            Answer(f"Baseline {k} answers in one plain sentence, number {k * 7}. It ends here."),
            label=(Outcome.LOSS if k % 2 else Outcome.WIN) if labelled else None,
        )
        for k in range(n)
    ]  # fmt: skip


def command(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    code = "from judge.cli import main; main()"
    env = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=env, check=False, cwd=home.parent
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_probe_changes_the_baseline_s_own_answer_and_nothing_else() -> None:
    """For every pair one probe of each kind: the candidate begins with the baseline's answer, which stays as it was."""
    pairs = some(6)
    found = probe_pairs(pairs, sample=4)
    assert len(found) == 4 * len(PROBES)
    assert len({pair.id for pair in found}) == len(found)
    for pair in found:
        own = next(old for old in pairs if old.id == pair.item.metadata["of"])
        assert pair.baseline.text == own.baseline.text
        assert pair.candidate.text.startswith(own.baseline.text + "\n\n")
        assert pair.item.prompt == own.item.prompt
    assert probe_pairs(pairs, sample=4) == found
    assert {len(texts) for texts in PROBES.values()} == {3}


def test_pairs_without_a_baseline_text_cannot_be_probed() -> None:
    """Empty answers and tool calls are left out; where nothing is left it is said."""
    empty = Pair("e", Item("Q"), Answer("a"), Answer("  "))
    tool = Pair("t", Item("Q"), Answer("a"), Answer("x", tool_calls=({"name": "f"},)))
    with pytest.raises(InputError, match="no pair has a baseline answer with text"):
        probe_pairs([empty, tool], sample=5)
    assert {pair.item.metadata["of"] for pair in probe_pairs([empty, *some(2)], sample=5)} == {"p0", "p1"}


def test_attacks_are_paired_with_the_plain_weak_answer() -> None:
    """Each pair has one plain duel and one attack of each family; the strong answer is never touched."""
    found, weak = attack_pairs(some(5, labelled=True), sample_rubric(), sample=5)
    assert weak == "5 labelled losers"
    by: dict[str, list[Pair]] = {}
    for pair in found:
        by.setdefault(str(pair.item.metadata["of"]), []).append(pair)
    for name, duels in by.items():
        k = int(name[1:])
        strong = f"Baseline {k} " if k % 2 else f"Candidate {k} "
        families = [pair.item.metadata["family"] for pair in duels]
        assert families.count(0) == 1
        assert len(set(families)) == len(families)
        assert set(families) >= {1, 2, 4, 8, 15, 18, 23}
        for pair in duels:
            other = pair.baseline if pair.item.metadata["side"] == "candidate" else pair.candidate
            assert other.text.startswith(strong)
    sides = {pair.item.metadata["side"] for pair in found}
    assert sides == {"candidate", "baseline"}


def test_without_labels_the_weak_answer_is_one_to_another_prompt() -> None:
    """And it is said so; every attack in every place is there with ``every``."""
    found, weak = attack_pairs(some(3), sample_rubric(), sample=3, every=True)
    assert weak == "3 answers to another prompt"
    plain = [pair for pair in found if pair.item.metadata["family"] == 0]
    assert all(pair.candidate.text.split()[1] != pair.baseline.text.split()[1] for pair in plain)
    tried = {(pair.item.metadata["attack"], pair.item.metadata["place"]) for pair in found}
    wanted = {(attack.id, place.value) for attack in ATTACKS for place in attack.places if attack.family != 24}
    assert wanted - tried <= {("1.first-sentence", "change"), ("18.lines", "change")}
    with pytest.raises(InputError, match="at least two pairs"):
        attack_pairs(some(1), sample_rubric(), sample=3)


def test_every_family_is_there_and_says_where_it_stands() -> None:
    """24 families, ids used once, a text or a change for each, and the item attacks only in the item."""
    assert {attack.family for attack in ATTACKS} == set(FAMILIES) == set(range(1, 25))
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    for attack in ATTACKS:
        assert attack.places
        assert (attack.change is not None) == (attack.places == (Place.CHANGE,))
        assert (Place.ITEM in attack.places) == (attack.family in (23, 24))
    source = Attack(24, "x", "planted").on_item(Item("Q", context=("a",)))
    assert source.context == ("a", "planted")


def test_what_a_trick_buys_from_a_judge_of_length_is_measured(tmp_path: Path) -> None:
    """``scripted:longer`` sells length: every probe has a shift above 0, the report says so and is kept; the opposite
    judge sells nothing, and its shifts are the exact mirror.
    """
    write_evalset(tmp_path / "set.jsonl", some(12))
    home = tmp_path / "home"
    done = command("probe", "set.jsonl", "--judge", "scripted:longer", "--sample", "12", "--json", home=home)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    shifts = {measure["name"]: measure["difference"] for measure in body["measures"]}
    assert set(shifts) == {f"probe.{name}" for name in PROBES}
    assert all(shift["low"] > 0 and shift["n"] == 12 for shift in shifts.values())
    assert "8 of 8 tricks buy points" in body["headline"]
    other = json.loads(
        command("probe", "set.jsonl", "--judge", "scripted:shorter", "--sample", "12", "--json", home=home).stdout
    )
    assert other["headline"].startswith("No trick is shown")
    for measure in other["measures"]:
        assert measure["difference"]["value"] == pytest.approx(-shifts[measure["name"]]["value"])
    kept = archive.latest(home, "probe", body["run_id"])
    assert kept is not None
    assert {measure.name for measure in archive.measures_of(kept.body)} == set(shifts)


def test_a_second_probe_is_free_and_latest_is_not_the_probe(tmp_path: Path) -> None:
    """The same probe again is all cached; ``latest`` stays the run that judged a candidate."""
    write_evalset(tmp_path / "set.jsonl", some(6))
    home = tmp_path / "home"
    assert command("run", "set.jsonl", "--judge", "scripted:longer", home=home).returncode == 0
    for _ in range(2):
        done = command("probe", "set.jsonl", "--judge", "scripted:longer", home=home)
        assert done.returncode == 0, done.stderr
    assert "cached 48" in done.stderr
    report = json.loads(command("report", "--json", home=home).stdout)
    assert report["overall"]["n"] == 6
    hack = command("hack", home=home)
    assert hack.returncode == 0, hack.stderr
    assert "reward hacking" in hack.stdout
    assert "kept as hack-" in hack.stderr
    listed = (home / "register.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in listed] == ["probe", "probe", "hack"]


def test_a_dry_run_calls_and_writes_nothing(tmp_path: Path) -> None:
    """It says how many calls, and leaves no home folder behind."""
    home = tmp_path / "home"
    write_evalset(tmp_path / "set.jsonl", some(6))
    done = command(
        "probe", "set.jsonl", "--judge", "scripted:longer", "--dry-run", "--sample", "3", home=tmp_path / "home"
    )
    assert done.returncode == 0, done.stderr
    assert "dry run: 24 pairs" in done.stdout
    assert not home.exists()


def test_attacks_are_reported_with_lift_and_screen(tmp_path: Path) -> None:
    """On a judge of length the padded answer wins, and what the screen flags wins no more."""
    write_evalset(tmp_path / "set.jsonl", some(20))
    done = command("probe", "set.jsonl", "--attacks", "--judge", "scripted:longer", "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    rows = {row["family"]: row for row in json.loads(done.stdout)["attacks"]}
    assert rows[7]["bare"]["attacked"]["value"] == 1.0
    assert rows[7]["screened"]["attacked"]["value"] == 0.0
    assert rows[7]["flagged"]["value"] == 1.0
    assert rows[15]["bare"]["attacked"]["value"] > 0.9
    for shape in ("--md", "--html"):
        extra = (shape, "x.html") if shape == "--html" else (shape,)
        again = command("probe", "set.jsonl", "--attacks", "--judge", "scripted:longer", *extra, home=tmp_path / "home")
        assert again.returncode == 0, again.stderr
    assert "<script" not in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("probe", "none.jsonl"), 2, "no such file"),
        (("probe", "set.jsonl", "--every"), 2, "--every goes with --attacks"),
        (("probe", "set.jsonl", "--html", "no/where.html"), 2, "no such folder"),
        (("probe", "set.jsonl", "--judge", "nobody:x"), 2, "nobody"),
        (("hack", "r-none"), 2, "no runs here yet"),
        (("hack", "--html", "no/where.html"), 2, "no such folder"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, args: tuple[str, ...], code: int, says: str) -> None:
    """The right exit code, what is wrong, and nothing written."""
    write_evalset(tmp_path / "set.jsonl", some(3))
    done = command(*args, home=tmp_path / "home")
    assert done.returncode == code
    assert says in done.stderr
    assert not (tmp_path / "home" / "hacks").exists()
