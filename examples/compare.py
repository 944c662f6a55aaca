"""Judge one pair of answers from Python: the verdict, both orders, and how sure the judge is.

python examples/compare.py
"""

import judge

result = judge.compare(
    "How long should I boil an egg for a soft yolk?",
    candidate="About six minutes from the moment the water boils, then cool it under cold water.",
    baseline="Eggs eggs eggs eggs eggs eggs eggs eggs eggs eggs.",
    rubric="helpfulness@1",
)
print(
    result.outcome,
    f"preference {result.preference:.2f}",
    f"consistent {result.consistent}",
    f"confidence {result.confidence:.2f}",
)
for verdict in result.verdicts:
    print(f"  {verdict.order}: win {verdict.p_win:.2f}  tie {verdict.p_tie:.2f}  loss {verdict.p_loss:.2f}")
