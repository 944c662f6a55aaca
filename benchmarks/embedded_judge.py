"""What is the embedded judge worth? Every scoring method on human labels and on constructed faults, against length
baselines.

    python benchmarks/embedded_judge.py measure --gold ../shared/gold --work /tmp/embedded   # resumable
    python benchmarks/embedded_judge.py table --gold ../shared/gold --work /tmp/embedded     # no model

``measure`` appends one JSON line per unit of model work to ``WORK/units-<compute>.jsonl`` and skips what is there.
``table`` reads those lines, fits the combinations on the fit set alone, and prints the Markdown tables of
docs/embedded-judge.md.

Sets: LLMBar Natural (all 100), EvalBiasBench (all 80), PandaLM and Vicuna80 (200 pairs each, decisive human labels,
drawn with a seed). Fit set: 120 pairs of LLMBar's four adversarial subsets, never used for testing. Faults: the better
answer of a pair (by the gold label) against the same answer damaged in one way.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.estimates import share
from judge.backends.language_model import available_threads, open_language_model
from judge.backends.local import DEFAULT_METHOD
from judge.backends.measures import Unit, measure, units_of
from judge.backends.scoring import (
    END_UNKNOWN,
    LIMIT,
    METHODS,
    answer_score,
    label_probabilities,
    probabilities,
)
from judge.protocol import plan
from judge.types import Answer, Ask, Item, JudgeId, Labels, Order, Outcome, Pair

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SEED = 20240601
SETS = ("llmbar_natural", "evalbiasbench", "pandalm", "vicuna80")
FIT = "fit_llmbar_adversarial"
FAULTS = ("off_topic", "shuffled", "repeated_8x", "truncated", "empty")
METHOD_ROWS = (*METHODS, "longer wins", "shorter wins")
POINTWISE = ("given", "free", "yesno", "rating")
LABEL_PAIRS = {"llmbar_natural": 100, "evalbiasbench": 80, "pandalm": 40, "vicuna80": 20, FIT: 0}
FAULT_PAIRS = {"llmbar_natural": 60, "evalbiasbench": 40, "pandalm": 60, "vicuna80": 30, FIT: 100}


@dataclass(frozen=True)
class Row:
    """One pair of the study; ``better`` is 1 or 2, ``fault`` is empty for a human label."""

    set: str
    id: str
    question: str
    first: str
    second: str
    better: int
    fault: str = ""
    category: str = ""


def read(gold: Path, name: str) -> list[Row]:
    """The decisive pairs of one set, sampled with the seed where the set is larger than the study needs."""
    folder = {"llmbar_natural": "llmbar", FIT: "llmbar"}.get(name, name)
    rows = []
    for line in (gold / folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        answers = [raw["response_a"], raw["response_b"]]
        if (
            raw["label"] not in ("A", "B")
            or not all(isinstance(answer, str) for answer in answers)
            or answers[0] == answers[1]
        ):
            continue
        if folder == "llmbar" and (raw["category"] == "Natural") != (name == "llmbar_natural"):
            continue
        rows.append(
            Row(
                name, raw["id"], str(raw["prompt"]), *answers, 1 if raw["label"] == "A" else 2, "", str(raw["category"])
            )
        )
    if name == FIT:
        tested = {row.question.strip() for tested in SETS for row in read(gold, tested)}
        rows = [row for row in rows if row.question.strip() not in tested]
    size = {"pandalm": 200, "vicuna80": 200, FIT: 120}.get(name, len(rows))
    random.Random(f"{SEED}-{name}").shuffle(rows)
    return rows[:size]


def faults(rows: list[Row]) -> list[Row]:
    """Five damaged copies of the better answer of each item, one item a question; the whole one is better."""
    name = rows[0].set
    rng = random.Random(f"{SEED}-faults-{name}")
    seen: dict[str, tuple[str, str]] = {}
    for row in rows:
        best = row.first if row.better == 1 else row.second
        if len(best.split()) >= 8:
            seen.setdefault(row.question, (row.id, best))
    items = [(question, *value) for question, value in seen.items()][: FAULT_PAIRS[name]]
    made = []
    for number, (question, identity, best) in enumerate(items):
        words = best.split()
        shuffled = words[:]
        rng.shuffle(shuffled)
        cut = best[: int(len(best) * rng.uniform(0.4, 0.7))].rsplit(None, 1)[0]
        damaged = {
            "off_topic": items[(number + 1 + rng.randrange(len(items) - 1)) % len(items)][2],
            "shuffled": " ".join(shuffled),
            "repeated_8x": "\n".join([best] * 8),
            "truncated": cut.rstrip(".!?"),
            "empty": "",
        }
        for fault, bad in damaged.items():
            swap = rng.random() < 0.5
            first, second = (bad, best) if swap else (best, bad)
            made.append(Row(name, f"{identity}-{fault}", question, first, second, 2 if swap else 1, fault))
    return made


def study(gold: Path) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Human-labelled rows and constructed rows, by set."""
    human = {name: read(gold, name) for name in (FIT, *SETS)}
    return human, {name: faults(rows) for name, rows in human.items()}


def as_ask(row: Row) -> Ask:
    """The row as an ask for the pointwise measures, which read nothing but the three texts."""
    return Ask(
        "", row.id, Order.CANDIDATE_FIRST, 0, "", "", Labels("A", "B", "TIE"), row.question, row.first, row.second
    )


def label_asks(row: Row) -> tuple[Ask, ...]:
    """Both blind asks of a row under the released helpfulness rubric."""
    import rubrics

    pair = Pair(
        row.id,
        Item(row.question),
        Answer(row.first),
        Answer(row.second),
        Outcome.WIN if row.better == 1 else Outcome.LOSS,
    )
    return plan(pair, rubrics.load("helpfulness@1"), JudgeId("local/smollm2-135m"))


def wanted(
    human: dict[str, list[Row]], made: dict[str, list[Row]], *, sets: list[str], kinds: tuple[str, ...], labels: bool
) -> Iterator[Unit]:
    """Every unit of model work of the study, the fit set first."""
    for name in sets:
        for row in (*human[name], *made.get(name, [])):
            yield from units_of(as_ask(row), kinds)
    if labels:
        for name in sets:
            count = LABEL_PAIRS[name]
            for row in human[name][:count]:
                for ask in label_asks(row):
                    yield from units_of(ask, ("labels",))
            for row in made.get(name, [])[: 5 * (count // 10)]:
                for ask in label_asks(row):
                    yield from units_of(ask, ("labels",))


def load(path: Path) -> dict[str, dict[str, float]]:
    """Units measured so far, by key; a torn last line is ignored."""
    values: dict[str, dict[str, float]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            values[row["key"]] = row["values"]
    return values


def run_units(units: Iterable[Unit], path: Path, *, compute: str, threads: int, cache: Path | None) -> None:
    """Measure what is missing and append it line by line."""
    done = load(path)
    todo = list({unit.key.hex(): unit for unit in units if unit.key.hex() not in done}.values())
    print(f"{len(done)} units known, {len(todo)} to measure with {compute}", file=sys.stderr)
    model = open_language_model(compute=compute, threads=threads, cache=cache)  # type: ignore[arg-type]
    begun = time.monotonic()
    with path.open("a", encoding="utf-8") as out, ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(measure, model, unit): unit for unit in todo}
        for number, future in enumerate(as_completed(waiting), 1):
            out.write(
                json.dumps({"key": waiting[future].key.hex(), "kind": waiting[future].kind, "values": future.result()})
                + "\n"
            )
            out.flush()
            if number % 200 == 0:
                print(f"{number}/{len(todo)} after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Judged:
    """One row under one method: score difference from the better side (> 0 is right), both orders for ``labels``."""

    row: Row
    margin: float
    flipped: bool = False
    first_slots: float = 0.5


class Results:
    """The measured units, read as judgements; a row with an unmeasured unit is left out and counted by whoever asks."""

    def __init__(self, units: dict[str, dict[str, float]]) -> None:
        self.units = units

    def values(self, row: Row, answer: str, kinds: tuple[str, ...]) -> dict[str, float] | None:
        """The measures of one answer; empty for an answer of white space, ``None`` where a unit is missing."""
        found: dict[str, float] = {}
        if answer.strip():
            for kind in kinds:
                unit = self.units.get(Unit(kind, "" if kind == "free" else row.question, answer).key.hex())
                if unit is None:
                    return None
                found |= unit
        return found

    def scores(self, row: Row, method: str) -> tuple[float, float] | None:
        """Both answers' scores under a pointwise method."""
        both = [self.values(row, answer, METHODS[method].needs) for answer in (row.first, row.second)]
        if both[0] is None or both[1] is None:
            return None
        return answer_score(method, both[0]), answer_score(method, both[1])

    def judge(self, row: Row, method: str) -> Judged | None:
        """The row under a method or a length baseline."""
        sign = 1 if row.better == 1 else -1
        if method in ("longer wins", "shorter wins"):
            longer = len(row.first) - len(row.second)
            return Judged(row, sign * longer * (1 if method == "longer wins" else -1))
        if method == "labels":
            return self._labels(row)
        scores = self.scores(row, method)
        if scores is None:
            return None
        return Judged(row, 0.0 if scores[0] == scores[1] else sign * (scores[0] - scores[1]))

    def _labels(self, row: Row) -> Judged | None:
        preferences, outcomes, first = [], [], 0.0
        for ask in label_asks(row):
            unit = self.units.get(units_of(ask, ("labels",))[0].key.hex())
            if unit is None:
                return None
            p_first, p_tie, p_second = label_probabilities((unit["first"], unit["tie"], unit["second"]))
            swapped = ask.order is Order.BASELINE_FIRST
            preferences.append((p_first - p_second) * (-1 if swapped else 1))
            place = max((p_first, 1), (p_second, 2), (p_tie, 0))[1]
            first += {1: 0.5, 0: 0.25, 2: 0.0}[place]
            outcomes.append({0: 0, 1: 1, 2: 2}[place] if not swapped else {0: 0, 1: 2, 2: 1}[place])
        margin = sum(preferences) * (1 if row.better == 1 else -1)
        return Judged(row, margin, outcomes[0] != outcomes[1], first)


def cell(judged: list[Judged]) -> str:
    """Accuracy in per cent with its interval, clustered by prompt; an undecided pair counts as wrong."""
    estimate = share([float(one.margin > 0) for one in judged], clusters=[one.row.question for one in judged])
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.0f} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def human_table(results: Results, human: dict[str, list[Row]]) -> Iterator[str]:
    """Accuracy on human labels, by method and set."""
    found = {(m, s): [j for row in human[s] if (j := results.judge(row, m))] for m in METHOD_ROWS for s in SETS}
    sizes = {s: (len(found["blend", s]), len({one.row.question for one in found["blend", s]})) for s in SETS}
    yield (
        "| method | "
        + " | ".join(f"{s} ({n} pairs, {c} prompts)" for s, (n, c) in sizes.items())
        + " | flips | first slot |"
    )
    yield "|---" * (len(SETS) + 3) + "|"
    for method in METHOD_ROWS:
        cells = []
        for s in SETS:
            judged = found[method, s]
            note = f" (n={len(judged)})" if len(judged) != sizes[s][0] else ""
            cells.append(cell(judged) + note)
        every = [one for s in SETS for one in found[method, s]]
        flips = f"{sum(one.flipped for one in every) / len(every):.0%}" if every else "-"
        first = f"{sum(one.first_slots for one in every) / len(every):.0%}" if every else "-"
        yield f"| {method} | " + " | ".join(cells) + f" | {flips} | {first} |"


def length_table(results: Results, human: dict[str, list[Row]]) -> Iterator[str]:
    """Accuracy over all four sets where the better answer is the longer one and where it is the shorter one.

    A rule that looks at length alone has 100 and 0, or 0 and 100: the mean of the two is then 50, which is chance.
    """
    yield "| method | all pairs | better answer longer | better answer shorter | mean of the two |"
    yield "|---|---|---|---|---|"
    for method in METHOD_ROWS:
        judged = [j for s in SETS for row in human[s] if (j := results.judge(row, method))]
        lengths = [results.judge(one.row, "longer wins") for one in judged]
        parts = [
            [one for one, length in zip(judged, lengths, strict=True) if length and sign * length.margin > 0]
            for sign in (1, -1)
        ]
        if all(parts):
            both = sum(sum(one.margin > 0 for one in part) / len(part) for part in parts) / 2
            cells = [f"{cell(part)} (n={len(part)})" for part in (judged, *parts)]
            yield f"| {method} | " + " | ".join(cells) + f" | {100 * both:.0f} |"


def fault_table(results: Results, made: dict[str, list[Row]], sets: tuple[str, ...]) -> Iterator[str]:
    """Accuracy on constructed faults pooled over sets, by method and fault."""
    rows = [row for s in sets for row in made[s]]
    count = {
        fault: sum(results.judge(row, "blend") is not None for row in rows if row.fault == fault) for fault in FAULTS
    }
    yield "| method | " + " | ".join(f"{fault} (n={n})" for fault, n in count.items()) + " |"
    yield "|---" * (len(FAULTS) + 1) + "|"
    for method in METHOD_ROWS:
        cells = []
        for fault in FAULTS:
            judged = [j for row in rows if row.fault == fault and (j := results.judge(row, method))]
            note = f" (n={len(judged)})" if len(judged) != count[fault] else ""
            cells.append(cell(judged) + note)
        yield f"| {method} | " + " | ".join(cells) + " |"


def category_table(results: Results, human: dict[str, list[Row]], method: str) -> Iterator[str]:
    """Accuracy of one method on human labels by category, where a category has at least 12 pairs, with the length
    baseline.
    """
    yield f"| set: category | n | {method} | longer wins |"
    yield "|---|---|---|---|"
    for s in SETS:
        for category in sorted({row.category for row in human[s]}):
            rows = [row for row in human[s] if row.category == category]
            judged = [j for row in rows if (j := results.judge(row, method))]
            if len(judged) >= 12:
                longer = [results.judge(one.row, "longer wins") for one in judged]
                yield f"| {s}: {category} | {len(judged)} | {cell(judged)} | {cell([j for j in longer if j])} |"


def fit(results: Results, human: list[Row], made: list[Row]) -> Iterator[str]:
    """The weights of ``blend`` and every method's scale, from the fit set alone.

    Weights: logistic regression without intercept of "sound against damaged", the four faults weighing the same. Scale:
    the maximum of the likelihood in which faults are told apart and pairs of two sound answers are coin flips, both
    kinds weighing the same: so typical differences between sound answers stay near 0.5. A method that gains nothing
    gets the median difference of the sound pairs instead.
    """
    import numpy as np
    from scipy.optimize import minimize, minimize_scalar

    def margins(rows: list[Row], method: str) -> npt.NDArray[np.float64]:
        return np.array([j.margin for row in rows if (j := results.judge(row, method)) and math.isfinite(j.margin)])

    def parts(rows: list[Row]) -> npt.NDArray[np.float64]:
        found = []
        for row in rows:
            a, b = (results.values(row, text, ("given", "free")) for text in (row.first, row.second))
            if a and b:
                pair = [(answer_score("pmi-root", v), v.get("end", END_UNKNOWN)) for v in (a, b)]
                found.append((np.subtract(*pair)) * (1 if row.better == 1 else -1))
        return np.array(found)

    def softplus(x: npt.NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -x).mean())

    by_fault = [[row for row in made if row.fault == fault] for fault in FAULTS if fault != "empty"]
    designs = [parts(rows) for rows in by_fault]
    best = minimize(lambda w: sum(softplus(x @ w) for x in designs) / 4 + 1e-3 * float(w @ w), np.ones(2))
    ends = [
        v["end"]
        for row in by_fault[1]
        if (v := results.values(row, row.first if row.better == 1 else row.second, ("given",))) and "end" in v
    ]
    yield f"blend: pmi-root 1, end {best.x[1] / best.x[0]:.3f}; mean end of sound answers {np.mean(ends):.2f}"
    for method in METHODS:
        if method == "labels":
            continue
        faulty, sound = [margins(rows, method) for rows in by_fault], margins(human, method)

        def loss(log_scale: float, faulty: list[Any] = faulty, sound: Any = sound) -> float:
            t = math.exp(log_scale)
            told = sum(softplus(np.clip(x / t, -LIMIT, LIMIT)) for x in faulty) / 4
            return told + (softplus(sound / t) + softplus(-sound / t)) / 2

        found = minimize_scalar(loss, bounds=(math.log(1e-3), math.log(1e3)), method="bounded")
        gains = found.fun < 2 * math.log(2) - 0.01
        scale = math.exp(found.x) if gains else float(np.median(np.abs(sound)))
        how = "fitted" if gains else "median, no gain"
        yield f"{method}: scale {scale:.3g} ({how}); in use {METHODS[method].scale:g}"


def effect(one: Results, other: Results, rows: list[Row], method: str) -> str:
    """How far float32 and int8 disagree on the same rows."""
    from rubrics.model import TieRule

    shifts, sides, outcomes = [], 0, 0
    rule = TieRule()
    for row in rows:
        a, b = one.scores(row, method), other.scores(row, method)
        if a is None or b is None:
            continue
        p, q = (probabilities(*s, scale=METHODS[method].scale) for s in (a, b))
        shifts.append(max(abs(x - y) for x, y in zip(p, q, strict=True)))
        sides += (a[0] > a[1]) != (b[0] > b[1])
        outcomes += rule.outcome(*p) != rule.outcome(*q)
    if not shifts:
        return f"| {method} | 0 | | | | |"
    n = len(shifts)
    return f"| {method} | {n} | {sides / n:.1%} | {outcomes / n:.1%} | {sum(shifts) / n:.3f} | {max(shifts):.3f} |"


def tables(work: Path, human: dict[str, list[Row]], made: dict[str, list[Row]]) -> Iterator[str]:
    """Every table of the document."""
    int8 = Results(load(work / "units-int8.jsonl"))
    exact = Results(load(work / "units-float32.jsonl"))
    yield from ("", "### Fitted on the fit set", "", *fit(int8, human[FIT], made[FIT]))
    yield from ("", "### Human labels", "", *human_table(int8, human))
    yield from ("", "### Human labels by length, four sets together", "", *length_table(int8, human))
    yield from ("", "### Constructed faults, four test sets", "", *fault_table(int8, made, SETS))
    yield from ("", "### Constructed faults, fit set", "", *fault_table(int8, made, (FIT,)))
    yield from ("", "### By category", "", *category_table(int8, human, DEFAULT_METHOD))
    rows = [row for s in SETS for row in (*human[s], *made[s]) if row.fault != "empty"]
    yield from (
        "",
        "### int8 against float32",
        "",
        "| method | pairs | other side | other outcome | mean dp | max dp |",
        "|---|---|---|---|---|---|",
    )
    for method in ("likelihood", "pmi-mean", "pmi-sum", "pmi-root", "blend"):
        yield effect(int8, exact, rows, method)
    if exact.units:
        yield from ("", "### Human labels, float32", "", *human_table(exact, human))
        yield from ("", "### Faults, float32", "", *fault_table(exact, made, SETS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "table"))
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--compute", default="int8", choices=("int8", "float32"))
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--kinds", default=",".join(POINTWISE))
    parser.add_argument("--no-labels", action="store_true")
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("--sets", default=",".join((FIT, *SETS)), help="measure these sets only")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    human, made = study(options.gold)
    if options.step == "measure":
        units = wanted(
            human,
            {} if options.no_faults else made,
            sets=options.sets.split(","),
            kinds=tuple(options.kinds.split(",")),
            labels=not options.no_labels,
        )
        path = options.work / f"units-{options.compute}.jsonl"
        run_units(units, path, compute=options.compute, threads=options.threads, cache=options.cache)
    else:
        for line in tables(options.work, human, made):
            print(line)


if __name__ == "__main__":
    main()
