"""Candidates on the shelf: identity, lineage, serving and rolling back, merging, the card, and their verbs."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from judge.errors import InputError, StoreError
from judge.register import Register
from tune.preferences import Preference, Source, write_preferences

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from judge.cli import root  # noqa: E402 - needs torch
from tune.candidate import About, Candidate, Candidates  # noqa: E402 - needs torch
from tune.curves import curves, curves_page  # noqa: E402 - needs torch
from tune.models import Base, open_base  # noqa: E402 - needs torch
from tune.packing import encode  # noqa: E402 - needs torch
from tune.speakers import open_speaker  # noqa: E402 - needs torch
from tune.splitting import data_record, prompt_digest, split  # noqa: E402 - needs torch
from tune.train import Data, Recipe, read_log, train  # noqa: E402 - needs torch

AT = "2026-11-30T12:00:00+00:00"
RECIPE = Recipe(batch=4, learning_rate=5e-3, every=2, samples=1, sample_tokens=4)


def preferences(count: int = 16, labeller: str = "ada") -> list[Preference]:
    return [
        Preference(f"q{n}", f"Number {n}.", "yes " * (n % 3 + 1), "no " * (n % 4 + 1), labeller=labeller)
        for n in range(count)
    ]


def shelved(tiny: Path, home: Path, *, seed: int = 0, parent: str = "") -> Candidate:
    base = open_base(str(tiny), home)
    rows = preferences()
    pairs, _ = encode(rows, base.text, most=256)
    shelf, folder = Candidates(home), home / f"t{seed}{parent}"
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(data_record(rows)))
    adapter = shelf.folder(parent) / "adapter" if parent else None
    train(replace(RECIPE, seed=seed), Data(tuple(pairs[4:]), tuple(pairs[:4]), "d"), base, folder, parent=adapter)
    return shelf.add(folder, base, About("support", "helpfulness@1", ("human:ada",), parent), at=AT, by="ada")


@pytest.fixture(scope="module")
def home(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two candidates, the second trained on from the first."""
    path = tmp_path_factory.mktemp("home")
    first = shelved(tiny_llama, path)
    shelved(tiny_llama, path, seed=1, parent=first.id)
    return path


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Base:
    return open_base(str(tiny_llama), tmp_path)


def ids(home: Path) -> list[str]:
    return [one.id for one in Candidates(home).all()]


def test_a_candidate_is_known_by_all_it_came_from(home: Path, base: Base) -> None:
    """Base, adapter, recipe, data, rubric and parent stand in the register; the same training is the same candidate."""
    shelf = Candidates(home)
    first, second = shelf.all()
    assert (first.base, first.rubric, first.domain, first.labellers) == (
        base.ref, "helpfulness@1", "support", ("human:ada",),
    )  # fmt: skip
    assert second.parent == first.id
    assert len({first.adapter, second.adapter}) == 2
    assert [one.id for one in shelf.lineage(second.id)] == [second.id, first.id]
    again = shelf.add(home / "t0", base, About("support", "helpfulness@1", ("human:ada",)), at=AT)
    assert again == first
    assert len(shelf.all()) == 2


def test_serving_is_swapped_and_rolled_back_without_training(home: Path, tmp_path: Path) -> None:
    """Base, first, second; two roll-backs go back to the first and then to the base, a third has nothing to go to."""
    shutil.copytree(home, tmp_path / "home")
    shelf = Candidates(tmp_path / "home")
    first, second = ids(home)
    assert shelf.serving("support") is None
    shelf.serve("support", first, at=AT, by="ada")
    shelf.serve("support", second, at=AT, by="ada")
    assert shelf.roll_back("support", at=AT).candidate == first
    assert shelf.roll_back("support", at=AT).candidate == ""
    with pytest.raises(InputError, match="nothing to go back to"):
        shelf.roll_back("support", at=AT)
    assert len(Register(tmp_path / "home").entries("serving", "support")) == 4
    shelf.serve("support", second, at=AT)
    assert shelf.roll_back("support", at=AT).candidate == ""


def test_a_candidate_of_another_domain_does_not_serve(home: Path) -> None:
    """What was trained for support does not serve sales."""
    with pytest.raises(InputError, match="trained for the domain 'support'"):
        Candidates(home).serve("sales", ids(home)[0], at=AT)


def test_a_changed_adapter_is_found_out(home: Path, tmp_path: Path) -> None:
    """An adapter that is not the registered one, or is gone, neither serves nor loads."""
    shutil.copytree(home, tmp_path / "home")
    shelf, name = Candidates(tmp_path / "home"), ids(home)[0]
    path = shelf.folder(name) / "adapter/adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="not the one that was registered"):
        shelf.serve("support", name, at=AT)
    shutil.rmtree(path.parent)
    with pytest.raises(StoreError, match="its adapter is gone"):
        shelf.verified(name)
    with pytest.raises(StoreError, match="unknown; the latest: c-"):
        shelf.get("c-nothing")


def test_merged_weights_say_what_the_adapter_says(home: Path, base: Base, tmp_path: Path) -> None:
    """The merged model for a server gives the logits of base and adapter; the adapter is still there."""
    shelf, name = Candidates(home), ids(home)[1]
    prompt = torch.tensor([base.text.conversation([{"role": "user", "content": "Number 3."}])])
    with torch.no_grad():
        plain = base.model(prompt).logits
        adapted = shelf.load(name, base)(prompt).logits
        fresh = open_base(base.spec, tmp_path)
        shelf.merge(name, fresh, tmp_path / "served")
        merged = open_base(str(tmp_path / "served"), tmp_path).model(prompt).logits
        spoken = open_speaker(name, shelf, tmp_path).network(prompt).logits
    assert (adapted - plain).abs().max() > 1e-2
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(spoken, adapted, atol=1e-4, rtol=1e-4)
    assert shelf.verified(name)
    with pytest.raises(InputError, match="it exists"):
        shelf.merge(name, fresh, tmp_path / "served")


def test_the_card_is_written_from_the_records(home: Path) -> None:
    """The card names base, digests, data, lineage and figures, and says what nobody measured or decided."""
    first, second = ids(home)
    card = (Candidates(home).folder(second) / "card.md").read_text()
    found = Candidates(home).get(second)
    for text in (second, first, found.base, found.adapter, found.recipe, "human:ada", "helpfulness@1", "human (16)"):
        assert text in card
    assert "has not been evaluated" in card
    assert "held-out preference accuracy" in card


def test_an_unfinished_training_is_no_candidate(home: Path, base: Base, tmp_path: Path) -> None:
    """Without a result, or on another base, nothing is shelved."""
    folder = tmp_path / "t"
    shutil.copytree(home / "t0", folder)
    with pytest.raises(InputError, match="another base"):
        Candidates(home).add(folder, replace(base, digest="0" * 64), About(), at=AT)
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        Candidates(home).add(folder, base, About(), at=AT)


def test_curves_show_every_figure(home: Path) -> None:
    """The page has one chart a figure, needs nothing from outside, and escapes what it is given."""
    log = list(read_log(home / "t0"))
    titles = [title for title, _ in curves(log)]
    assert {"Loss", "Pairs ordered right", "Implicit rewards", "KL from the reference, nats a token"} <= set(titles)
    page = curves_page("<b>", log, ["<script>"])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert page.count("<svg") == len(titles)


def test_a_prompt_is_on_one_side_alone() -> None:
    """Pairs are parted by prompt, whatever their case and spaces; the same seed parts alike whatever else is there."""
    rows = [Preference(f"{n}-{k}", f"Number {n % 9}{' ' * k}", "yes", f"no {k}") for n in range(9) for k in range(3)]
    kept, out = split(rows, 0.3)
    sides = [{prompt_digest(row.prompt_text) for row in side} for side in (kept, out)]
    assert len(out) == 9
    assert sides[0].isdisjoint(sides[1])
    assert {row.id for row in split(rows[:20], 0.3)[1]} <= {row.id for row in rows}
    assert split(rows, 0.3, seed=1)[1] != out
    with pytest.raises(InputError, match="all pairs have one prompt"):
        split(rows[:3], 0.3)


# ---- the verbs


def judge(*arguments: Any) -> Any:
    return CliRunner().invoke(root, [str(one) for one in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def project(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home in which `judge tune train` made a candidate of pairs that a judge labelled."""
    folder = tmp_path_factory.mktemp("project")
    rows = [replace(row, source=Source.JUDGE, labeller="scripted:longer") for row in preferences()]
    write_preferences(folder / "pairs.jsonl", rows)
    done = judge(
        "tune", "train", folder / "pairs.jsonl", "--base", tiny_llama, "--home", folder / "home", "--cpu", "--every", 2,
        "--samples", 1, "--sample-tokens", 4, "--batch", 4, "--learning-rate", 5e-3, "--rubric", "helpfulness@1",
        "--json",
    )  # fmt: skip
    assert done.exception is None, done.output
    (folder / "evals.jsonl").write_text("".join(f'{{"id": "e{n}", "prompt": "Letter {n}?"}}\n' for n in range(6)))
    return folder, json.loads(done.stdout)["candidate"]


def test_train_generate_and_serve_from_the_command_line(project: tuple[Path, str], tmp_path: Path) -> None:
    """The candidate is listed, answers an eval set, serves a domain and rolls back."""
    folder, name = project
    home = folder / "home"
    listed = json.loads(judge("tune", "candidates", "list", "--home", home, "--json").stdout)
    assert [(one["id"], one["labellers"]) for one in listed] == [(name, ["judge:scripted:longer"])]
    assert (home / "candidates" / name / "curves.html").is_file()
    made = judge(
        "tune", "generate", name, folder / "evals.jsonl", "-o", tmp_path / "a.jsonl", "--home", home, "--max-tokens", 4,
        "--json",
    )  # fmt: skip
    assert json.loads(made.stdout)["answered"] == 6
    assert judge("tune", "candidates", "serve", name, "--home", home).output.startswith(f"default serves {name}")
    assert "its base again" in judge("tune", "candidates", "roll-back", "--home", home).output
    assert f"# Candidate {name}" in judge("tune", "candidates", "show", name, "--home", home).output


def test_a_judge_that_labelled_does_not_decide(project: tuple[Path, str]) -> None:
    """The labelling judge is refused; allowed by force, it is warned of aloud and can never say SHIP."""
    folder, name = project
    asked = ("tune", "evaluate", name, "-e", folder / "evals.jsonl", "--home", folder / "home", "--max-tokens", 4)
    refused = judge(*asked, "--judge", "scripted:longer")
    assert isinstance(refused.exception, InputError)
    assert f"labelled the training data of {name}" in str(refused.exception)
    forced = judge(*asked, "--judge", "scripted:longer", "--allow-labeller", "--json")
    assert forced.return_value in (1, 4)
    assert "WARNING: the judge scripted:longer labelled" in forced.stderr
    assert json.loads(forced.stdout)["marks"]
    card = (folder / "home/candidates" / name / "card.md").read_text()
    assert f"**{json.loads(forced.stdout)['word']}** (evaluation-" in card


def test_an_evaluation_is_one_entry_and_resumes(project: tuple[Path, str]) -> None:
    """Missing evidence holds; the same command again judges nothing twice and gives the same entry."""
    folder, name = project
    asked = ("tune", "evaluate", name, "-e", folder / "evals.jsonl", "--home", folder / "home", "--max-tokens", 4,
             "--judge", "scripted:shorter", "--json")  # fmt: skip
    first, again = judge(*asked), judge(*asked)
    assert first.exception is None, first.output
    one, two = (json.loads(done.stdout) for done in (first, again))
    assert one == two
    assert first.return_value == again.return_value
    entries = Register(folder / "home").entries("evaluation", name)
    assert [entry.id for entry in entries].count(one["entry"]) == 1
    assert (folder / "home/runs" / f"{one['run']}.jsonl").is_file()
    assert any("held against no gold or eval set" in text for text in one["missing"])
    assert one["word"] in {"HOLD", "BLOCK"}
    summary = (folder / "home/evaluations" / one["evaluation"] / "summary.txt").read_text()
    assert "canary pairs have no verdict" not in " ".join(summary.split())


def test_an_evaluation_makes_each_report_once(project: tuple[Path, str]) -> None:
    """One check, one hacking report, one grounding report and one decision a run; what was cut off is not redone."""
    folder, name = project
    evals = folder / "grounded.jsonl"
    rows = [{"id": f"g{n}", "prompt": f"Which letter, {n}?", "context": [f"The letter {n} is A."]} for n in range(4)]
    evals.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("tune", "evaluate", name, "-e", evals, "--home", folder / "home", "--max-tokens", 4,
             "--judge", "scripted:shorter", "--json")  # fmt: skip
    first = judge(*asked)
    assert first.exception is None, first.output
    said = json.loads(first.stdout)
    register = Register(folder / "home")

    def made() -> dict[str, int]:
        return dict(Counter(entry.kind for entry in register.entries(subject=said["run"])))

    before = made()
    assert {before.get(kind, 0) for kind in ("check", "hack", "ground", "decision")} == {1}, before
    state = folder / "home" / "evaluations" / said["evaluation"] / "state.json"
    steps = json.loads(state.read_bytes())
    for lost in ("check", "hack", "ground", "decided"):
        steps.pop(lost)
    state.write_text(json.dumps(steps))
    again = json.loads(judge(*asked).stdout)
    assert made() == before
    assert (again["entry"], again["word"], again["missing"]) == (said["entry"], said["word"], said["missing"])


def test_training_reads_the_record_of_its_data(tiny_llama: Path, tmp_path: Path) -> None:
    """A gold item refuses the training; validation pairs are held out in place of a share, and stand in the record."""
    folder = tmp_path
    rows = preferences()
    write_preferences(folder / "pairs.jsonl", rows[:8])
    evals = folder / "evals.jsonl"
    evals.write_text(json.dumps({"id": "e1", "prompt": rows[0].prompt}) + "\n")
    asked = ("tune", "train", folder / "pairs.jsonl", "--base", tiny_llama, "--home", folder / "home", "--cpu",
             "--samples", 0, "--json")  # fmt: skip
    refused = judge(*asked, "--against", evals)
    assert isinstance(refused.exception, InputError)
    assert "nothing was trained" in str(refused.exception)
    assert not (folder / "home" / "tunings").exists()
    extra = [Preference(f"v{n}", f"Which colour has {n}?", "red", "blue") for n in range(3)]
    write_preferences(folder / "extra.jsonl", extra)
    done = judge(*asked, "--validation", folder / "extra.jsonl")
    assert done.exception is None, done.output
    assert "WARNING" in done.stderr and "held against no gold or eval set" in done.stderr
    said = json.loads(done.stdout)
    assert said["heldout"]["n"] == 3
    record = json.loads((Path(said["folder"]) / "training" / "data.json").read_bytes())
    assert (record["checked"], record["validation"]["rows"], record["rows"]) == (False, 3, 8)


def test_prompts_that_were_trained_on_are_refused(project: tuple[Path, str], tmp_path: Path) -> None:
    """An eval set with a prompt of the training data, in other case and spacing, is no evidence."""
    folder, name = project
    path = tmp_path / "leaked.jsonl"
    path.write_text('{"id": "new", "prompt": "Letter?"}\n{"id": "old", "prompt": "NUMBER  3."}\n')
    done = judge("tune", "evaluate", name, "-e", path, "--home", folder / "home", "--judge", "scripted:shorter")
    assert isinstance(done.exception, InputError)
    assert "1 of its 2 prompts were trained or stopped on, the first: old" in str(done.exception)


def test_bad_pairs_leave_nothing_behind(tiny_llama: Path, tmp_path: Path) -> None:
    """A file with bad rows is refused with their lines; no training folder and no candidate is made."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "Hi", "chosen": "x", "rejected": "x"}\n'
        '{"id": "b", "prompt": "Hi", "chosen": "", "rejected": "x"}\n'
    )
    done = judge("tune", "train", path, "--base", tiny_llama, "--home", tmp_path / "home")
    assert isinstance(done.exception, InputError)
    assert "pairs.jsonl:1" in str(done.exception)
    assert "pairs.jsonl:2" in str(done.exception)
    assert not (tmp_path / "home").exists()
