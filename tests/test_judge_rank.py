"""judge rank: several stored runs as one table of systems, through real stores and the command line."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from calibration.ratings import ELO
from judge import cli
from judge.backends.recorded import open_recorded
from judge.errors import InputError
from judge.formats import open_evalset
from judge.ranking import Ranking, ranking
from judge.render.rank import rank_json, rank_markdown, rank_text
from judge.runs import RunPlan, start_run
from judge.store import Store
from rubrics import load

VERDICT = {"w": "A", "t": "tie", "l": "B", "x": None}


class Fights:
    """A home folder whose runs are written as outcomes: w, t, l from the candidate's side, x for an unread reply."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.count = folder, folder / "home", 0
        self.verdicts = folder / "verdicts.jsonl"

    def prepare(self, *runs: tuple[str | None, str | None, str]) -> list[Path]:
        """Eval sets of (candidate, baseline, outcomes), and one verdict file for all, so that the judge is one."""
        paths, said = [], []
        for at, (candidate, baseline, outcomes) in enumerate(runs):
            lines = []
            for n, outcome in enumerate(outcomes):
                pair = f"{at}-{n}"
                sides = {
                    side: {"text": f"{name} {side} {n}", "model": name}
                    for side, name in (("candidate", candidate), ("baseline", baseline))
                }
                lines.append({"id": pair, "prompt": f"Q{n}?", **sides})
                said += [{"id": pair, "judge": "j", "order": o, "verdict": VERDICT[outcome]} for o in ("ab", "ba")]
            paths.append(self._written(self.folder / f"e{at}.jsonl", lines))
        self._written(self.verdicts, said)
        return paths

    @staticmethod
    def _written(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def run(self, path: Path, *, judge: str = "j", rubric: str = "helpfulness") -> str:
        """Judge one eval set; the id of the run."""
        self.count += 1
        name = f"r-{self.count:06x}"
        plan = RunPlan(
            run_id=name, created_at=f"2026-01-01T00:00:{self.count:02}+00:00", evalset=open_evalset(path), options={},
            rubric=load(rubric), judge_spec="recorded",
        )  # fmt: skip
        asyncio.run(start_run(plan, open_recorded(str(self.verdicts), judge=judge), Store(self.home)))
        return name

    def rank(self, *names: str, **options: Any) -> Ranking:
        """The ranking of runs by id."""
        store = Store(self.home)
        found = ranking(store, [store.run(name) for name in names], **options)
        assert found is not None
        return found

    def of(self, *runs: tuple[str | None, str | None, str], **options: Any) -> Ranking:
        """The ranking of new runs."""
        return self.rank(*(self.run(path) for path in self.prepare(*runs)), **options)

    def cli(self, *args: str) -> int:
        """Exit code of judge rank."""
        return cli._run(["rank", *args, "--home", str(self.home)])


@pytest.fixture
def fights(tmp_path: Path) -> Fights:
    return Fights(tmp_path)


def names(found: Ranking) -> list[str]:
    return [system.name for system in found.systems]


def test_one_run_says_what_its_win_rate_says(fights: Fights) -> None:
    """Two systems: the rating is the log odds of wins to losses, and the modelled chances are the shares counted."""
    found = fights.of(("new", "old", "w" * 20 + "t" * 10 + "l" * 10))
    assert (names(found), found.baseline) == (["new", "old"], "old")
    new, old = found.systems
    assert new.rating.value == pytest.approx(1000 + ELO * math.log(2))
    assert new.rating.low < new.rating.value < new.rating.high
    assert new.sandwich.value == pytest.approx(new.rating.value)
    assert new.against == pytest.approx((0.5, 0.25, 0.25))
    assert (new.record, old.record, new.comparisons, new.prompts) == ((20, 10, 10), (10, 10, 20), 40, 40)
    assert (old.rating.value, old.rating.method, old.against) == (1000.0, "fixed", None)
    assert any("no more than the win rate" in note for note in found.notes)


def test_runs_that_share_a_model_are_one_table(fights: Fights) -> None:
    """A system of the same name in two runs is one; prompts that runs share are counted once."""
    found = fights.of(("b", "a", "w" * 24 + "l" * 8), ("c", "a", "w" * 8 + "t" * 4 + "l" * 20))
    assert names(found) == ["b", "a", "c"]
    assert (found.comparisons, found.prompts) == (64, 32)
    by_name = {system.name: system for system in found.systems}
    assert (by_name["a"].comparisons, by_name["b"].comparisons) == (64, 32)
    assert [(run.pairs, run.invalid) for run in found.runs] == [(32, 0), (32, 0)]
    assert found.tie is not None
    assert fights.rank("r-000001", "r-000002", ties="rao_kupper").model == "rao_kupper"
    assert fights.rank("r-000001", "r-000002", baseline="c").systems[-1].rating.value == 1000.0


def test_invalid_comparisons_are_counted_not_rated(fights: Fights) -> None:
    """A comparison without a verdict is no tie: it is left out and said."""
    found = fights.of(("b", "a", "wwlt" * 8 + "xx"))
    assert (found.comparisons, found.invalid, found.runs[0].pairs) == (32, 2, 34)
    assert any("2 of 34 comparisons got no verdict" in note for note in found.notes)
    assert "2 comparisons invalid" in " ".join(rank_text(found).split())


def test_pairs_judged_again_count_once(fights: Fights) -> None:
    """The same answers in a second run of the same judge add nothing, and are counted."""
    path = fights.prepare(("b", "a", "wwlt" * 8))[0]
    found = fights.rank(fights.run(path), fights.run(path))
    assert (found.comparisons, found.runs[1].left_out) == (32, {"judged in an earlier run, too": 32})


def test_a_system_that_never_lost_gets_pseudo_ties_and_says_so(fights: Fights) -> None:
    """Its rating would be infinite: ties are added, and noted."""
    found = fights.of(("b", "a", "wwlt" * 8), ("c", "a", "w" * 32))
    assert found.pseudo_ties > 0
    assert any("ties with a were added" in note for note in found.notes)
    assert names(found)[0] == "c"


def test_an_end_that_the_data_do_not_limit_is_open(fights: Fights) -> None:
    """With one loss only, many draws of prompts have none: the upper end is null in JSON and a dash in the table."""
    found = fights.of(("b", "a", "w" * 39 + "l"))
    assert found.systems[0].rating.high == math.inf
    assert json.loads(rank_json(found))["systems"][0]["rating"]["high"] is None
    assert ", -]" in rank_text(found)
    assert found.tie is None
    assert "no comparison was a tie" in " ".join(rank_text(found).split())


def test_mixed_rubrics_are_refused(fights: Fights) -> None:
    """Another rubric asks another question."""
    one, two = fights.prepare(("b", "a", "wwlt" * 8), ("c", "a", "wllt" * 8))
    runs = [fights.run(one), fights.run(two, rubric="correctness")]
    with pytest.raises(InputError, match=r"rubric helpfulness@\d+ .* against correctness@\d+ .*--mixed"):
        fights.rank(*runs)
    assert fights.rank(*runs, mixed=True).notes[0].startswith("these runs were not judged alike: rubric")


def test_systems_without_a_link_are_refused(fights: Fights) -> None:
    """Nothing says which of two unlinked groups is better, and unnamed answers get the fix."""
    with pytest.raises(InputError, match=r"no comparison links these 2 groups .*a, b \| c, d; add a run"):
        fights.of(("b", "a", "wl" * 8), ("d", "c", "wl" * 8))
    with pytest.raises(InputError, match="candidate_model and baseline_model"):
        fights.of((None, None, "wl" * 9), (None, None, "wl" * 8 + "wt"))


def test_one_unnamed_run_is_ranked_with_a_note(fights: Fights) -> None:
    """Answers without a model are told apart by their eval set."""
    found = fights.of((None, None, "wwl" * 12))
    assert all(name.startswith("evalset:") for name in names(found))
    assert any("2 of 2 systems have no name" in note for note in found.notes)


def test_mixed_judges_are_refused_naming_the_difference(fights: Fights, capsys: pytest.CaptureFixture[str]) -> None:
    """Another judge is another scale: exit 2 names both and their runs; --mixed ranks them and keeps saying so."""
    one, two = fights.prepare(("b", "a", "wwlt" * 8), ("c", "a", "wllt" * 8))
    first = fights.run(one)
    other = [json.loads(line) | {"judge": "k"} for line in fights.verdicts.read_text().splitlines()]
    fights._written(fights.verdicts, other)
    second = fights.run(two, judge="k")
    assert fights.cli(first, second) == 2
    shown = capsys.readouterr().err
    assert f"({first}) against recorded/k" in shown
    assert "--mixed" in shown
    assert fights.cli(first, second, "--mixed") == 0
    assert "not judged alike" in " ".join(capsys.readouterr().out.split())


def test_a_run_named_twice_and_an_unknown_baseline_are_input_errors(fights: Fights) -> None:
    """Both messages name what is wrong."""
    name = fights.run(fights.prepare(("b", "a", "wwlt" * 8))[0])
    with pytest.raises(InputError, match="named twice"):
        fights.rank(name, name)
    with pytest.raises(InputError, match=r"'z' fought no battle; candidates: a, b"):
        fights.rank(name, baseline="z")


@pytest.mark.parametrize("outcomes", ["xxxx", "wxxx"])
def test_too_little_to_rate_exits_4(fights: Fights, outcomes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No verdict, or one prompt only, gives no rating and no interval."""
    name = fights.run(fights.prepare(("b", "a", outcomes))[0])
    assert fights.cli(name) == 4
    out = capsys.readouterr()
    assert (out.out, "fewer than two prompts" in out.err) == ("", True)


def test_hostile_names_are_shown_as_text(fights: Fights) -> None:
    """Control characters and markup of a model's name reach no surface; lines stay within 80 columns."""
    found = fights.of(("\x1b[31m|<b>evil" + "名" * 60, "a", "wwlt" * 8))
    text, page = rank_text(found), rank_markdown(found)
    assert "\x1b" not in text + page
    assert "\\<b\\>" in page
    from judge.render.words import columns

    assert max(map(columns, text.splitlines())) <= 80
    assert json.loads(rank_json(found))["systems"][0]["name"].startswith("\x1b[31m")


def test_people_are_shown_beside_the_judge(fights: Fights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--gold rates the same systems by the labels: those that fit are used, the others and ties of vote are counted."""
    names = [fights.run(path) for path in fights.prepare(("b", "a", "wwlt" * 8), ("c", "a", "wllt" * 8))]
    labels = [
        {"pair_id": f"{run}-{n}", "annotator": "ada", "outcome": ("loss", "loss", "win", "tie")[n % 4]}
        for run in (0, 1) for n in range(32)
    ]  # fmt: skip
    labels += [
        {"pair_id": "0-0", "annotator": "bob", "outcome": "win"},
        {"pair_id": "zz", "annotator": "bob", "outcome": "win"},
    ]
    path = fights._written(tmp_path / "gold.jsonl", labels)
    assert fights.cli(*names, "--gold", str(path), "--json") == 0
    value = json.loads(capsys.readouterr().out)
    human = value["human"]
    assert (human["labels"], human["no_majority"], human["left_out"], human["prompts"]) == (63, 1, 1, 32)
    assert human["ratings"]["b"]["value"] < 1000 < value["systems"][0]["rating"]["value"]
    assert any("judge's scale" in note for note in value["notes"])
    assert fights.cli(*names, "--gold", str(path)) == 0
    assert "by people" in capsys.readouterr().out


def test_every_surface_has_every_system_with_its_n(fights: Fights, capsys: pytest.CaptureFixture[str]) -> None:
    """Text, Markdown and JSON come from one value."""
    runs = [fights.run(path) for path in fights.prepare(("b", "a", "wwlt" * 8), ("c", "a", "wllt" * 8))]
    shown = []
    for flag in ((), ("--md",), ("--json",)):
        assert fights.cli(*runs, *flag) == 0
        shown.append(capsys.readouterr().out)
    value = json.loads(shown[2])
    assert (value["schema"], value["model"], value["baseline"]) == ("judge.rank/1", "davidson", "a")
    for system in value["systems"]:
        figure = f"{system['rating']['value']:.0f}"
        assert any(system["name"] in line and figure in line for line in shown[0].splitlines())
        assert any(f"| {system['name']} | {figure} |" in line for line in shown[1].splitlines())
        assert system["sandwich"]["low"] <= system["rating"]["value"] <= system["sandwich"]["high"]


def test_vicuna80_recorded_judge_over_ten_model_pairs(gold: Callable[[str], Path], fights: Fights) -> None:
    """One eval set of mixed models per row and ten runs of one model pair each give the same table.

    Its order is that of mean scores, since every two systems met equally often.
    """
    folder, parts = gold("vicuna80"), dict[str, list[dict[str, Any]]]()
    for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        a, b = row["meta"]["model_a"], row["meta"]["model_b"]
        sides = {
            "candidate": {"text": row["response_a"], "model": a},
            "baseline": {"text": row["response_b"], "model": b},
        }
        parts.setdefault(f"{a}-{b}", []).append({"id": row["id"], "prompt": row["prompt"], **sides})
    fights.verdicts = folder / "verdicts.jsonl"
    everything = fights._written(fights.folder / "all.jsonl", [row for rows in parts.values() for row in rows])
    whole = fights.rank(fights.run(everything, judge="gpt-4"), baseline="vicuna-13b")
    runs = [
        fights.run(fights._written(fights.folder / f"{n}.jsonl", rows), judge="gpt-4")
        for n, rows in enumerate(parts.values())
    ]
    split = fights.rank(*runs, baseline="vicuna-13b")
    assert len(runs) == 10
    assert (whole.comparisons, whole.prompts, whole.invalid) == (split.comparisons, split.prompts, split.invalid)
    assert (whole.comparisons + whole.invalid, whole.prompts) == (800, 80)
    assert [(s.name, s.record, s.rank_low, s.rank_high) for s in whole.systems] == [
        (s.name, s.record, s.rank_low, s.rank_high) for s in split.systems
    ]
    for one, other in zip(whole.systems, split.systems, strict=True):
        assert one.rating.value == pytest.approx(other.rating.value, abs=1e-3)
        assert one.sandwich.low == pytest.approx(other.sandwich.low, abs=1e-3)
        assert one.comparisons == 320
    score = {s.name: s.record[0] + s.record[1] / 2 for s in whole.systems}
    assert names(whole) == sorted(score, key=score.__getitem__, reverse=True)
    assert names(whole)[:2] == ["gpt4", "claude"]
