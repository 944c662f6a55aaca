"""How often the language check is wrong on texts whose language is known.

    python benchmarks/language.py GOLD

GOLD holds ``ifeval/prompts.jsonl`` (answers to prompts that ask for one of 22 languages, with the recorded outcome),
``xstest/items.jsonl`` and ``hh_harmless/pairs.jsonl`` (answers in English: whatever is called another language is a
false alarm). Printed are rates with Wilson intervals, for both detectors, at the check's least number of letters.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from calibration.estimates import share
from judge.checks.language import Language
from judge.types import Answer, Item


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def shown(hits: list[float]) -> str:
    found = share(hits)
    return f"{int(sum(hits))} of {len(hits)} ({found.value:.1%} [{found.low:.1%}, {found.high:.1%}])"


def main(gold: Path) -> None:
    asked = [
        (row["gpt4_response"], arguments["language"], outcome)
        for row in rows(gold / "ifeval" / "prompts.jsonl")
        for name, arguments, outcome in zip(row["instruction_id_list"], row["kwargs"], row["strict"], strict=True)
        if name == "language:response_language"
    ]
    english = {
        "xstest": [row["response"] for row in rows(gold / "xstest" / "items.jsonl")],
        "hh_harmless": [
            row[side] for row in rows(gold / "hh_harmless" / "pairs.jsonl") for side in ("response_a", "response_b")
        ],
    }
    for detector in ("py3langid", "langdetect"):
        seen = [
            (Language(language=code, detector=detector).examine(Item(""), Answer(text)), outcome)
            for text, code, outcome in asked
        ]
        agree = [float(one.passed == outcome) for one, outcome in seen if one.passed is not None]
        print(f"{detector}: agrees with the recorded outcome on {shown(agree)} answers in 22 languages")
        for name, texts in english.items():
            judged = [Language(language="en", detector=detector).examine(Item(""), Answer(text)) for text in texts]
            alarms = [float(not one.passed) for one in judged if one.passed is not None]
            print(f"  {name}: false alarms {shown(alarms)}, not judged {len(texts) - len(alarms)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
