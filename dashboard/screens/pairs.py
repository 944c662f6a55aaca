"""The pairs behind a number: a page of rows, and one pair in full, down to the raw calls of the judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars
import streamlit as st

from judge.render.words import markdown, safe
from judge.store.views import SORTS, Call, Detail, Filter
from judge.types import Span

from .. import answers
from ..findings import failed_pairs, of_pair
from ..place import Place, downloads, explained, link, table
from ..views import texts

__all__ = ["show"]

PAGE = 25
_COUNTED = 200_000
_OUTCOMES = ("win", "tie", "loss", "invalid")


def show(place: Place) -> None:
    """The page."""
    st.title("Pairs")
    run = place.run
    assert run is not None
    wanted, sort = _filters(place)
    total = place.views.count(run.run_id, wanted)
    if not total:
        st.info("No pair passes these filters.")
        return
    pages = -(-total // PAGE)
    st.markdown(f"**{total:,}** comparisons" + ("" if wanted.empty else " pass the filters"))
    at = 1
    if pages > 1:
        at = min(st.pagination(pages, key="at", bind="query-params"), pages)
    frame = place.views.rows(run.run_id, wanted, sort=sort, offset=(at - 1) * PAGE, limit=PAGE)
    ids = frame["pair_id"].to_list()
    _rows(run.run_id, frame)
    st.divider()
    named = st.query_params.get("pair", "")
    first = _telling(place, frame, wanted, sort)
    options = list(dict.fromkeys([*([named] if named and named not in ids else []), *ids, first]))
    chosen = st.selectbox(
        "Pair", options, index=options.index(first), key="pair", bind="query-params",
        format_func=lambda name: safe(name)[:80],
    )  # fmt: skip
    with explained("This pair cannot be shown"):
        _detail(place, place.views.detail(run.run_id, str(chosen)))


def _telling(place: Place, frame: polars.DataFrame, wanted: Filter, sort: str) -> str:
    """The pair to open: the loss the judge is surest of, else what it is surest of; in a sort that was asked for, the
    first.
    """
    if sort != next(iter(SORTS)):
        return str(frame["pair_id"][0])
    if wanted.empty and place.run is not None:
        lost = place.views.rows(
            place.run.run_id, Filter(outcomes=("loss",)), sort="most confident first", offset=0, limit=1
        )
        if lost.height:
            return str(lost["pair_id"][0])
    ranked = frame.sort(
        (polars.col("outcome") == "loss").fill_null(value=False),
        ~polars.col("flags").fill_null("").str.contains("identical"),
        polars.col("confidence").fill_null(0.0),
        descending=True,
        maintain_order=True,
    )
    return str(ranked["pair_id"][0])


def _filters(place: Place) -> tuple[Filter, str]:
    """The filters, each in the URL."""
    run = place.run
    assert run is not None
    query = st.query_params
    facets = [name for name, _many in place.views.facets(run.run_id)]
    with st.expander("Filters", expanded=bool(set(query.keys()) - {"run", "pair", "at"})):
        with st.container(horizontal=True):
            field = st.selectbox("Column", ["–", *facets], key="field", bind="query-params", width=180)
            values = _values(place, field)
            value = st.selectbox("is", values, key="value", bind="query-params", width=200, disabled=field == "–")
            across = st.selectbox("and column", ["–", *facets], key="across", bind="query-params", width=180)
            others = _values(place, across)
            other = st.selectbox("is ", others, key="other", bind="query-params", width=200, disabled=across == "–")
        with st.container(horizontal=True):
            outcomes = st.pills("Outcome", _OUTCOMES, selection_mode="multi", key="outcome", bind="query-params")
            flipped = st.toggle("the two orders differ", key="flips", bind="query-params")
            against = st.toggle("against the label", key="against", bind="query-params")
            failing = st.toggle("with a failed check", key="failed", bind="query-params")
        with st.container(horizontal=True):
            low, high = st.slider(
                "Confidence", 0.5, 1.0, (0.5, 1.0), 0.01, key="confidence", bind="query-params", width=260
            )
            lean, long = st.slider(
                "Length in characters, candidate over baseline (log2)",
                -4.0,
                4.0,
                (-4.0, 4.0),
                0.25,
                key="ratio",
                bind="query-params",
                width=300,
            )
            search = st.text_input("Id contains", key="search", bind="query-params", width=180)
            sort = st.selectbox("Sorted by", list(SORTS), key="sort", bind="query-params", width=280)
    named = query.get("ids", "")
    chosen = tuple(named.split(",")) if named else None
    if failing:
        failed = failed_pairs(place)
        chosen = tuple(failed if chosen is None else failed & set(chosen))
    return Filter(
        field="" if field == "–" else field,
        value=value or "",
        across="" if across == "–" else across,
        other=other or "",
        outcomes=tuple(outcomes or ()),
        flipped=bool(flipped),
        against_label=bool(against),
        confidence=None if (low, high) == (0.5, 1.0) else (low, high),
        ratio=None if (lean, long) == (-4.0, 4.0) else (2.0**lean, 2.0**long),
        pairs=chosen,
        search=search or "",
    ), sort


def _values(place: Place, field: str) -> list[str]:
    assert place.run is not None
    if field == "–":
        return [""]
    return place.views.cells(place.run.run_id, field)["value"].unique(maintain_order=True).to_list()


def _rows(run_id: str, frame: polars.DataFrame) -> None:
    shown = frame.select(
        polars.Series("open", [link("pairs", run=run_id, pair=name) for name in frame["pair_id"].to_list()]),
        polars.col("pair_id").map_elements(safe, return_dtype=polars.String),
        "repeat",
        polars.col("category").map_elements(safe, return_dtype=polars.String),
        polars.coalesce("outcome", polars.format("invalid: {}", "invalid")).alias("outcome"),
        "preference",
        "confidence",
        polars.when(polars.col("consistent"))
        .then(polars.lit("agree"))
        .when(polars.col("consistent").not_())
        .then(polars.lit("differ"))
        .otherwise(polars.lit("–"))
        .alias("orders"),
        "label",
        (polars.col("candidate_chars") / polars.max_horizontal("baseline_chars", 1)).alias("length ratio"),
        "flags",
    )
    table(
        shown.drop("repeat") if frame["repeat"].max() == 0 else shown,
        alt="A page of comparisons",
        config={
            "open": st.column_config.LinkColumn(display_text="open", width=60),
            "pair_id": st.column_config.TextColumn("pair", max_chars=80, width=165),
            "category": st.column_config.TextColumn(width=105),
            "outcome": st.column_config.TextColumn(width=75),
            **dict.fromkeys(("preference", "confidence"), st.column_config.NumberColumn(format="%.2f", width=85)),
            **dict.fromkeys(("orders", "label"), st.column_config.TextColumn(width=65)),
            "length ratio": st.column_config.NumberColumn(
                format="%.2f", width=85, help="Characters, candidate over baseline"
            ),
            "flags": st.column_config.TextColumn(width=115),
        },
    )
    downloads(frame, f"pairs-{run_id}")


def _detail(place: Place, detail: Detail) -> None:
    pair = detail.pair
    first = detail.comparisons[0] if detail.comparisons else {}
    st.subheader(markdown(pair.id)[:120], anchor=False)
    st.markdown(_verdict_line(first))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        how = st.segmented_control(
            "Show", ["rendered", "raw"], default="rendered", key="view", bind="query-params", required=True
        )
        whole = st.toggle("everything, as text", key="whole", bind="query-params") if _long(detail) else False
    found = of_pair(place, pair.id)
    marked = {
        side: [span for f in found if f.side == side and f.passed is False for span in f.spans]
        for side in ("candidate", "baseline")
    }
    request = "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in pair.item.messages) or pair.item.prompt
    asked = [answers.Side("Request", _blocks(request, how="raw", whole=whole))]
    asked += [
        answers.Side(f"Source {n}", _blocks(text, how="raw", whole=whole))
        for n, text in enumerate(pair.item.context, 1)
    ]
    if pair.item.reference:
        asked.append(answers.Side("Reference", _blocks(pair.item.reference, how="raw", whole=whole)))
    answers.show(asked, key="asked", height=240)
    answers.show(
        [
            answers.Side(
                title,
                _blocks(answer.text, how=how or "rendered", whole=whole, spans=marked[side]),
                f"{safe(answer.model or 'no model named')[:80]} · {len(answer.text):,} characters",
            )
            for title, side, answer in (
                ("Candidate", "candidate", pair.candidate),
                ("Baseline", "baseline", pair.baseline),
            )
        ],
        key="sides",
    )
    if found:
        st.markdown("**Findings**")
        table(
            [
                {
                    "check": f.check,
                    "side": f.side,
                    "says": {True: "passed", False: "failed", None: "could not be made"}[f.passed],
                    "severity": f.severity.value,
                    "detail": safe(f.detail)[:400],
                }
                for f in found
            ],
            alt="Findings of hard checks on this pair",
        )
    _calls(detail)


def _verdict_line(row: Mapping[str, Any]) -> str:
    """Both orders' verdicts and what they settle to, in words."""
    if not row:
        return "This pair has no comparison."
    orders = " · ".join(
        f"{title}: {row[f'{prefix}_outcome'] or 'invalid, ' + str(row[f'{prefix}_invalid'])}"
        for title, prefix in (("candidate shown first", "cf"), ("baseline shown first", "bf"))
    )
    if row["outcome"] is None:
        return f"**no verdict** ({row['invalid']}). {orders}"
    label = f" · label: **{row['label']}**" if row["label"] else ""
    return (
        f"**{row['outcome']}** at preference {row['preference']:.3f}, confidence "
        f"{row['confidence']:.2f}{label}. {orders}"
    )


def _long(detail: Detail) -> bool:
    return (
        max(len(detail.pair.candidate.text), len(detail.pair.baseline.text), len(detail.pair.item.prompt)) > texts.CAP
    )


def _blocks(text: str, *, how: str, whole: bool, spans: list[Span] | None = None) -> list[texts.Block]:
    """An answer as it is shown: capped unless all of it is wanted, which is then plain text."""
    shown, rest = texts.capped(text, whole=whole)
    marked = [span for span in spans or [] if span.start < len(shown)]
    made = texts.rendered(shown) if how == "rendered" and not whole and not marked else texts.raw(shown, marked)
    if rest:
        made = [
            *made,
            {"tag": "p", "runs": [[f"[{rest:,} more characters: switch on “everything, as text”]", "i", ""]]},
        ]
    if not text:
        made = [{"tag": "p", "runs": [["(empty answer)", "i", ""]]}]
    return made


def _calls(detail: Detail) -> None:
    """The raw judge calls: what was answered in each order, with probabilities, reason, cost and time."""
    with st.expander(f"Judge calls ({len(detail.calls)})"):
        rows = []
        for call in detail.calls:
            first, tie, second = call.reply.probs or (None, None, None)
            rows.append(
                {
                    "order": call.placement.replace("_", " "),
                    "repeat": call.repeat,
                    "P(first)": first,
                    "P(tie)": tie,
                    "P(second)": second,
                    "finish": call.reply.finish,
                    "ms": call.reply.latency_ms,
                    "cost $": call.reply.usage.cost,
                    "tokens": call.reply.usage.prompt_tokens + call.reply.usage.completion_tokens,
                    "error": safe(call.reply.error or "")[:200],
                }
            )
        table(
            rows,
            alt="Judge calls of this pair",
            config={name: st.column_config.NumberColumn(format="%.3f") for name in ("P(first)", "P(tie)", "P(second)")},
        )
        for call in detail.calls:
            _call(call)


def _call(call: Call) -> None:
    st.caption(f"{call.placement.replace('_', ' ')}, repeat {call.repeat}, key {markdown(call.key)}")
    text, rest = texts.capped(safe(call.reply.text))
    st.code(text or "(no text)", language=None, wrap_lines=True)
    if rest:
        st.caption(f"{rest:,} more characters are in the journal")
