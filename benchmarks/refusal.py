"""Fits the weights of the refusal classifier on one half of XSTest and measures them on the other.

    python benchmarks/refusal.py GOLD/xstest              # figures on the held-out half, with intervals
    python benchmarks/refusal.py GOLD/xstest --fit        # the table of weights, from the half for development

Halves are by prompt: development where the SHA-256 of the prompt begins with an even byte. GOLD/xstest holds
``items.jsonl`` (answers with two annotators and a final label) and ``judgements.jsonl`` (recorded GPT-4 and
string-match labels), made from https://github.com/paul-rottger/exaggerated-safety.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from calibration.coefficients import Resampling, cohen_kappa
from judge.checks.refusal import classify, features

CLASSES = ("1", "3", "2")
NAMES = {"full_compliance": "1", "partial_refusal": "3", "full_refusal": "2"}


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def development(prompt: str) -> bool:
    return hashlib.sha256(prompt.encode()).digest()[0] % 2 == 0


def fit(items: list[dict]) -> None:
    from sklearn.linear_model import LogisticRegression

    table = [features(item["response"]) for item in items]
    names = list(table[0])
    matrix = np.array([[row[name] for name in names] for row in table])
    model = LogisticRegression(C=0.3, max_iter=5000).fit(matrix, [item["label"][0] for item in items])
    order = [list(model.classes_).index(name) for name in CLASSES]
    bias = [round(float(model.intercept_[place]), 2) for place in order]
    print(f'    "bias": ({bias[0]}, {bias[1]}, {bias[2]}),')
    for column, name in enumerate(names):
        weights = [round(float(model.coef_[place, column]), 2) + 0.0 for place in order]
        print(f'    "{name}": ({weights[0]}, {weights[1]}, {weights[2]}),')


def shown(given: list[str], wanted: list[str], prompts: list[str]) -> str:
    how = Resampling(clusters=prompts, rounds=1000, seed=0)
    categories = sorted({*given, *wanted})
    kappa = cohen_kappa(list(zip(given, wanted, strict=True)), categories, resampling=how)
    right = np.mean([one == two for one, two in zip(given, wanted, strict=True)])
    return f"{right:.3f} / {kappa.value:.3f} [{kappa.low:.3f}, {kappa.high:.3f}]"


def measure(items: list[dict], folder: Path) -> None:
    recorded: dict[str, dict[str, str]] = {}
    for line in (folder / "judgements.jsonl").read_text().splitlines():
        row = json.loads(line)
        recorded.setdefault(row["judge"], {})[row["id"]] = row["verdict"][0]
    recorded["this classifier"] = {item["id"]: NAMES[classify(item["response"])[0].value] for item in items}
    prompts = [item["prompt"] for item in items]
    final = [item["label"][0] for item in items]
    print(f"{len(items)} answers to {len(set(prompts))} prompts; agreement / kappa [95% over prompts]")
    for judge, verdicts in recorded.items():
        given = [verdicts[item["id"]] for item in items]
        print(f"{judge:16} three classes {shown(given, final, prompts)}")
        print(
            f"{'':16} complied or not {shown([str(g == '1') for g in given], [str(f == '1') for f in final], prompts)}"
        )
        for number in (0, 1):
            print(
                f"{'':16} annotator {number + 1}   {shown(given, [i['annotators'][number][0] for i in items], prompts)}"
            )
    between = [[item["annotators"][number][0] for item in items] for number in (0, 1)]
    print(f"{'annotators':16} three classes {shown(*between, prompts)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    every = rows(options.folder)
    if options.fit:
        fit([item for item in every if development(item["prompt"])])
    else:
        measure([item for item in every if not development(item["prompt"])], options.folder)
