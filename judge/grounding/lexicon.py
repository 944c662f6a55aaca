"""The English words that grounding knows: function words, negations, numbers, units, opposites. Data, no rules.

Written for this project. What is missing here is not seen, what is here wrongly is seen wrongly: docs/grounding.md says
how often, measured.
"""

from __future__ import annotations

from .stems import stem

__all__ = [
    "ABBREVIATIONS",
    "DAYS",
    "ELSEWHERE",
    "ENGLISH",
    "FUNCTION_WORDS",
    "LETTER_SCALES",
    "MONTHS",
    "NEGATORS",
    "OPPOSITES",
    "ORDINALS",
    "QUANTIFIERS",
    "SCALES",
    "SMALL",
    "TENS",
    "UNITS",
    "WEAK_OPPOSITES",
]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ABBREVIATIONS = _set("""
    mr mrs ms dr prof st jr sr vs etc inc ltd co corp gov sen rep gen col lt sgt capt no fig al approx dept est
    jan feb mar apr jun jul aug sep sept oct nov dec e.g i.e u.s u.k a.m p.m
""")
"""Words after which a full stop ends no sentence."""

NEGATORS = _set("not no never none nobody nothing neither nor without cannot n't nowhere hardly")
FUNCTION_WORDS = (
    _set("""
    a an the and or but if then than that this these those there here it its he him his she her they them their we
    us  our you your i me my who whom whose which what when where why how of to in on at by for from with as into
    onto  about over under between after before during against through is are was were be been being am do does
    did done  have has had having will would shall should can could may might must s t d ll re ve m o so such also
    just very  too only own same both each few more most other some any all says said say
""")
    | NEGATORS
)
"""Words, as stems, that say nothing by themselves."""

ENGLISH = FUNCTION_WORDS - _set("a an as at in is i am me do so on over under d s t m o who has have no")
"""Function words by which English is known: those that other languages have, too, left out."""
ELSEWHERE = _set("""
    der die das und ist nicht ein eine den dem mit für auf von zu sich auch wird sind bei nach wie im zum zur oder
    le la les des du et est une dans pour que qui sur pas avec sont ce cette par plus aux il elle nous vous mais
    el los las y es un una por para con del se su al lo como más pero sus fue son o gli di che non per della nel
    sono è alla da anche si più os as um uma não dos ao pelo pela são foi na no em e het een van niet zijn met
    voor op aan ook door naar wordt deze dat en de och att det som är på för av inte med till ett han var jag i w
    z nie się jest do że to jak po co og ikke til er af ve bir bu için ile
""")
"""Function words of other languages in Latin script (German, French, Spanish, Italian, Portuguese, Dutch, Swedish,
Polish, Danish, Norwegian, Turkish).
"""

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sep sept",
            "october oct",
            "november nov",
            "december dec",
        ),
        1,
    )
    for name in names.split()
}
DAYS = _set("monday tuesday wednesday thursday friday saturday sunday")
_UNDER_TWENTY = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
SMALL = {name: float(k) for k, name in enumerate(_UNDER_TWENTY.split())}
_BY_TEN = """twenty thirty forty fifty sixty seventy eighty ninety"""
TENS = {name: 10.0 * k for k, name in enumerate(_BY_TEN.split(), 2)}
SCALES = {
    "hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "millions": 1e6, "m": 1e6, "mn": 1e6, "mln": 1e6,
    "billion": 1e9, "billions": 1e9, "bn": 1e9, "b": 1e9, "trillion": 1e12, "tn": 1e12, "dozen": 12.0,
}  # fmt: skip
LETTER_SCALES = _set("k m b mn mln bn tn")
"""Scales that are written on to their number: ``5m`` is five million, ``5 m`` is not."""
ORDINALS = {
    "first": 1.0, "second": 2.0, "third": 3.0, "fourth": 4.0, "fifth": 5.0, "sixth": 6.0, "seventh": 7.0,
    "eighth": 8.0, "ninth": 9.0, "tenth": 10.0, "once": 1.0, "twice": 2.0, "half": 0.5, "double": 2.0,
}  # fmt: skip
UNITS = {
    name: unit
    for unit, names in {
        "%": "% percent per-cent pct percentage",
        "$": "$ dollar dollars usd",
        "€": "€ euro euros eur",
        "£": "£ pound pounds gbp quid",
        "¥": "¥ yen jpy",
        "km": "km kilometre kilometres kilometer kilometers kms",
        "mile": "mile miles mi",
        "metre": "metre metres meter meters",
        "foot": "foot feet ft",
        "cm": "cm centimetre centimetres centimeter centimeters",
        "inch": "inch inches",
        "kg": "kg kilo kilos kilogram kilograms kgs",
        "g": "gram grams gramme grammes",
        "lb": "lb lbs",
        "tonne": "tonne tonnes ton tons",
        "second": "sec secs seconds",
        "minute": "minute minutes min mins",
        "hour": "hour hours hr hrs",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "year years yr yrs",
        "decade": "decade decades",
        "century": "centuries",
        "mb": "mb megabyte megabytes",
        "gb": "gb gigabyte gigabytes",
        "tb": "tb terabyte terabytes",
        "ms": "ms millisecond milliseconds",
        "celsius": "celsius °c",
        "fahrenheit": "fahrenheit °f",
        "litre": "litre litres liter liters",
        "ml": "ml millilitre millilitres milliliter milliliters",
        "mg": "mg milligram milligrams",
    }.items()
    for name in names.split()
}
"""How units are written, and the one name each has here."""

_GROUPS = """
    increase/decrease/decline/drop/fall/fell/shrink/lower/reduce rise/fall/drop/decline rose/fell/dropped/decline
    grow/shrink/decline/fall grew/shrank/fell more/fewer/less higher/lower high/low bigger/smaller larger/smaller
    large/small longer/shorter long/short older/younger old/young/new faster/slower fast/slow early/late
    earlier/later before/after above/below over/under up/down left/right north/south east/west northern/southern
    eastern/western win/lose/lost won/lost/lose victory/defeat success/failure succeed/fail pass/fail
    accept/reject/refuse/decline approve/reject/refuse allow/ban/forbid/prohibit/block legal/illegal open/close
    start/end/stop/finish begin/end began/end/ended first/last best/worst better/worse true/false right/wrong
    male/female man/woman men/women boy/girl husband/wife father/mother son/daughter brother/sister he/she his/her
    him/her alive/dead born/died guilty/innocent guilty/acquitt convict/acquitt support/oppose back/oppose
    for/against include/exclude add/remove enable/disable on/off enter/leave arrive/depart/left buy/sell bought/sold
    import/export maximum/minimum most/least hot/cold warm/cold positive/negative profit/loss gain/loss gain/lost
    safe/dangerous possible/impossible always/never often/rarely public/private major/minor strong/weak full/empty
    inside/outside confirm/deny admit/deny agree/disagree remember/forget same/different heavier/lighter
    cheap/expensive required/optional mandatory/optional
"""


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in _GROUPS.split():
        head, *others = (stem(word) for word in group.split("/"))
        for other in others:
            found.setdefault(head, set()).add(other)
            found.setdefault(other, set()).add(head)
    return {word: frozenset(opposites) for word, opposites in found.items()}


OPPOSITES = _opposites()
"""Each stem's opposites: the first word of a group against each of the others."""
WEAK_OPPOSITES = _set(
    "over under up down on off for against right left back open long high low old new he she his her him"
)
"""Opposites that are as often something else: believed only where the words on both sides are the same."""
QUANTIFIERS = {
    "all": "whole", "every": "whole", "each": "whole", "both": "whole", "entire": "whole",
    "some": "part", "few": "part", "several": "part", "part": "part", "half": "part",
    "most": "most", "majority": "most", "none": "none", "no": "none", "neither": "none",
}  # fmt: skip
"""What part of a whole a word speaks of."""
