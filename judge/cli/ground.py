"""``judge ground``: whose claims are supported by the supplied documents, the candidate's or the baseline's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..environment import environment
from ..writing import whole, write_whole
from .making import keep_grounding
from .screen import Ticker, bring_in, complain, home_option, safe

if TYPE_CHECKING:
    from ..grounding.coefficients import Coefficients
    from ..grounding.likelihood import Reader
    from ..grounding.report import GroundedPair
    from ..store import RunInfo
    from ..types import Pair

__all__ = ["command"]

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")


@click.command("ground", epilog="Example: judge ground answers.jsonl --map context=passages --md")
@click.argument("target", metavar="[RUN|EVALSET]", default="latest")
@click.option("--candidate", type=click.Path(dir_okay=False, path_type=Path), help="Answers joined on id.")
@click.option("--baseline", type=click.Path(dir_okay=False, path_type=Path), help="Answers joined on id.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Column of a field; may be repeated.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be used, instead of refusing the set.")
@click.option(
    "--coefficients", "-c", type=click.Path(dir_okay=False, path_type=Path),
    help="Weights that --calibrate saved (default: the shipped ones, from news summaries).",
)  # fmt: skip
@click.option("--local", is_flag=True, help="Let the embedded model read, too: better and far slower.")
@click.option(
    "--calibrate", type=click.Path(dir_okay=False, path_type=Path), metavar="LABELS",
    help="Fit the weights to labelled claims (JSONL: context, claim, label) and measure them.",
)  # fmt: skip
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="With --calibrate: save the weights here."
)
@click.option(
    "--claims", type=click.Path(dir_okay=False, path_type=Path),
    help="Also write every claim as JSONL, ready to be labelled for --calibrate.",
)  # fmt: skip
@click.option("--judge", "-j", "judge_spec", help="Also let this judge compare the pairs under groundedness@1.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the folds.")
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(**options: Any) -> int:
    """Hold both answers of each pair against its documents (`context`): claims, evidence, contradictions.

    Reads words, numbers and order on this machine and asks no model (--local: the embedded one). Without documents an
    answer is not judged, and never supported. A judge that reads meaning is the stronger check: --judge J.
    """
    return _ground(Options(**options))


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given."""

    target: str
    candidate: Path | None
    baseline: Path | None
    maps: tuple[str, ...]
    skip_bad: bool
    coefficients: Path | None
    local: bool
    calibrate: Path | None
    save: Path | None
    claims: Path | None
    judge_spec: str | None
    seed: int
    as_md: bool
    as_json: bool
    home: str | None

    @property
    def is_file(self) -> bool:
        """Whether the target is an eval set, by its name or because it is there."""
        return Path(self.target).suffix.lower() in _SUFFIXES or Path(self.target).is_file()


def _ground(options: Options) -> int:
    from ..grounding.coefficients import Coefficients, shipped, shipped_local

    _usable(options)
    default = shipped_local if options.local else shipped
    weighed = default() if options.coefficients is None else Coefficients.read(options.coefficients)
    if options.calibrate is not None:
        return _calibrate(options, weighed)
    code = _report(options, weighed)
    if options.judge_spec is not None:
        return _judge(options) or code
    return code


def _usable(options: Options) -> None:
    """Refuse what does not go together, before anything is read."""
    from ..errors import InputError

    if options.as_md and options.as_json:
        raise click.UsageError("--md and --json both want stdout; give one of them")
    if options.save is not None and options.calibrate is None:
        raise click.UsageError("--save goes with --calibrate")
    if options.calibrate is not None and (options.as_md or options.claims or options.judge_spec):
        raise click.UsageError("--calibrate reads labels and no run: leave out --md, --claims and --judge")
    if options.judge_spec is not None and (options.as_json or options.as_md):
        raise click.UsageError(
            "--judge prints a second report; for data use: judge run EVALSET --rubric groundedness@1 --judge J --json"
        )
    if not options.is_file and (options.candidate or options.baseline or options.skip_bad):
        raise click.UsageError("--candidate, --baseline and --skip-bad are for an eval set, a run has its answers")
    for path in (options.save, options.claims):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path.parent}: no such folder; make it first")


def _report(options: Options, weighed: Coefficients) -> int:
    from ..errors import InputError
    from ..grounding.report import ground_pairs, report
    from ..render import grounding as render
    from ..store import Store

    title, total, pairs, info = _pairs(options)
    ticker = Ticker()
    grounded = ground_pairs(
        pairs,
        weighed,
        reader=_reader(options, weighed),
        progress=lambda done: ticker.show(done, total, lambda: f"grounded {done}/{total} pairs"),
    )
    found = report(_written(grounded, options.claims) if options.claims is not None else grounded, weighed)
    if found.pairs and all(counts.get("no context", 0) == found.pairs for counts in found.not_judged.values()):
        raise InputError(
            f"{title}: not one of its {found.pairs} pairs has a context, so nothing can be held against anything; give "
            "the documents in the column 'context' (a text or a list of texts), or name it with --map context=COLUMN"
        )
    if options.as_json:
        click.echo(render.grounding_json(found, title))
    else:
        click.echo((render.grounding_markdown if options.as_md else render.grounding_text)(found, title))
    if info is not None:
        kept = keep_grounding(Store(_home(options)), info, found)
        click.echo(f"kept as {kept.entry.id}", err=True)
    if options.claims is not None:
        click.echo(
            f"wrote {safe(str(options.claims))}; put supported or unsupported for its labels, then: judge ground "
            f"--calibrate {safe(str(options.claims))}",
            err=True,
        )
    if not found.judged:
        complain("not one pair could be judged on both sides")
        return 3
    return 0


def _reader(options: Options, weighed: Coefficients) -> Reader | None:
    """The embedded model where it is asked for, or where the weights need it."""
    if not (options.local or weighed.reads):
        return None
    from ..grounding.likelihood import open_local

    return open_local()


def _pairs(options: Options) -> tuple[str, int, Iterator[Pair], RunInfo | None]:
    """What is grounded: its name, how many pairs, the pairs, and the run they are of."""
    from ..formats import open_evalset

    if options.is_file:
        evalset = open_evalset(
            Path(options.target),
            candidate=options.candidate,
            baseline=options.baseline,
            mapping=_mapping(options.maps),
            skip_bad=options.skip_bad,
        )
        return Path(options.target).name, evalset.rows, evalset.pairs(), None
    from ..store import Store

    if options.maps:
        raise click.UsageError("--map names columns of a file; a run has its fields")
    info = _run(options)
    store = Store(_home(options))
    ids = store.ids(info.run_id)
    return f"run {info.run_id}", len(ids), store.pairs(info.run_id, ids), info


def _home(options: Options) -> Path:
    return Path(options.home) if options.home else environment().home


def _run(options: Options) -> RunInfo:
    from ..store import Store

    store = Store(_home(options))
    bring_in(store)
    return store.run(options.target)


def _written(pairs: Any, path: Path) -> Iterator[GroundedPair]:
    """The pairs as they come, with each claim written to a file that appears when all are done."""
    import orjson

    from ..render.words import plain

    with whole(path) as part, part.open("wb") as handle:
        for pair in pairs:
            for side in ("candidate", "baseline"):
                for claim in pair.of(side).claims:
                    row = {"pair_id": pair.pair_id, "side": side, **plain(claim)}
                    row["claim"] = row.pop("text")
                    if claim.support is not None:
                        row |= {"context": list(pair.context), "label": None}
                    handle.write(orjson.dumps(row) + b"\n")
            yield pair


def _calibrate(options: Options, weighed: Coefficients) -> int:
    from ..grounding.calibrating import calibrate, read_labels, table
    from ..render import grounding as render

    assert options.calibrate is not None
    rows = read_labels(options.calibrate, _mapping(options.maps))
    ticker = Ticker()
    found = calibrate(
        table(
            rows,
            reader=_reader(options, weighed),
            progress=lambda n, total: ticker.show(n, total, lambda: f"read {n}/{total} claims"),
        ),
        start=weighed,
        name=options.save.stem if options.save is not None else options.calibrate.stem,
        source={"file": options.calibrate.name, "sha256": _digest(options.calibrate), "from": weighed.name},
        seed=options.seed,
    )
    if options.save is not None:
        write_whole(options.save, found.coefficients.to_json())
    click.echo(
        render.calibrated_json(found) if options.as_json else render.calibrated_text(found, options.calibrate.name)
    )
    if options.save is not None:
        click.echo(f"wrote {safe(str(options.save))}; use it: judge ground -c {safe(str(options.save))}", err=True)
    else:
        click.echo("nothing was saved: give --save FILE to use these weights with -c FILE", err=True)
    return 0


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _judge(options: Options) -> int:
    """The same pairs judged under the groundedness rubric: an ordinary run, journaled and resumable."""
    from .run import Options as RunOptions
    from .run import run

    assert options.judge_spec is not None
    target, candidate, baseline, maps = Path(options.target), options.candidate, options.baseline, options.maps
    skip_bad, limit = options.skip_bad, None
    if not options.is_file:
        head = _run(options).header["evalset"]
        opened = head["options"]
        target = Path(head["files"][0])
        candidate, baseline = (Path(opened[side]) if opened.get(side) else None for side in ("candidate", "baseline"))
        maps = tuple(f"{field}={column}" for field, column in (opened.get("mapping") or {}).items())
        skip_bad, limit = bool(opened.get("skip_bad")), opened.get("limit")
    click.echo("")
    return run(
        RunOptions(
            evalset=target,
            candidate=candidate,
            baseline=baseline,
            rubric="groundedness@1",
            judge=options.judge_spec,
            maps=maps,
            skip_bad=skip_bad,
            limit=limit,
            seed=options.seed,
            home=options.home,
        )
    )


def _mapping(maps: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for entry in maps:
        field, equals, column = entry.partition("=")
        if not equals or not field or not column:
            raise click.UsageError(f"--map {entry}: write FIELD=COLUMN, for example --map context=documents")
        found[field] = column
    return found
