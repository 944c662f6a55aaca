"""``judge probe``: what do cheap tricks buy from a judge?"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from ..writing import write_whole
from .engines import engine_options, opener
from .run import Options, announce, drive, dry_run, plan_of, surroundings
from .screen import complain, home_option, progress, safe

if TYPE_CHECKING:
    from ..runs import RunPlan
    from ..store import Store

__all__ = ["command"]


@click.command("probe", epilog="Example: judge probe evals.jsonl --judge local --sample 50")
@click.argument("evalset", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--baseline", "-b", type=click.Path(dir_okay=False, path_type=Path), help="The baseline's answers, joined on id."
)
@click.option(
    "--candidate", "-c", type=click.Path(dir_okay=False, path_type=Path), help="The candidate's answers, joined on id."
)
@click.option(
    "--rubric", "-r", default="helpfulness", show_default=True, help="NAME@VERSION, NAME for the newest, or a path."
)
@click.option("--judge", "-j", default="local", show_default=True, help="The judge that is probed, as for judge run.")
@click.option(
    "--attacks", is_flag=True, help="Attacked weak answers against strong ones, 24 families, instead of the probes."
)
@click.option("--every", is_flag=True, help="With --attacks: every attack in every place, not one a family and prompt.")
@click.option("--sample", type=click.IntRange(2), default=50, show_default=True, help="Prompts that are used.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Name a column: --map baseline=answer_old.")
@click.option("--skip-bad", is_flag=True, help="Use the usable rows although others cannot be.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of labels and fences."
)
@click.option("--no-cache", is_flag=True, help="Ask again even where an identical judgement is stored.")
@click.option("--max-cost", type=click.FloatRange(0), metavar="USD", help="Stop before it may cost more than this.")
@click.option("--allow-unknown-price", is_flag=True, help="With --max-cost: count calls of unknown price as free.")
@click.option(
    "--dry-run", is_flag=True, help="Say what it would take: calls, tokens, cost, time. Calls and writes nothing."
)
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, with every number as a measure.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one self-contained HTML file.")
@engine_options
@home_option
def command(**options: Any) -> int:
    """Append tricks to the baseline's own answers of EVALSET and judge each against itself.

    The mean shift from even is what a trick buys from this judge: boilerplate, hedges, invented sources, an echo of the
    request, authority, Markdown, a master key, an injected verdict. With --attacks weak answers are attacked instead,
    and what counts is how much more often they win. No labels are needed. It is an ordinary run: journaled, resumable,
    free where the same was judged before.
    """
    asked = {name: options.pop(name) for name in ("attacks", "every", "sample", "as_md", "html", "dry_run")}
    return _begin(_Asked(**asked), Options(**options))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What belongs to the probe and not to the run."""

    attacks: bool
    every: bool
    sample: int
    as_md: bool
    html: Path | None
    dry_run: bool


def _begin(asked: _Asked, options: Options) -> int:
    from ..errors import InputError
    from ..runs import start_run
    from ..store import Store

    if asked.every and not asked.attacks:
        raise click.UsageError("--every goes with --attacks")
    if asked.html is not None and not asked.html.parent.is_dir():
        raise InputError(f"{asked.html.parent}: no such folder; make it first")
    env = surroundings(options.home)
    store = Store(env.home)
    backend = opener(env, **({} if asked.dry_run else options.elsewhere()))(options.judge)
    if asked.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            return dry_run(_plan(asked, options, Path(folder)), backend, store, as_json=options.as_json)
    plan = _plan(asked, options, store.home / "evalsets")
    announce(plan, plan.run_id, f"judge {safe(str(backend.id))}", by_pair=backend.id.by_pair)

    async def work() -> None:
        try:
            await start_run(plan, backend, store, report=progress())
        finally:
            await backend.close()

    drive(work(), plan.run_id, options.home)
    return _show(asked, options, store, plan.run_id)


def _plan(asked: _Asked, options: Options, folder: Path) -> RunPlan:
    """The probes as an eval set in ``folder``, and the run over it."""
    from rubrics import load

    from ..formats import open_evalset, write_evalset
    from ..hacking.probes import attack_pairs, probe_pairs

    answers = {side: getattr(options, side) for side in ("candidate", "baseline")}
    source = open_evalset(options.evalset, **{**options.reading(), **answers})
    if asked.attacks:
        pairs, weak = attack_pairs(source.pairs(), load(options.rubric), sample=asked.sample, every=asked.every)
    else:
        pairs, weak = probe_pairs(source.pairs(), sample=asked.sample), ""
    kind = "attacks" if asked.attacks else "probes"
    name = hashlib.sha256(f"{source.digest} {kind} {asked.sample} {asked.every} {options.rubric}".encode()).hexdigest()
    path = folder / f"{kind}-{name[:12]}.jsonl"
    write_evalset(path, pairs)
    made = replace(options, evalset=path, candidate=None, baseline=None, maps=(), skip_bad=False, limit=None)
    probe = {"kind": kind, "of": source.digest, "sample": asked.sample, "every": asked.every, "weak": weak}
    return replace(plan_of(made), canaries=None, group={"probe": probe})


def _show(asked: _Asked, options: Options, store: Store, run_id: str) -> int:
    from ..archive import keep
    from ..hacking.probes import probe_report
    from ..render import probing as render

    info = store.run(run_id)
    report = probe_report(store, info)
    text = render.probe_json(report)
    head = {
        "rubric": report.rubric, "rubric_digest": info.header["rubric_digest"], "sealed": info.sealed,
        "judge": report.judge, "kind": report.kind, "evalset": report.evalset,
        "pairs": report.pairs, "says": render.probe_headline(report), "replies_since": store.replies_since(info),
        "silent": {row.name: [row.invalid, row.n + row.invalid] for row in report.probes},
    }  # fmt: skip
    kept = keep(store.home, "probe", run_id, text, at=stamp(), head=head)
    if asked.html is not None:
        write_whole(asked.html, render.probe_html(report))
        click.echo(f"wrote {safe(str(asked.html))}", err=True)
    else:
        shape = render.probe_markdown if asked.as_md else render.probe_text
        click.echo(text if options.as_json else shape(report))
    click.echo(f"kept as {kept.entry.id} ({safe(str(kept.path))})", err=True)
    if not any(measure.difference for measure in report.measures):
        complain(f"not one comparison could be judged; see: {advised('report', run_id)}")
        return 3
    return 0
