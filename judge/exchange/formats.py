"""The table of formats: name, what a row is, who reads and writes it, where its shape is described."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import InputError
from . import alpacaeval, arena, healthbench, inspect_logs, preferences, promptfoo, scores, tasks, telemetry, traces
from .rows import Found, Layout, Options, Row, encode, layout_reader, write_rows
from .whole import Whole

__all__ = ["FORMATS", "Format", "find_format"]

Reader = Callable[[Path, Options], Iterator[Found]]
Writer = Callable[[Path, Iterable[Row], Options], int]


@dataclass(frozen=True, slots=True)
class Format:
    """One format: ``kind`` is what its rows become (``rows.KINDS``) and, where it differs, ``takes`` what is written.

    ``read`` or ``write`` is ``None`` where that way does not exist. ``made`` makes what is written of one row of ours,
    and raises ``BadRow`` where the format has no place for it: a row is refused before the writer sees it. ``mapped``
    says that ``--map`` may name paths, ``folder`` that it is a folder of files.
    """

    name: str
    kind: str
    about: str
    read: Reader | None = None
    write: Writer | None = None
    takes: str = ""
    made: Callable[[Row], Row] | None = None
    mapped: bool = False
    folder: bool = False

    @property
    def written_from(self) -> str:
        """The kind of row that this format is written from."""
        return self.takes or self.kind


def _flat(layout: Layout, about: str) -> Format:
    return Format(layout.name, layout.kind, about, layout_reader(layout), write_rows,
                  made=partial(encode, layout))  # fmt: skip


def _mapped(whole: Whole, about: str) -> Format:
    return Format(whole.name, whole.kind, about, traces.trace_reader(whole), traces.trace_writer(whole), mapped=True)


_TABLE = (
    _flat(preferences.TRL, "TRL preference data: standard, conversational, implicit prompt"),
    _flat(preferences.UNPAIRED, "TRL unpaired preference data (prompt, completion, label)"),
    _flat(preferences.REWARDBENCH, "RewardBench: labelled pairs, sides shuffled by id, segment = subset"),
    _flat(alpacaeval.OUTPUTS, "AlpacaEval outputs of one model"),
    _flat(alpacaeval.ANNOTATIONS, "AlpacaEval annotations (preference 1..2)"),
    Format("arena-hard", "pair", "Arena-Hard folder: questions, answers, judgements",
           arena.read_arena, arena.write_arena, folder=True),
    Format("mt-bench", "pair", "MT-Bench folder of FastChat", arena.read_mtbench, arena.write_mtbench, folder=True),
    Format("promptfoo", "task", "promptfoo test suite (YAML or JSON)",
           promptfoo.read_suite, promptfoo.write_suite, mapped=True),
    Format("promptfoo-results", "answer", "promptfoo results (JSON, version 3)",
           traces.read_results, traces.write_results),
    Format("otel", "trace", "OpenTelemetry GenAI spans (OTLP-JSON)", telemetry.read_spans, telemetry.write_spans),
    Format("otel-evaluations", "evaluation", "gen_ai.evaluation.result events (OTLP-JSON)",
           telemetry.read_evaluations, telemetry.write_evaluations),
    Format("inspect", "answer", "Inspect logs (.json, .eval), read only", inspect_logs.read_log),
    Format("label-studio", "label", "Label Studio: blind tasks out, labels in",
           tasks.read_label_studio, tasks.write_label_studio, takes="pair"),
    Format("argilla", "label", "Argilla: blind records out, responses in",
           tasks.read_argilla, tasks.write_argilla, takes="pair"),
    _mapped(traces.LANGFUSE, "Langfuse traces or observations (JSON, JSONL)"),
    _mapped(traces.LANGSMITH, "LangSmith runs (JSON, JSONL)"),
    _mapped(traces.PHOENIX, "Phoenix spans (JSON, JSONL)"),
    _flat(healthbench.HEALTHBENCH, "HealthBench: conversations with signed rubrics"),
    Format("scores", "evaluation", "a CSV of scores, as Langfuse, LangSmith and Phoenix import them",
           scores.read_scores, scores.write_scores, made=scores.fitting),
)  # fmt: skip

FORMATS = {entry.name: entry for entry in _TABLE}


def find_format(name: str, *, to_write: bool = False) -> Format:
    """The format of a name; raises ``InputError`` for one that does not exist, or not in this direction."""
    found = FORMATS.get(name)
    able = [entry.name for entry in _TABLE if (entry.write if to_write else entry.read) is not None]
    if found is None:
        import difflib

        near = difflib.get_close_matches(name, able, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown format {name!r}; {hint}the formats are {', '.join(able)}")
    if found.name not in able:
        raise InputError(f"format {name!r} can be {'read' if to_write else 'written'} only")
    return found
