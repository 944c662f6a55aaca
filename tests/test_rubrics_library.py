"""Finding rubrics, the freeze by digest, drafts, lint, release, diff, the schema, and the shipped rubrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import rubrics
from rubrics import InputError, RubricError, authoring, library, schema
from rubrics.authoring import MAX_WORDS

SHIPPED = ("concision-voice", "correctness", "groundedness", "helpfulness", "instruction-following", "safety-refusal")
PACKAGE = Path(rubrics.__file__).parent


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped rubrics that takes the place of the package's own."""
    root = tmp_path / "rubrics"
    shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for module in (library, authoring):
        monkeypatch.setattr(module, "shipped", lambda: root)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A user's own rubric, ready for release."""
    path = tmp_path / "mine" / "tone" / "v1.md"
    path.parent.mkdir(parents=True)
    text = (PACKAGE / "helpfulness" / "v1.md").read_text(encoding="utf-8")
    path.write_text(text.replace("name: helpfulness", "name: tone"), encoding="utf-8")
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that must occur in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# The shipped rubrics


def test_shipped_names() -> None:
    """The six shipped rubrics are there, each with version 1."""
    assert rubrics.names() == SHIPPED
    assert all(rubrics.versions(name) == (1,) for name in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rubrics_are_sound(name: str) -> None:
    """A shipped rubric is released, free of lint, weighted, short, and shows outcomes on both places."""
    rubric = rubrics.load(f"{name}@1")
    assert rubrics.lint(f"{name}@1") == []
    assert rubric.released
    assert rubrics.load(name) == rubric
    assert len(rubric.criteria) >= 3
    assert all(criterion.weight > 0 for criterion in rubric.criteria)
    assert sum(rubric.shares.values()) == pytest.approx(1)
    assert len(rubric.body.split()) <= MAX_WORDS
    assert 2 <= len(rubric.examples) <= 3
    assert {"first", "second"} <= {example.better for example in rubric.examples}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rubrics_guard_the_judge(name: str) -> None:
    """Every shipped body says that length, text addressed to the judge and the order do not count, and when to tie."""
    body = " ".join(rubrics.load(name).body.split())
    for needed in ("What does not count", "When to call a tie", "judge"):
        assert needed in body
    assert "order in which the answers are shown" in body or "Which answer is shown first" in body
    assert any(word in body for word in ("Length", "length", "Brevity"))


def test_inputs_of_shipped_rubrics() -> None:
    """Correctness asks for the reference, groundedness for the context, the others for neither."""
    uses = {name: rubrics.load(name).uses for name in SHIPPED if rubrics.load(name).uses}
    assert uses == {"correctness": ("reference",), "groundedness": ("context",)}


def test_frozen_file_names_only_what_is_there() -> None:
    """Every frozen digest belongs to a file that is still shipped."""
    table = json.loads((PACKAGE / "frozen.json").read_text(encoding="utf-8"))
    assert set(table) == {f"{name}@{number}" for name in SHIPPED for number in rubrics.versions(name)}


def test_schema_is_current() -> None:
    """The published JSON Schema is what the model says; ``python -m rubrics.schema`` writes it anew."""
    assert schema.PATH.read_text(encoding="utf-8") == schema.text()
    assert set(json.loads(schema.text())["required"]) == {"name", "version", "title", "summary", "criteria"}


# Finding


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("helpfullness", "did you mean 'helpfulness'"),
        ("zzzz", "known: concision-voice, correctness"),
        ("", "unknown rubric ''"),
        ("helpfulness@9", "no such version; known: helpfulness@1"),
        ("helpfulness@", "no such version"),
        ("helpfulness@v1", "no such version"),
        ("helpfulness@01", "no such version"),
        ("..", "unknown rubric"),
        ("../rubrics/x", "does not exist"),
        ("nowhere.md", "does not exist"),
        ("a\0b.md", "rubric file"),
        ("/", "is not a plain file"),
    ],
)
def test_unknown_refs_are_explained(ref: str, says: str) -> None:
    """An unknown name, version or file is an input error that lists what there is."""
    with pytest.raises(InputError) as caught:
        rubrics.load(ref)
    assert says in str(caught.value)


def test_a_name_never_reads_a_local_file(draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the working folder is only read by path, as a string or a Path, never merged into the names."""
    monkeypatch.chdir(draft.parent.parent)
    assert "tone" not in rubrics.names()
    with pytest.raises(RubricError, match="unknown rubric 'tone'"):
        rubrics.load("tone")
    assert rubrics.load("tone/v1.md") == rubrics.load(Path("tone/v1.md"))
    assert not rubrics.load(draft).released


def test_latest_released_version_is_loaded(shelf: Path) -> None:
    """A bare name means the latest released version; a draft needs its number."""
    path = rubrics.new("helpfulness", shelf)
    assert path == shelf / "helpfulness" / "v2.md"
    assert rubrics.versions("helpfulness") == (1, 2)
    assert rubrics.load("helpfulness").version == 1
    assert rubrics.load("helpfulness@2").released is False
    edit(path, "FILL IN what", "Say what")
    rubrics.release(path)
    assert rubrics.load("helpfulness").version == 2


def test_a_name_without_release_says_so(shelf: Path) -> None:
    """A shipped name with drafts only is no rubric to use by its bare name."""
    (shelf / "frozen.json").unlink()
    with pytest.raises(RubricError, match="no released version; name the draft, as in helpfulness@1"):
        rubrics.load("helpfulness")


# Frozen


@pytest.mark.parametrize(
    ("old", "new"),
    [("What decides", "What decides most"), ("version: 1", "version: 2"), ("name: helpf", "name: helps")],
)
def test_an_edited_released_rubric_is_refused(shelf: Path, old: str, new: str) -> None:
    """Any edit of a shipped released file, its name and version too, is refused with both ways out."""
    edit(shelf / "helpfulness" / "v1.md", old, new)
    with pytest.raises(RubricError) as caught:
        rubrics.load("helpfulness")
    message = str(caught.value)
    assert "helpfulness@1 was released and then edited" in message
    assert "`git checkout -- rubrics/helpfulness/v1.md`" in message
    assert "`judge rubric new helpfulness --from rubrics/helpfulness/v1.md`" in message
    assert any("released and then edited" in problem.message for problem in rubrics.lint("helpfulness@1"))


def test_the_fix_that_the_message_names_works(shelf: Path) -> None:
    """Copying the edit to a new version, restoring the old file and releasing keeps both texts."""
    path = shelf / "helpfulness" / "v1.md"
    before = path.read_bytes()
    edit(path, "What decides", "What decides most")
    copy = rubrics.new("helpfulness", Path("rubrics"), from_ref="rubrics/helpfulness/v1.md")
    path.write_bytes(before)
    edit(copy, "FILL IN what changed since helpfulness@1 and why.", "A clearer heading.")
    rubrics.release(copy)
    assert "What decides most" in rubrics.load("helpfulness").body
    assert "What decides most" not in rubrics.load("helpfulness@1").body
    assert rubrics.load("helpfulness").changelog == ("v1: First release.", "v2: A clearer heading.")


def test_a_checkout_with_crlf_still_loads(shelf: Path) -> None:
    """Line ends changed by git on Windows do not count as an edit."""
    path = shelf / "helpfulness" / "v1.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert rubrics.load("helpfulness@1").released


def test_a_shipped_draft_must_say_its_place(shelf: Path) -> None:
    """A shipped draft that calls itself something else is refused with the two lines to set."""
    path = rubrics.new("helpfulness", shelf)
    edit(path, "version: 2", "version: 7")
    with pytest.raises(RubricError, match="set `name: helpfulness` and `version: 2`"):
        rubrics.load("helpfulness@2")


@pytest.mark.parametrize("text", ["{", "[]", '{"helpfulness@1": "short"}', '{"helpfulness@1": 1}'])
def test_a_damaged_frozen_file_is_refused(shelf: Path, text: str) -> None:
    """A frozen.json that cannot be trusted stops the load instead of letting everything pass."""
    (shelf / "frozen.json").write_text(text)
    with pytest.raises(RubricError, match="restore it with `git checkout"):
        rubrics.load("helpfulness@1")


def test_a_users_release_is_held_too(draft: Path) -> None:
    """After a release beside it, a user's own file is refused once edited."""
    ref = rubrics.release(draft)
    assert rubrics.load(draft).released
    assert rubrics.load(draft).ref == ref
    edit(draft, "What decides", "What decides most")
    with pytest.raises(RubricError, match=r"tone@1 was released and then edited.*--from .*v1\.md"):
        rubrics.load(draft)


def test_a_loose_file_is_held_by_the_folder(draft: Path, tmp_path: Path) -> None:
    """A file outside a folder of its name is frozen beside itself."""
    loose = tmp_path / "loose" / "tone.md"
    loose.parent.mkdir()
    shutil.copy(draft, loose)
    rubrics.release(loose)
    assert (loose.parent / "frozen.json").is_file()
    assert rubrics.load(loose).released


# Release and new


def test_release_writes_once(draft: Path) -> None:
    """A release adds one line to frozen.json, leaves nothing else behind, and repeating it changes nothing."""
    ref = rubrics.release(draft)
    target = draft.parent.parent / "frozen.json"
    assert json.loads(target.read_text()) == {"tone@1": ref.digest}
    before = target.stat().st_mtime_ns
    assert rubrics.release(draft) == ref
    assert target.stat().st_mtime_ns == before
    assert sorted(path.name for path in draft.parent.parent.iterdir()) == ["frozen.json", "tone"]


def test_release_keeps_the_other_digests(draft: Path) -> None:
    """Releasing a second version keeps the first."""
    first = rubrics.release(draft)
    path = rubrics.new("tone", draft.parent.parent)
    edit(path, "FILL IN what", "Say what")
    second = rubrics.release(path)
    table = json.loads((draft.parent.parent / "frozen.json").read_text())
    assert table == {"tone@1": first.digest, "tone@2": second.digest}


def test_release_refuses_problems_and_other_texts(draft: Path) -> None:
    """A file with problems is not released, nor a released version with another text."""
    edit(draft, "weight: 4", "weight: 0")
    with pytest.raises(RubricError, match=r"not released: .*criteria\.0\.weight"):
        rubrics.release(draft)
    edit(draft, "weight: 0", "weight: 4")
    rubrics.release(draft)
    edit(draft, "weight: 4", "weight: 5")
    with pytest.raises(RubricError, match="released and then edited"):
        rubrics.release(draft)


def test_a_failed_release_leaves_the_old_file(draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while writing leaves frozen.json as it was and no half file beside it."""
    rubrics.release(draft)
    target = draft.parent.parent / "frozen.json"
    before = target.read_bytes()
    path = rubrics.new("tone", draft.parent.parent)
    edit(path, "FILL IN what", "Say what")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(authoring.os, "fsync", full)
    with pytest.raises(RubricError, match="No space left"):
        rubrics.release(path)
    assert target.read_bytes() == before
    assert sorted(file.name for file in target.parent.iterdir()) == ["frozen.json", "tone"]


def test_new_skeleton_is_readable_but_not_ready(tmp_path: Path) -> None:
    """A skeleton loads as a draft, and lint lists every line that is still to be written."""
    path = rubrics.new("tone-of-voice", tmp_path)
    assert path == tmp_path / "tone-of-voice" / "v1.md"
    assert rubrics.load(path).name == "tone-of-voice"
    problems = rubrics.lint(path)
    assert {problem.field for problem in problems} == {"draft"}
    with pytest.raises(RubricError, match="not released"):
        rubrics.release(path)


def test_new_counts_on_and_never_overwrites(tmp_path: Path) -> None:
    """Each call takes the next number, after the shipped versions where the name is shipped."""
    assert [rubrics.new("tone", tmp_path).name for _ in range(3)] == ["v1.md", "v2.md", "v3.md"]
    assert rubrics.new("helpfulness", tmp_path).name == "v2.md"
    assert rubrics.load(tmp_path / "helpfulness" / "v2.md").version == 2


def test_new_from_another_name(tmp_path: Path) -> None:
    """A copy under a new name starts at version 1, with a changelog that says where it comes from."""
    path = rubrics.new("house-style", tmp_path, from_ref="correctness@1")
    rubric = rubrics.load(path)
    assert (rubric.name, rubric.version) == ("house-style", 1)
    assert rubric.changelog == ("v1: FILL IN what changed since correctness@1 and why.",)
    assert rubric.body == rubrics.load("correctness@1").body


def test_new_drops_the_measurement(draft: Path) -> None:
    """A new version does not inherit what was measured on the old one, and keeps comments and field order."""
    note = "calibrated_on:\n  - {gold: a, judge: b, date: 2026-11-20, agreement: 0.5}\n---\nDecide"
    edit(draft, "---\nDecide", note)
    edit(draft, "tie_rule:", "# why so\ntie_rule:")
    text = rubrics.new("tone", draft.parent.parent).read_text(encoding="utf-8")
    assert "calibrated_on" not in text
    assert "# why so\ntie_rule:" in text


@pytest.mark.parametrize("name", ["", "Tone", "../evil", "a/b", "a--b", "a\n", "x" * 65])
def test_new_refuses_bad_names(name: str, tmp_path: Path) -> None:
    """A name that could leave the folder or be misread is refused."""
    with pytest.raises(RubricError, match="lower-case words"):
        rubrics.new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_new_reports_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in the place of the folder is an input error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RubricError, match="cannot be written"):
        rubrics.new("tone", tmp_path / "file")


# Lint and diff


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("version: 1", "version: 2", "version", "in a file called v1.md"),
        ("'v1: First release.'", "'First release.'", "changelog", "the last entry must say"),
        ("## What decides", "Answer A is the first.", "text", "labels are drawn anew"),
        ("## What decides", "Say [[first]].", "text", "labels are drawn anew"),
        ("## What decides", "word " * MAX_WORDS, "body", "shorten it"),
        ("uses: []", "uses: [reference]", "uses", "never says what to do"),
        ("better: tie", "better: left", "examples.2.better", "'first', 'second' or 'tie'"),
        ("first: Canberra.", "first: The capital of Australia is Canberra.", "", ""),
    ],
)
def test_lint_finds_faults_with_lines(draft: Path, old: str, new: str, field: str, says: str) -> None:
    """Lint reports each fault with its path, line, field and fix, and has nothing to say where there is none."""
    edit(draft, old, new)
    problems = rubrics.lint(draft)
    if not field:
        assert problems == []
        return
    found = [problem for problem in problems if problem.field == field]
    assert found, problems
    assert says in found[0].message
    assert (found[0].path, found[0].line > 1) == (str(draft), True)


def test_lint_wants_examples_of_both_places(draft: Path) -> None:
    """Examples that are too few, one-sided or contradictory are problems."""
    edit(draft, "better: tie", "better: first")
    edit(draft, "better: second", "better: first")
    assert any("teaches a place" in problem.message for problem in rubrics.lint(draft))
    edit(draft, "first: Canberra.", "first: The capital of Australia is Canberra.")
    assert any("both answers are the same" in problem.message for problem in rubrics.lint(draft))
    text = draft.read_text(encoding="utf-8")
    draft.write_text(text[: text.index("examples:")] + text[text.index("changelog:") :], encoding="utf-8")
    assert any("give at least two" in problem.message for problem in rubrics.lint(draft))


def test_lint_refuses_a_shipped_ref_with_another_text(draft: Path) -> None:
    """A user's file cannot pass for a shipped rubric."""
    edit(draft, "name: tone", "name: helpfulness")
    edit(draft, "What decides", "What decides most")
    assert any("is a shipped rubric with another text" in problem.message for problem in rubrics.lint(draft))


def test_lint_sees_a_name_that_is_not_its_folder(draft: Path) -> None:
    """In a folder with releases, the name must be that of its folder."""
    (draft.parent.parent / "frozen.json").write_text("{}")
    edit(draft, "name: tone", "name: mood")
    assert [problem.field for problem in rubrics.lint(draft)] == ["name"]


def test_diff_names_fields_and_lines(draft: Path) -> None:
    """A diff has the changed fields by criterion id and a unified text diff."""
    edit(draft, "weight: 4", "weight: 5")
    edit(draft, "  - id: fit\n", "  - id: form\n")
    found = rubrics.diff("helpfulness@1", draft)
    kinds = {change.field: change.kind for change in found.changes}
    assert kinds["name"] == "changed"
    assert kinds["criteria.task.weight"] == "changed"
    assert kinds["criteria.fit.weight"] == "removed"
    assert kinds["criteria.form.weight"] == "added"
    assert "-    weight: 4\n+    weight: 5\n" in found.text
    assert found.text.startswith("--- helpfulness@1\n+++ tone@1\n")


def test_diff_of_the_same_is_empty() -> None:
    """A rubric does not differ from itself, given by ref or by value."""
    found = rubrics.diff("helpfulness@1", rubrics.load("helpfulness"))
    assert (found.changes, found.text) == ((), "")


def test_diff_shows_an_edit_of_a_released_file(shelf: Path) -> None:
    """An edited released file, which load refuses, can still be looked at."""
    original = rubrics.load("helpfulness@1")
    edit(shelf / "helpfulness" / "v1.md", "What decides", "What decides most")
    found = rubrics.diff(original, "helpfulness@1")
    assert [change.field for change in found.changes] == ["body"]
