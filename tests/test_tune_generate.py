"""Batched answers against the plain way, one prompt at a time; answer files that continue and that judging reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from judge.errors import InputError
from judge.types import JudgeId

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from judge.formats import open_evalset  # noqa: E402 - needs torch
from judge.prompts import Asking, open_prompts  # noqa: E402 - needs torch
from tune import generate as module  # noqa: E402 - needs torch
from tune.generate import Decoding, Speaker, decode, write_answer_file  # noqa: E402 - needs torch
from tune.models import Base, open_base  # noqa: E402 - needs torch


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Base:
    return open_base(str(tiny_llama), tmp_path)


@pytest.fixture
def speaker(base: Base) -> Speaker:
    return Speaker.of(base.model, base.tokenizer, base.text, JudgeId("policy", "r1"))


@pytest.fixture
def evalset(tmp_path: Path) -> Path:
    path = tmp_path / "evals.jsonl"
    rows = [{"id": f"q{n}", "prompt": f"Question {n}? " * (n * 7 % 5 + 1)} for n in range(11)]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def prompts_of(base: Base, count: int = 9) -> list[list[int]]:
    texts = [f"Tell me about {n}. " * (n * 5 % 4 + 1) for n in range(count)]
    return [base.text.conversation([{"role": "user", "content": text}]) for text in texts]


def test_batched_answers_are_those_of_transformers_alone(base: Base, speaker: Speaker) -> None:
    """Greedy answers of a padded batch equal `generate` on each prompt alone."""
    prompts = prompts_of(base)
    made = decode(speaker, prompts, Decoding(20, batch=4))
    for prompt, one in zip(prompts, made, strict=True):
        text, tokens, finish = base.text.complete(prompt, max_tokens=20)
        assert base.tokenizer.decode(one.ids, skip_special_tokens=True) == text
        assert len(one.ids) + one.ended == tokens
        assert one.ended == (finish == "stop")


def test_rows_that_end_leave_the_batch(base: Base, speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that end at different steps: each is that of the prompt alone, and fewer rows are computed."""
    prompts, seeds = prompts_of(base), list(range(9))
    ending = Speaker(speaker.network, speaker.tokenizer, speaker.text, speaker.id, frozenset(range(0, 258, 16)))
    rows: list[int] = []
    whole = base.model.forward
    monkeypatch.setattr(base.model, "forward", lambda **given: rows.append(len(given["input_ids"])) or whole(**given))
    together = decode(ending, prompts, Decoding(20, temperature=1.0, batch=9), seeds)
    assert rows[0] == 9
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 5
    assert sum(rows) == sum(len(one.ids) + one.ended for one in together)  # not one row too many was computed
    alone = decode(ending, prompts, Decoding(20, temperature=1.0, batch=1), seeds)
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert len({len(one.ids) for one in together}) > 2


def test_a_sample_depends_on_its_own_seed_alone(base: Base, speaker: Speaker) -> None:
    """Drawn answers are the same in any batch and order, and differ by seed."""
    prompts, seeds = prompts_of(base), list(range(9))
    how = [Decoding(12, temperature=1.0, batch=size) for size in (1, 4)]
    alone, batched = (decode(speaker, prompts, one, seeds) for one in how)
    assert [one.ids for one in alone] == [one.ids for one in batched]
    backwards = decode(speaker, prompts[::-1], how[1], seeds[::-1])
    assert [one.ids for one in backwards[::-1]] == [one.ids for one in batched]
    others = decode(speaker, prompts, how[1], [seed + 100 for seed in seeds])
    assert [one.ids for one in others] != [one.ids for one in batched]


def test_an_answer_file_is_read_by_judging(speaker: Speaker, evalset: Path, tmp_path: Path) -> None:
    """Answers of two models join with their eval set, in its order, under the models' names."""
    for side in ("candidate", "baseline"):
        tally = write_answer_file(speaker, open_prompts(evalset), tmp_path / f"{side}.jsonl", Decoding(8, batch=4))
        assert tally.answers == 11
    found = open_evalset(evalset, candidate=tmp_path / "candidate.jsonl", baseline=tmp_path / "baseline.jsonl")
    pairs = list(found.pairs())
    assert [pair.id for pair in pairs] == [f"q{n}" for n in range(11)]
    assert {pair.candidate.model for pair in pairs} == {"policy@r1"}
    assert all(pair.candidate.text == pair.baseline.text for pair in pairs)


def test_generation_goes_on_after_an_interruption(
    speaker: Speaker, evalset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death in the third batch with a torn line: the rest is answered, nothing twice, and the texts are the same."""
    write_answer_file(speaker, open_prompts(evalset), tmp_path / "whole.jsonl", Decoding(8, batch=3))
    whole, asked = module.decode, []

    def dying(one: Speaker, prompts: Any, *rest: Any) -> Any:
        asked.append(len(prompts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(one, prompts, *rest)

    monkeypatch.setattr(module, "decode", dying)
    output = tmp_path / "broken.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_answer_file(speaker, open_prompts(evalset), output, Decoding(8, batch=3))
    assert not output.exists()
    with (tmp_path / "broken.jsonl.answers").open("ab") as file:
        file.write(b'{"id":"q')
    write_answer_file(speaker, open_prompts(evalset), output, Decoding(8, batch=3))
    assert sum(asked) - 3 == 11

    def texts(path: Path) -> list[Any]:
        return [(row["id"], row["text"], row["finish"]) for row in map(orjson.loads, path.read_bytes().splitlines())]

    assert texts(output) == texts(tmp_path / "whole.jsonl")


def test_an_output_of_another_model_is_refused(speaker: Speaker, evalset: Path, tmp_path: Path) -> None:
    """What was begun otherwise, or is no output of ours, is never mixed or overwritten."""
    output = tmp_path / "a.jsonl"
    write_answer_file(speaker, open_prompts(evalset), output, Decoding(4))
    with pytest.raises(InputError, match="another model, prompt set or setting"):
        write_answer_file(speaker, open_prompts(evalset), output, Decoding(5))
    other = tmp_path / "mine.jsonl"
    other.write_text("my own file")
    with pytest.raises(InputError, match="was not made here"):
        write_answer_file(speaker, open_prompts(evalset), other, Decoding(4))
    assert other.read_text() == "my own file"


def test_a_prompt_beyond_the_context_is_named(speaker: Speaker, tmp_path: Path) -> None:
    """A prompt that leaves no room for an answer is an input error, and nothing is written."""
    path = tmp_path / "e.jsonl"
    path.write_bytes(orjson.dumps({"id": "long", "prompt": "word " * 200}) + b"\n")
    with pytest.raises(InputError, match=r"prompt 'long' has 1,0.. tokens, the model takes 512"):
        write_answer_file(speaker, open_prompts(path), tmp_path / "o.jsonl", Decoding(4), asking=Asking())
    assert not (tmp_path / "o.jsonl").exists()
