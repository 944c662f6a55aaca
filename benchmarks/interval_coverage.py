"""Coverage on real labels: does the corrected 95% interval hold the human win rate of the full set, and how wide is it?

Every gold set with human labels and recorded verdicts, every judge: draw n pairs at random, give only their labels to
the estimator, and see whether its interval for the fixed set holds the mean of all labels. Goal: 93-97% everywhere,
never more than 5% wider than the labels alone, narrower wherever the judge is informative.

    python benchmarks/interval_coverage.py [--draws 500] [--sizes 50 100 300] [--sets vicuna80 pandalm] [--json
    coverage.json]

Data is looked for in $JUDGE_GOLD, else in ../shared/gold; sets that are missing are skipped. Takes about ten minutes on
one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibration.estimates import wilson
from calibration.gold import GoldSet
from calibration.ppi import Sample, cross_fit_scores, interval, ppi_estimate

ROOT = Path(os.environ.get("JUDGE_GOLD") or Path(__file__).resolve().parents[2] / "shared" / "gold")
SETS = ("llmbar", "llmbar_human3", "faireval", "vicuna80", "pandalm", "judgebench")
VALUE = {"A": 1.0, "tie": 0.5, "B": 0.0}


def lines(folder: Path, name: str) -> list[str]:
    plain = folder / name
    if plain.exists():
        return plain.read_text(encoding="utf-8").splitlines()
    return gzip.decompress((folder / f"{name}.gz").read_bytes()).decode().splitlines()


def load(name: str):
    """Yield (judge, outcomes, soft score of both orders, features, prompts) over the pairs that the judge judged."""
    gold = GoldSet.from_lines(lines(ROOT / name, "pairs.jsonl"), source=name)
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines(ROOT / name, "verdicts.jsonl"):
        row = json.loads(line)
        # An unparsed verdict knows nothing: one half. Where probabilities are recorded they are the soft score.
        soft = row["prob_a"] if row.get("prob_a") is not None else VALUE.get(row["verdict"], 0.5)
        scores[row["judge"]][row["id"]].append(soft)
    for judge, by_pair in sorted(scores.items()):
        items = [item for item in gold.items if item.pair_id in by_pair]
        f = np.array([np.mean(by_pair[item.pair_id]) for item in items])
        gap = np.array([float((item.candidate_length or 0) - (item.baseline_length or 0)) for item in items])
        features = np.column_stack([f - 0.5, np.tanh(gap / np.sqrt(np.mean(gap**2)))])
        yield judge, np.array([item.value for item in items]), f, features, [item.prompt_id for item in items]


def cover(y, f, features, prompts, n: int, draws: int, seed: int = 0) -> dict[str, float]:
    """Coverage and mean width over random draws, for the corrected interval and for the labels alone."""
    truth, size = float(y.mean()), len(y)
    rng = np.random.default_rng(seed)
    base = Sample.simple(range(1), size, prompts=prompts)
    hits, widths = np.zeros(2), np.zeros(2)
    for draw in range(draws):
        rows = np.sort(rng.permutation(size)[:n])
        sample = Sample(rows, np.full(n, n / size), base.clusters, prompts)
        scores = cross_fit_scores(sample, y[rows], features, seed=draw)
        shown = (
            interval(sample, ppi_estimate(sample, y[rows], scores), estimand="fixed set"),
            interval(sample, ppi_estimate(sample, y[rows], f, method="human only"), estimand="fixed set"),
        )
        hits += [estimate.low <= truth <= estimate.high for estimate in shown]
        widths += [estimate.high - estimate.low for estimate in shown]
    return {
        "cover": hits[0] / draws,
        "cover_human": hits[1] / draws,
        "width": widths[0] / draws,
        "ratio": widths[0] / widths[1],
        "rho": float(np.corrcoef(y, f)[0, 1]) if f.std() > 0 else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 300])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started, rows = time.perf_counter(), []
    for name in options.sets:
        if not (ROOT / name).is_dir():
            print(f"{name}: not in {ROOT}, skipped")
            continue
        for judge, y, f, features, prompts in load(name):
            # Draws of their own for every judge: the runs of one set are then independent readings.
            seed = zlib.crc32(f"{name} {judge}".encode())
            for n in (size for size in options.sizes if size <= 0.8 * len(y)):
                row = {"set": name, "judge": judge, "n": n, "N": len(y)} | cover(
                    y, f, features, prompts, n, options.draws, seed
                )
                rows.append(row)
                print(
                    f"{name:14} {judge[:34]:34} n={n:3} of {len(y):3} rho {row['rho']:+.2f}  cover {row['cover']:.3f}"
                    f" (labels alone {row['cover_human']:.3f})  width ratio {row['ratio']:.3f}",
                    flush=True,
                )
    print(
        f"\n{'set':14} {'n':>4} {'runs':>5} {'cover':>6} {'min':>6} {'max':>6} {'alone':>6} {'ratio':>6} {'worst':>6}"
    )
    for name, n in sorted({(row["set"], row["n"]) for row in rows}):
        own = [row for row in rows if (row["set"], row["n"]) == (name, n)]
        cover_, ratio = ([row[key] for row in own] for key in ("cover", "ratio"))
        alone = np.mean([row["cover_human"] for row in own])
        print(
            f"{name:14} {n:4} {len(own):5} {np.mean(cover_):6.3f} {min(cover_):6.3f} {max(cover_):6.3f} {alone:6.3f}"
            f" {np.mean(ratio):6.3f} {max(ratio):6.3f}"
        )
    inside = sum(0.93 <= row["cover"] <= 0.97 for row in rows)
    low, high = wilson(0.95 * options.draws, options.draws)
    print(
        f"{inside} of {len(rows)} runs cover 93-97% (at a true 95% and {options.draws} draws one run reads"
        f" {low:.3f}-{high:.3f} by chance); {time.perf_counter() - started:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
