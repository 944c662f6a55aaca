"""Arena-Hard and MT-Bench: a folder of questions, answers of each model, and judgements of each judge.

Shapes: lmarena/arena-hard-auto ``gen_judgment.py`` (two games, the second with the sides swapped; in the first the
baseline is A) and lm-sys/FastChat ``llm_judge`` (``*_pair.jsonl`` with ``g1_winner``, ``g2_winner``). Older files have
``question_id``, ``turns`` and ``choices``, newer ones ``uid``, ``prompt`` and ``messages``; both are read, each is
written back as it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError
from ..formats import Problem, read_rows
from .rows import Found, Options, Row, tried, write_file

__all__ = ["read_arena", "read_mtbench", "write_arena", "write_mtbench"]

_SCORES = {"A>>B": 0.0, "A>B": 0.0, "A=B": 0.5, "B>A": 1.0, "B>>A": 1.0}
"""What a game says for B."""


def read_arena(path: Path, options: Options) -> Iterator[Found]:
    """Pairs of a folder of Arena-Hard; see ``_read``."""
    return _read(path, options, "arena-hard", _arena_judgements)


def read_mtbench(path: Path, options: Options) -> Iterator[Found]:
    """Pairs of a folder of MT-Bench; the turns of a conversation stand in one text."""
    return _read(path, options, "mt-bench", _pair_judgements)


def write_arena(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write pairs as a folder of Arena-Hard."""
    return _write(path, rows, "arena-hard")


def write_mtbench(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write pairs as a folder of MT-Bench."""
    return _write(path, rows, "mt-bench")


def _read(path: Path, options: Options, name: str, judgements: Any) -> Iterator[Found]:
    """One pair for each question that both models answered, with what each judge said of them.

    ``options.candidate`` and ``baseline`` name the models; they may be left out where there are two, or where the
    judgements name the baseline and one model beside it has answers.
    """
    if not (path / "question.jsonl").is_file():
        raise InputError(f"{path}: no question.jsonl; give the folder of the benchmark (question.jsonl, model_answer/)")
    models = sorted(file.stem for file in (path / "model_answer").glob("*.jsonl"))
    names = dict(zip(("candidate", "baseline"), _sides(path, models, options), strict=True))
    sides: dict[str, dict[str, Row]] = {}
    for side, model in names.items():
        sides[side] = {}
        yield from _answers(path / "model_answer" / f"{model}.jsonl", sides[side])
    judged = judgements(path, names["candidate"], names["baseline"])
    seen: set[str] = set()
    for line, question in read_rows(path / "question.jsonl"):
        if isinstance(question, Problem):
            yield line, question
            continue
        key = _id(question)
        seen.add(key)
        absent = [model for side, model in names.items() if key not in sides[side]]
        if absent:
            reason = f"id {key!r} has no answer of {absent[0]}"
            yield line, Problem(str(path / "question.jsonl"), line, "unmatched", reason)
            continue
        raw = {"question": question} | {side: held[key] for side, held in sides.items()}
        said = judged.get(key, {})
        number, row = tried(path / "question.jsonl", line, partial(_pair, raw, said, names))
        if not isinstance(row, Problem):
            row["foreign"] = {"format": name, "fields": {**raw, "judgements": said}}
        yield number, row
    for side, model in names.items():
        file = path / "model_answer" / f"{model}.jsonl"
        for line, key in enumerate(sides[side], 1):
            if key not in seen:
                yield line, Problem(str(file), line, "unmatched", f"id {key!r} is not in question.jsonl")


def _answers(file: Path, into: dict[str, Row]) -> Iterator[Found]:
    """Put a model's answers by id into ``into``; yields the rows that cannot be used."""
    for line, row in read_rows(file):
        if isinstance(row, Problem):
            yield line, row
        elif _id(row) in into:
            yield line, Problem(str(file), line, "duplicate", f"id {_id(row)!r} stands there twice")
        else:
            into[_id(row)] = row


def _sides(path: Path, models: list[str], options: Options) -> tuple[str, str]:
    candidate, baseline = options.candidate, options.baseline
    for name in (candidate, baseline):
        if name and name not in models:
            raise InputError(f"{path}: no answers of {name!r}; there are {', '.join(models) or 'none'}")
    if not baseline:
        named = {
            str(row["baseline"])
            for file in (path / "model_judgment").glob("*/*.jsonl")
            for _line, row in read_rows(file)
            if not isinstance(row, Problem) and row.get("baseline")
        }
        baseline = next(iter(named)) if len(named) == 1 else ""
    left = [model for model in models if model not in (candidate, baseline)]
    if not candidate and baseline and len(left) == 1:
        candidate = left[0]
    elif candidate and not baseline and len(left) == 1:
        baseline = left[0]
    if not candidate or not baseline or candidate == baseline:
        raise InputError(
            f"{path}: which two? give --candidate and --baseline; there are {', '.join(models) or 'no answers'}"
        )
    return candidate, baseline


def _id(row: Mapping[str, Any]) -> str:
    return str(row.get("uid", row.get("question_id", "")))


def _asked(question: Mapping[str, Any]) -> str:
    turns = question.get("turns")
    if isinstance(turns, list):
        return _joined([turn if isinstance(turn, str) else str(turn.get("content", "")) for turn in turns])
    return str(question.get("prompt", ""))


def _answered(answer: Mapping[str, Any]) -> str:
    if "choices" in answer:
        turns = answer["choices"][0]["turns"] if answer["choices"] else []
        return _joined([turn if isinstance(turn, str) else str(turn.get("content", "")) for turn in turns])
    last: Mapping[str, Any] = next(
        (turn for turn in reversed(answer.get("messages", ())) if turn.get("role") == "assistant"), {}
    )
    content = last.get("content", "")
    return str(content.get("answer", "")) if isinstance(content, Mapping) else str(content)


def _joined(turns: list[str]) -> str:
    return (
        turns[0] if len(turns) == 1 else "\n\n".join(f"[turn {number}]\n{text}" for number, text in enumerate(turns, 1))
    )


def _pair(raw: Mapping[str, Any], judged: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    question = raw["question"]
    row: Row = {"id": _id(question), "prompt": _asked(question)}
    for side, model in names.items():
        row[side] = {"text": _answered(raw[side]), "model": model}
    if question.get("category"):
        row["category"] = str(question["category"])
    reference = question.get("reference")
    if reference:
        row["reference"] = reference if isinstance(reference, str) else _joined([str(turn) for turn in reference])
    said = [{"judge": judge, **_preference(entry, names["candidate"])} for judge, entry in judged.items()]
    if said:
        row["judged"] = said
    return row


def _preference(entry: Mapping[str, Any], candidate: str) -> Row:
    """What two games say for the candidate, in [0, 1]: in the first it is B, in the second A."""
    if "games" in entry:
        games = [game.get("score") if isinstance(game, Mapping) else None for game in entry["games"]]
        values = [_SCORES.get(str(score).strip("[]")) for score in games]
        given = [value if number % 2 == 0 or value is None else 1 - value for number, value in enumerate(values)]
    else:
        games = [entry.get("g1_winner"), entry.get("g2_winner")]
        won = {"model_1": entry.get("model_1"), "model_2": entry.get("model_2")}
        given = [0.5 if game == "tie" else (float(won[game] == candidate) if game in won else None) for game in games]
    kept = [value for value in given if value is not None]
    return {"games": games, "preference": sum(kept) / len(kept) if kept else None}


def _arena_judgements(path: Path, candidate: str, _baseline: str) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for file in sorted((path / "model_judgment").glob(f"*/{candidate}.jsonl")):
        for _line, row in read_rows(file):
            if not isinstance(row, Problem) and isinstance(row.get("games"), list):
                found.setdefault(_id(row), {})[file.parent.name] = row
    return found


def _pair_judgements(path: Path, candidate: str, baseline: str) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for file in sorted((path / "model_judgment").glob("*_pair.jsonl")):
        for _line, row in read_rows(file):
            if not isinstance(row, Problem) and {row.get("model_1"), row.get("model_2")} == {candidate, baseline}:
                name = file.stem.removesuffix("_pair")
                turn = row.get("turn", 1)
                found.setdefault(_id(row), {})[name if turn == 1 else f"{name}, turn {turn}"] = row
    return found


def _write(path: Path, rows: Iterable[Row], name: str) -> int:
    """A new folder."""
    questions: list[Row] = []
    answers: dict[str, list[Row]] = {}
    judged: dict[str, list[Row]] = {}
    for row in rows:
        raw = _raw(row, name)
        questions.append(raw["question"])
        for side in ("candidate", "baseline"):
            answers.setdefault(_model(row, side), []).append(raw[side])
        for judge, entry in raw["judgements"].items():
            named = str(judge).split(", turn ")[0].replace("/", "__")
            file = f"{named}_pair.jsonl" if name == "mt-bench" else f"{named}/{_model(row, 'candidate')}.jsonl"
            judged.setdefault(file, []).append(entry)
    write_file(path / "question.jsonl", questions)
    for model, kept in answers.items():
        write_file(path / "model_answer" / f"{model}.jsonl", kept)
    for file, kept in judged.items():
        write_file(path / "model_judgment" / file, kept)
    return len(questions)


def _model(row: Mapping[str, Any], side: str) -> str:
    model = row[side].get("model") if isinstance(row[side], Mapping) else None
    return str(model or side).replace("/", "__")


def _raw(row: Row, name: str) -> Row:
    """The three records of a pair: those it came from where they still say the same, else new ones."""
    foreign = row.get("foreign")
    old = foreign["fields"] if isinstance(foreign, Mapping) and foreign.get("format") == name else None
    texts = {
        side: row[side] if isinstance(row[side], str) else row[side].get("text", "")
        for side in ("candidate", "baseline")
    }
    raw: Row = {"judgements": dict(old["judgements"]) if old else {}}
    asked = row.get("prompt") or "\n\n".join(str(turn["content"]) for turn in row.get("messages", ()))
    key = "uid" if name == "arena-hard" else "question_id"
    if old and _asked(old["question"]) == asked:
        raw["question"] = old["question"]
    else:
        said = {"prompt": asked} if name == "arena-hard" else {"turns": [asked]}
        raw["question"] = {key: row["id"], "category": row.get("category", ""), **said}
    for side, text in texts.items():
        if old and _answered(old[side]) == text:
            raw[side] = old[side]
        elif name == "arena-hard":
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": {"answer": text}}]
            raw[side] = {key: row["id"], "model": _model(row, side), "messages": turns}
        else:
            raw[side] = {key: row["id"], "model_id": _model(row, side), "choices": [{"index": 0, "turns": [text]}]}
    said_now = row.get("judged")
    for said in said_now if isinstance(said_now, list) else [said_now] if said_now else []:
        judge = str(said.get("judge", "judge")).replace("/", "__")
        if judge not in raw["judgements"] and said.get("outcomes"):
            raw["judgements"][judge] = _judgement(row, said, name, key)
    return orjson.loads(orjson.dumps(raw))  # type: ignore[no-any-return]


def _judgement(row: Row, said: Mapping[str, Any], name: str, key: str) -> Row:
    """Both orders of our verdict as two games; an invalid order has no score."""
    first, second = said["outcomes"]["baseline_first"], said["outcomes"]["candidate_first"]
    candidate, baseline = _model(row, "candidate"), _model(row, "baseline")
    if name == "mt-bench":
        won = {"win": "model_2", "loss": "model_1", "tie": "tie", None: "error"}
        return {key: row["id"], "model_1": baseline, "model_2": candidate, "g1_winner": won[first],
                "g2_winner": won[second], "judge": [said["judge"], "pair"], "turn": 1}  # fmt: skip
    swapped = {"win": "A>B", "loss": "B>A", "tie": "A=B", None: None}
    plain = {"win": "B>A", "loss": "A>B", "tie": "A=B", None: None}
    games = [{"score": plain[first]}, {"score": swapped[second]}]
    return {key: row["id"], "model": candidate, "baseline": baseline, "judge": said["judge"], "games": games}
