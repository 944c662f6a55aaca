"""OpenTelemetry: GenAI spans in OTLP-JSON, and ``gen_ai.evaluation.result`` events.

Names after open-telemetry/semantic-conventions-genai (status Development): ``gen_ai.input.messages`` and
``gen_ai.output.messages`` hold ``[{role, parts: [{type, content}]}]``, as JSON text or as an OTLP value. A file is one
export (``.json``) or one export a line, as the collector's file exporter writes it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ..endings import finish_in
from ..errors import InputError
from ..formats import Problem
from .rows import OURS, BadRow, Found, Options, Row, check_text, default_id, merge, tried, write_file

__all__ = ["read_evaluations", "read_spans", "write_evaluations", "write_spans"]

_INPUT, _OUTPUT, _SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_TOOLS, _EVENT = "gen_ai.tool.definitions", "gen_ai.evaluation.result"
_SCORE = {
    "name": "gen_ai.evaluation.name", "value": "gen_ai.evaluation.score.value",
    "label": "gen_ai.evaluation.score.label", "explanation": "gen_ai.evaluation.explanation",
}  # fmt: skip
_RESPONSE = "gen_ai.response.id"
_NO_EXPORT = "an export is an object"


def read_spans(path: Path, _options: Options) -> Iterator[Found]:
    """Each span with an input and an output of a model as a trace row; other spans are reported, kind ``other``."""
    for line, resource, scope, span in _spans(path, "resourceSpans", "scopeSpans", "spans"):
        if isinstance(span, Problem):
            yield line, span
            continue
        number, found = tried(path, line, partial(_trace, {"resource": resource, "scope": scope, "span": span}))
        if isinstance(found, Problem) and isinstance(span, Mapping):
            found = replace(found, reason=f"span {span.get('name') or span.get('spanId')}: {found.reason}")
        yield number, found


def write_spans(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write trace rows as one export a line (JSONL) or one list; spans that came in go out as they came."""
    return write_file(path, (_export(row) for row in rows))


def read_evaluations(path: Path, _options: Options) -> Iterator[Found]:
    """Log records named ``gen_ai.evaluation.result`` as evaluation rows; other records are reported."""
    for line, _resource, _scope, record in _spans(path, "resourceLogs", "scopeLogs", "logRecords"):
        if isinstance(record, Problem):
            yield line, record
            continue
        yield tried(path, line, partial(_evaluation, record))


def _evaluation(record: Any) -> Row:
    attributes = _attributes(record)
    if record.get("eventName", attributes.get("event.name")) != _EVENT:
        raise BadRow("other", "not a gen_ai.evaluation.result")
    row: Row = {name: attributes[key] for name, key in _SCORE.items() if attributes.get(key) is not None}
    if "name" not in row:
        raise BadRow("missing", f"no {_SCORE['name']!r}")
    target = {
        "response_id": attributes.get(_RESPONSE), "trace_id": record.get("traceId"), "span_id": record.get("spanId")
    }  # fmt: skip
    row["target"] = {name: value for name, value in target.items() if value}
    given = attributes.get(OURS)
    merge(row, orjson.loads(given) if isinstance(given, str) else {})
    known = {*_SCORE.values(), _RESPONSE, OURS, "event.name"}
    rest = {name: value for name, value in attributes.items() if name not in known}
    if rest:
        row["foreign"] = {"format": "otel-evaluations", "fields": rest}
    if record.get("timeUnixNano"):
        row["at_nano"] = str(record["timeUnixNano"])
    return {"id": row.pop("id", None) or default_id(row, "evaluation"), **row}


def write_evaluations(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write evaluation rows as OTLP-JSON log records, one export a row."""
    return write_file(path, (_record(row) for row in rows))


def _spans(path: Path, outer: str, middle: str, inner: str) -> Iterator[tuple[int, Any, Any, Any]]:
    for line, body in _exports(path):
        if isinstance(body, Problem):
            yield line, None, None, body
            continue
        if not isinstance(body.get(outer), list):
            yield line, None, None, Problem(str(path), line, "malformed", f"no {outer!r}: not such an OTLP export")
            continue
        try:
            found = [
                (group.get("resource", {}), scoped.get("scope", {}), span)
                for group in body[outer]
                for scoped in group.get(middle, ())
                for span in scoped.get(inner, ())
            ]
        except (AttributeError, TypeError) as error:
            yield line, None, None, Problem(str(path), line, "malformed", f"not such an OTLP export ({error})")
            continue
        yield from ((line, *parts) for parts in found)


def _exports(path: Path) -> Iterator[tuple[int, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() == ".json":
        try:
            found = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
        for number, body in enumerate(found if isinstance(found, list) else [found], 1):
            yield number, body if isinstance(body, dict) else Problem(str(path), number, "malformed", _NO_EXPORT)
        return
    with path.open("rb") as handle:
        for number, text in enumerate(handle, 1):
            if not text.strip():
                continue
            try:
                body = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                torn = "" if text.endswith(b"\n") else ": the file ends in the middle of a row"
                body = Problem(str(path), number, "malformed", f"not JSON: {error.msg} (column {error.colno}){torn}")
            ok = isinstance(body, dict | Problem)
            yield number, body if ok else Problem(str(path), number, "malformed", _NO_EXPORT)


def _trace(raw: Row) -> Row:
    ours = _read(raw["span"])
    given = _attributes(raw["span"]).get(OURS)
    merge(ours, orjson.loads(given) if isinstance(given, str) else {})
    return {**ours, "foreign": {"format": "otel", "raw": raw}}


def _read(span: Mapping[str, Any]) -> Row:
    attributes = _attributes(span)
    for event in span.get("events", ()):
        found = _attributes(event)
        attributes |= {name: found[name] for name in (_INPUT, _OUTPUT, _SYSTEM) if name in found}
    if _OUTPUT not in attributes and _INPUT not in attributes:
        kind = "missing" if str(attributes.get("gen_ai.operation.name")) in ("chat", "text_completion") else "other"
        why = "content was not recorded (no gen_ai.input.messages)" if kind == "missing" else "no call of a model"
        raise BadRow(kind, why)
    if _OUTPUT not in attributes or _INPUT not in attributes:
        raise BadRow("missing", f"no {_OUTPUT if _INPUT in attributes else _INPUT}")
    system = [{"role": "system", "parts": _structured(attributes[_SYSTEM])}] if _SYSTEM in attributes else []
    output = _turns(_structured(attributes[_OUTPUT]))
    answer: Row = {"text": output[-1]["content"]}
    if output[-1].get("tool_calls"):
        answer["tool_calls"] = output[-1]["tool_calls"]
    answer |= _about(attributes)
    begun, ended = (int(span.get(name) or 0) for name in ("startTimeUnixNano", "endTimeUnixNano"))
    if begun and ended:
        answer["latency_ms"] = (ended - begun) / 1e6
    ours: Row = {
        "id": str(span.get("spanId") or ""), "trace_id": str(span.get("traceId") or ""),
        "messages": _turns([*system, *_structured(attributes[_INPUT])]), "answer": answer,
    }  # fmt: skip
    if not ours["id"]:
        ours["id"] = default_id(ours, "trace")
    if attributes.get(_RESPONSE):
        ours["metadata"] = {"response_id": attributes[_RESPONSE]}
    if _TOOLS in attributes:
        ours["tools"] = _structured(attributes[_TOOLS])
    scores = [_attributes(event) for event in span.get("events", ()) if event.get("name") == _EVENT]
    if scores:
        ours["feedback"] = [{name: score[key] for name, key in _SCORE.items() if key in score} for score in scores]
    return ours


def _about(attributes: Mapping[str, Any]) -> Row:
    """What a span says about its answer beside the text: model, end, tokens."""
    found: Row = {
        "model": attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model"),
        "finish": _finish(attributes),
    }
    if isinstance(attributes.get("gen_ai.usage.output_tokens"), int):
        found["tokens"] = attributes["gen_ai.usage.output_tokens"]
    return {name: value for name, value in found.items() if value not in (None, "")}


def _finish(attributes: Mapping[str, Any]) -> str | None:
    """How the answer ended: the reason of the last message, else the last of the span's ``finish_reasons``."""
    said = _structured(attributes[_OUTPUT])
    last = said[-1] if isinstance(said, list) and said and isinstance(said[-1], Mapping) else {}
    reasons = attributes.get("gen_ai.response.finish_reasons")
    return finish_in(last, {"finish_reason": reasons[-1]} if isinstance(reasons, list) and reasons else {})


def _turns(messages: Any) -> list[Row]:
    """Messages of the convention as turns: texts joined, tool calls kept, a tool's answer as its content."""
    if not isinstance(messages, list) or not messages:
        raise BadRow("malformed", "messages are not a list with an entry")
    turns = []
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadRow("malformed", "a message has no role")
        texts, calls = [], []
        for part in message.get("parts") or (
            [{"type": "text", "content": message["content"]}] if "content" in message else []
        ):
            kind = part.get("type")
            if kind == "tool_call":
                calls.append({name: part[name] for name in ("id", "name", "arguments") if name in part})
            elif kind == "tool_call_response":
                answer = part.get("response", part.get("result"))
                texts.append(answer if isinstance(answer, str) else orjson.dumps(answer).decode())
            elif isinstance(part.get("content"), str):
                texts.append(check_text(part["content"], "content"))
        turns.append({"role": message["role"], "content": "\n".join(texts), **({"tool_calls": calls} if calls else {})})
    return turns


def _export(row: Row) -> Row:
    body: Row = orjson.loads(orjson.dumps(row))
    foreign = body.pop("foreign", None)
    mine = isinstance(foreign, dict) and foreign.get("format") == "otel"
    raw: Row = (
        foreign["raw"] if mine else {"resource": {"attributes": []}, "scope": {"name": "touchstone-judge"}, "span": {}}
    )
    if foreign is not None and not mine:
        body["foreign"] = foreign
    span = raw["span"]
    had = _read(span) if mine else {}
    if had != body:
        _change(span, body, had)
    scoped = {"scope": raw["scope"], "spans": [span]}
    return {"resourceSpans": [{"resource": raw["resource"], "scopeSpans": [scoped]}]}


def _change(span: Row, body: Row, had: Row) -> None:
    """Put into a span what its row says differently; what a span has no place for stands in one attribute of ours."""
    turns = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
    answer = body.get("answer") or {}
    new: dict[str, Any] = {}
    if turns != had.get("messages"):
        new[_INPUT] = [_message(turn) for turn in turns]
        _unset(span, _SYSTEM)
    old = had.get("answer", {})
    if any(answer.get(name) != old.get(name) for name in ("text", "tool_calls", "finish")):
        said = {"role": "assistant", "content": answer.get("text", ""), "tool_calls": answer.get("tool_calls")}
        # The convention wants the field; an end that nobody told is no "stop".
        new[_OUTPUT] = [{**_message(said), "finish_reason": answer.get("finish") or ""}]
    for name, key in (("model", "gen_ai.response.model"), ("tokens", "gen_ai.usage.output_tokens")):
        if answer.get(name) is not None and answer[name] != old.get(name):
            new[key] = answer[name]
    for name, key in (("id", "spanId"), ("trace_id", "traceId")):
        if body.get(name) and body[name] != had.get(name):
            span[key] = body[name]
    rest = {
        name: value
        for name, value in body.items()
        if name not in ("id", "trace_id", "messages", "answer", "prompt") and value != had.get(name)
    }
    beyond = {
        name: value
        for name, value in answer.items()
        if name not in ("text", "tool_calls", "model", "tokens", "finish") and value != old.get(name)
    }
    rest |= {"answer": beyond} if beyond else {}
    if rest:
        new[OURS] = rest
    span.setdefault("name", "chat")
    span.setdefault("attributes", [])
    for key, value in new.items():
        _unset(span, key)
        plain = isinstance(value, str | int | float | bool)
        span["attributes"].append({"key": key, "value": _value(value if plain else orjson.dumps(value).decode())})


def _unset(span: Row, key: str) -> None:
    span["attributes"] = [entry for entry in span.get("attributes", ()) if entry.get("key") != key]


def _message(turn: Mapping[str, Any]) -> Row:
    parts = [{"type": "text", "content": turn["content"]}] if turn.get("content") else []
    parts += [{"type": "tool_call", **call} for call in turn.get("tool_calls") or ()]
    return {"role": turn["role"], "parts": parts}


def _record(row: Row) -> Row:
    foreign = row.get("foreign")
    mine = isinstance(foreign, Mapping) and foreign.get("format") == "otel-evaluations"
    attributes: Row = dict(foreign["fields"]) if isinstance(foreign, Mapping) and mine else {}
    attributes |= {key: row[name] for name, key in _SCORE.items() if row.get(name) is not None}
    target = row.get("target") or {}
    if target.get("response_id"):
        attributes[_RESPONSE] = target["response_id"]
    known = (*_SCORE, "target", "at_nano", *(("foreign",) if mine else ()))
    rest = {name: value for name, value in row.items() if name not in known}
    if rest.get("id") == default_id(row, "evaluation"):
        del rest["id"]
    if rest:
        attributes[OURS] = orjson.dumps(rest).decode()
    record: Row = {"eventName": _EVENT, "attributes": [{"key": k, "value": _value(v)} for k, v in attributes.items()]}
    record |= {"timeUnixNano": row["at_nano"]} if row.get("at_nano") else {}
    record |= {key: target[name] for name, key in (("trace_id", "traceId"), ("span_id", "spanId")) if target.get(name)}
    scoped = {"scope": {"name": "touchstone-judge"}, "logRecords": [record]}
    return {"resourceLogs": [{"resource": {"attributes": []}, "scopeLogs": [scoped]}]}


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for entry in holder.get("attributes") or ():
        if isinstance(entry, Mapping) and "key" in entry:
            found[str(entry["key"])] = _plain(entry.get("value"))
    return found


def _plain(value: Any) -> Any:
    """An OTLP AnyValue as a Python value; whole numbers are texts there."""
    if not isinstance(value, Mapping):
        return value
    if "stringValue" in value:
        return value["stringValue"]
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [_plain(inner) for inner in value["arrayValue"].get("values", ())]
    if "kvlistValue" in value:
        return {entry["key"]: _plain(entry.get("value")) for entry in value["kvlistValue"].get("values", ())}
    if "bytesValue" in value:
        return base64.b64decode(value["bytesValue"]).decode("utf-8", "replace")
    return value.get("doubleValue", value.get("boolValue"))


def _value(value: Any) -> Row:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(inner) for inner in value]}}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": [{"key": k, "value": _value(v)} for k, v in value.items()]}}
    return {"stringValue": str(value)}


def _structured(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            raise BadRow("malformed", "messages are a text that is not JSON (cut by an attribute limit?)") from None
    return value
