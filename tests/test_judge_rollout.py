"""Rollouts: a literal table, an assignment that never changes its mind, guards under one budget, a flag that fails
static.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.sequential import betting_bounds, betting_track, log_capital
from judge.errors import InputError, StoreError
from judge.flags import Flag, FlagFile, RolloutProvider, assign, bucket, flag_of, flag_path
from judge.policy import SHARES, STAGES, Plan, load_policy
from judge.register import Entry, Register
from judge.render.rollout import proposal_text
from judge.rollout import ENDED, TRANSITIONS, moved, replay, rollouts
from judge.traffic import read_traffic
from judge.watching import Move, Observation, differences, propose

PLAN = load_policy("default").rollout
FLAG = Flag("model", "ro-1", "5%", 0.05, "new", "old", "salt", ("low",), False, 3)
STATES = ("", *STAGES, "rolled back", "restored")
EVENTS = ("start", "advance", "rollback", "confirm")


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_of_moves_is_complete() -> None:
    """Of every state and event it is known whether it can happen; forward goes one stage, back goes at once."""
    allowed = {
        ("", "start"), *((stage, "advance") for stage in STAGES[:-1]), *((stage, "rollback") for stage in STAGES),
        ("rolled back", "confirm"),
    }  # fmt: skip
    for state in STATES:
        for event in EVENTS:
            if (state, event) in allowed:
                assert moved(state, event) in STATES
            else:
                with pytest.raises(InputError, match="possible"):
                    moved(state, event)
    assert set(TRANSITIONS) == allowed
    for before, after in pairwise(STAGES):
        assert TRANSITIONS[before, "advance"] == after
    assert {TRANSITIONS[stage, "rollback"] for stage in STAGES} == {"rolled back"}
    assert not any(state == "restored" for state, _ in TRANSITIONS)
    assert set(ENDED) == {"rolled back", "restored", "100%"}


def entry(number: int, body: dict[str, object], subject: str = "ro-1") -> Entry:
    return Entry(number, "rollout", subject, f"2026-11-30T00:00:0{number}+00:00", "ada", body)


START = {
    "event": "start", "to": "shadow", "flag": "model", "licence": "decision-1", "run": "r-1", "candidate": "new",
    "baseline": "old", "plan": PLAN.model_dump(mode="json"), "policy": "default@1", "salt": "s", "adapter": {},
}  # fmt: skip


@given(st.lists(st.sampled_from(["advance", "rollback", "confirm"]), max_size=8))
def test_any_history_either_follows_the_table_or_is_refused(events: list[str]) -> None:
    """Replaying events gives the state of the table, and a history that the table does not know is refused."""
    entries, state, broken = [entry(1, START)], "shadow", False
    for number, event in enumerate(events, 2):
        to = TRANSITIONS.get((state, event))
        entries.append(entry(number, {"event": event, "to": to or "5%"}))
        if to is None:
            broken = True
            break
        state = to
    if broken:
        with pytest.raises(StoreError, match="cannot"):
            replay(entries)
        return
    found = replay(entries)
    assert (found.state, found.share) == (state, SHARES.get(state, 0.0))
    assert found.active == (state in STAGES)
    assert flag_of(found).sequence == len(entries)


def test_a_forged_target_is_refused() -> None:
    """An entry that claims to lead elsewhere than the table is damage."""
    with pytest.raises(StoreError, match="the table says '1%'"):
        replay([entry(1, START), entry(2, {"event": "advance", "to": "100%"})])
    assert [one.id for one in rollouts([entry(1, START), entry(2, START, "ro-2")])] == ["ro-1", "ro-2"]


# --- who is served ---------------------------------------------------------------------------------------------------


@given(st.text(min_size=1), st.sampled_from(["", "low", "high"]))
def test_an_assignment_never_changes_its_mind(key: str, risk: str) -> None:
    """The same key gets the same arm in any process, and whoever met the candidate meets it at every later stage."""
    arms = [assign(replace(FLAG, state=stage, share=SHARES[stage], only=()), key, risk=risk).arm for stage in STAGES]
    assert arms == sorted(arms)  # baseline ... baseline, candidate ... candidate
    assert arms[-1] == "candidate"
    assert bucket("salt", key) == bucket("salt", key)
    assert 0.0 <= bucket("salt", key) < 1.0


def test_known_buckets() -> None:
    """The hash is written down: sha256 of salt, unit separator and key, its first 64 bits as a fraction."""
    import hashlib

    digest = hashlib.sha256(b"salt\x1fuser-17").digest()
    assert bucket("salt", "user-17") == int.from_bytes(digest[:8], "big") / 2**64


def test_shares_are_what_they_say() -> None:
    """Of 20,000 keys the share of a stage meets the candidate, within four standard errors, under any salt."""
    for salt in ("a", "b"):
        for stage in STAGES:
            share = SHARES[stage]
            flag = replace(FLAG, share=share, only=(), salt=salt)
            hits = sum(assign(flag, f"user-{k}").arm == "candidate" for k in range(20_000))
            assert abs(hits / 20_000 - share) <= 4 * math.sqrt(share * (1 - share) / 20_000) + 1e-12


def test_low_risk_comes_first() -> None:
    """Where a stage names risks, a request of another risk, of none, or without a key stays with the baseline."""
    everybody = replace(FLAG, share=1.0)
    assert assign(everybody, "k", risk="low").arm == "candidate"
    for key, risk in (("k", "high"), ("k", ""), ("", "low")):
        found = assign(everybody, key, risk=risk)
        assert (found.arm, found.eligible, found.value) == ("baseline", False, "old")
    shadow = replace(FLAG, state="shadow", share=0.0, only=(), shadow=True)
    assert assign(shadow, "k").shadow
    assert assign(shadow, "k").arm == "baseline"


# --- the flag file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "edited", "not json", "older", "no permission", "a folder"])
def test_the_flag_fails_static(tmp_path: Path, damage: str) -> None:
    """Whatever becomes of the file, a running reader keeps its last good value and says why."""
    path = flag_path(tmp_path, "model")
    file = FlagFile(path)
    file.write(replace(FLAG, share=1.0, only=()))
    provider = RolloutProvider(path)
    assert provider.resolve("model", "old", key="k").arm == "candidate"
    text = path.read_text(encoding="utf-8")
    if damage == "older":
        file.write(replace(FLAG, share=0.0, sequence=1))
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "no permission":
        path.unlink()
        path.symlink_to(path)  # a loop cannot be read, even by root
    else:
        path.unlink()
        spoiled = {"empty": "", "cut": text[:-20], "edited": text.replace("1.0", "0.5"), "not json": "]"}.get(damage)
        if spoiled is not None:
            path.write_text(spoiled, encoding="utf-8")
    found = provider.resolve("model", "old", key="k")
    assert found.arm == "candidate"
    assert found.reason.startswith("stale: ")
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    file.write(replace(FLAG, share=0.0, sequence=9))
    assert provider.resolve("model", "old", key="k").arm == "baseline"
    assert provider.file.problem == ""


def test_after_a_start_the_copy_serves_and_without_it_the_default(tmp_path: Path) -> None:
    """A fresh reader of a damaged file takes the copy; without one it serves the default, never the candidate."""
    path = flag_path(tmp_path, "model")
    FlagFile(path).write(replace(FLAG, share=1.0, only=()))
    path.write_text("{", encoding="utf-8")
    assert RolloutProvider(path).resolve("model", "old", key="k").arm == "candidate"
    FlagFile(path).copy.unlink()
    lost = RolloutProvider(path).resolve("model", "fallback", key="k")
    assert (lost.arm, lost.value, lost.eligible) == ("baseline", "fallback", False)
    assert lost.reason.startswith("static: ")
    other = RolloutProvider(path).resolve("another", "fallback", key="k")
    assert other.value == "fallback"


def test_flag_names_cannot_leave_their_folder(tmp_path: Path) -> None:
    """A flag's name is a name, not a path."""
    for name in ("../x", "", "a/b", "a" * 65):
        with pytest.raises(InputError, match="letters, digits"):
            flag_path(tmp_path, name)


@pytest.mark.skipif(find_spec("openfeature") is None, reason="openfeature-sdk is not installed")
def test_the_openfeature_sdk_takes_the_provider(tmp_path: Path) -> None:
    """Through the SDK a string flag gives the model, a boolean whether it is the candidate, a number its default."""
    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import ErrorCode

    from judge.flags import openfeature_provider

    path = flag_path(tmp_path, "model")
    FlagFile(path).write(replace(FLAG, share=0.5))
    api.set_provider(openfeature_provider(path), "touchstone-test")
    try:
        client = api.get_client("touchstone-test")
        served = set()
        for k in range(40):
            context = EvaluationContext(f"user-{k}", {"risk": "low"})
            details = client.get_string_details("model", "old", context)
            expected = assign(replace(FLAG, share=0.5), f"user-{k}", risk="low")
            assert (details.value, details.variant) == (expected.value, expected.arm)
            assert details.flag_metadata["stage"] == "5%"
            assert client.get_boolean_value("model", True, context) is (expected.arm == "candidate")
            served.add(details.value)
        assert served == {"new", "old"}
        assert client.get_integer_details("model", 7).error_code == ErrorCode.TYPE_MISMATCH
        path.unlink()
        FlagFile(path).copy.unlink()
        api.set_provider(openfeature_provider(path), "touchstone-test")
        assert client.get_string_details("model", "mine", context).value == "mine"
        assert client.get_boolean_value("model", False, context) is False
    finally:
        api.clear_providers()


# --- watching --------------------------------------------------------------------------------------------------------


def traffic(stage: str, units: int, *, harm: float, seed: int = 0, drift: float = 0.0) -> list[Observation]:
    """Traffic of one stage in which the candidate does ``harm`` more refusals; ``drift`` raises both arms in time."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(units):
        base = 0.08 + drift * k / units

        def harms(extra: float, base: float = base) -> dict[str, float]:
            return {"error": float(rng.random() < 0.02), "refusal": float(rng.random() < base + extra),
                    "complaint": float(rng.random() < 0.03)}  # fmt: skip

        if stage == "shadow":
            found += [Observation(f"k{k}", "baseline", stage, harms(0.0)),
                      Observation(f"k{k}", "candidate", stage, harms(harm))]  # fmt: skip
        else:
            arm = "candidate" if rng.random() < SHARES[stage] else "baseline"
            found.append(Observation(f"k{k}", arm, stage, harms(harm if arm == "candidate" else 0.0)))
    return found


def test_a_healthy_stage_passes_and_a_harmful_one_is_taken_back() -> None:
    """The same traffic with and without a regression of 15 points proposes to roll back and to advance."""
    good = propose(PLAN, "shadow", traffic("shadow", 4000, harm=0.0))
    assert good.move is Move.ADVANCE, good.why
    assert {guard.move for guard in good.guards} == {Move.ADVANCE}
    bad = propose(PLAN, "shadow", traffic("shadow", 1500, harm=0.15))
    assert bad.move is Move.ROLL_BACK
    assert [guard.metric for guard in bad.guards if guard.move is Move.ROLL_BACK] == ["refusal"]


def test_holds_fail_closed() -> None:
    """No traffic, too little, a guard that is not logged, a broken split, and the last stage all hold."""
    few = traffic("25%", 40, harm=0.0)
    lacking = [replace(seen, harms={"error": 0.0}) for seen in traffic("25%", 4000, harm=0.0)]
    skewed = [replace(seen, arm="candidate") if k % 2 else seen for k, seen in enumerate(traffic("1%", 4000, harm=0.0))]
    for stage, seen, says in (
        ("5%", [], "not yet shown"),
        ("25%", few, "not yet shown"),
        ("25%", lacking, "not one line says refusal, complaint"),
        ("1%", skewed, "the assignment or the log is broken"),
        ("100%", traffic("25%", 10, harm=0.0), "no baseline is left"),
    ):
        found = propose(PLAN, stage, seen)
        assert (found.move, says in found.why) == (Move.HOLD, True), found.why
    spent = PLAN.model_copy(update={"stages": tuple(s.model_copy(update={"units": 5}) for s in PLAN.stages)})
    assert "a person has to decide" in propose(spent, "25%", few).why


def unsaid(seen: list[Observation], metric: str, every: int = 1) -> list[Observation]:
    """The same traffic in which every so many lines do not say a metric."""
    return [
        replace(one, harms={key: value for key, value in one.harms.items() if key != metric}) if k % every == 0 else one
        for k, one in enumerate(seen)
    ]


def test_a_metric_that_is_never_logged_is_called_missing_soon_and_with_a_way_on() -> None:
    """Before 200 units it is late; after them the proposal says that waiting does not help, and names both ways on."""
    early = propose(PLAN, "25%", unsaid(traffic("25%", 400, harm=0.0), "complaint"))
    assert (early.move, "not yet shown" in early.why) == (Move.HOLD, True)
    late = propose(PLAN, "25%", unsaid(traffic("25%", 1200, harm=0.0), "complaint"))
    assert late.move is Move.HOLD
    for said in ("not one line says complaint", '"complaint": 0', "advance --force", "`required: false`"):
        assert said in late.why
    (gone,) = [guard for guard in late.guards if guard.metric == "complaint"]
    assert (gone.move, gone.lacking) == (Move.HOLD, late.candidates + late.baselines)


def test_a_guard_that_is_not_required_holds_only_where_it_is_logged() -> None:
    """Never said, it is named as not watched and the others decide; said, it rolls back as any other."""
    free = PLAN.model_copy(update={
        "guards": tuple(guard.model_copy(update={"required": guard.metric != "complaint"}) for guard in PLAN.guards)
    })  # fmt: skip
    seen = traffic("shadow", 4000, harm=0.0)
    assert propose(PLAN, "shadow", unsaid(seen, "complaint")).move is Move.HOLD
    found = propose(free, "shadow", unsaid(seen, "complaint"))
    assert (found.move, found.guards[-1].move) == (Move.ADVANCE, Move.UNWATCHED)
    assert found.why.endswith("not watched: complaint")
    worse = [
        replace(one, harms={**one.harms, "complaint": 1.0}) if one.arm == "candidate" else one for one in seen[:2000]
    ]
    assert propose(free, "shadow", worse).move is Move.ROLL_BACK


@pytest.mark.parametrize("units", [1, 4000])
def test_nothing_advances_where_nothing_is_watched(units: int) -> None:
    """Where no guard is required and none is logged, nothing is shown: it holds, however many requests came."""
    free = PLAN.model_copy(update={
        "guards": tuple(guard.model_copy(update={"required": False}) for guard in PLAN.guards)
    })  # fmt: skip
    silent = [replace(one, harms={}) for one in traffic("shadow", units, harm=0.0)]
    found = propose(free, "shadow", silent)
    assert (found.move, "nothing is watched" in found.why) == (Move.HOLD, True)
    assert propose(free, "shadow", silent[:0]).move is Move.HOLD


def test_a_guard_that_an_earlier_stage_said_may_not_fall_silent() -> None:
    """Not required, said in the shadow and not at 25%: it holds, by the lines of the shadow or by the register."""
    free = PLAN.model_copy(update={
        "guards": tuple(guard.model_copy(update={"required": guard.metric != "complaint"}) for guard in PLAN.guards)
    })  # fmt: skip
    silent = unsaid(traffic("25%", 6000, harm=0.0), "complaint")
    assert propose(free, "25%", silent).move is Move.ADVANCE, "never said, it is not watched"
    earlier, later = traffic("shadow", 10, harm=0.0), [replace(one, stage="100%") for one in traffic("25%", 9, harm=0)]
    assert propose(free, "25%", [*silent, *later]).move is Move.ADVANCE, "what comes later was not said before"
    for found in (propose(free, "25%", [*earlier, *silent]), propose(free, "25%", silent, said={"complaint"})):
        assert (found.move, found.guards[-1].move) == (Move.HOLD, Move.HOLD), found.why
        assert "which an earlier stage did" in found.guards[-1].why
        assert "Earlier stages said complaint" in found.why


def test_a_few_lines_without_a_metric_widen_the_bounds_and_stop_nothing() -> None:
    """One line in 400 that does not say a metric: the stage passes; the bounds hold what any values there give."""
    seen = traffic("shadow", 4000, harm=0.0)
    lacking = unsaid(seen, "refusal", 400)
    found, whole = propose(PLAN, "shadow", lacking), propose(PLAN, "shadow", seen)
    (ours,), (theirs,) = ([one for one in got.guards if one.metric == "refusal"] for got in (found, whole))
    assert (found.move, ours.lacking) == (Move.ADVANCE, 20)
    assert ours.estimate is not None
    assert theirs.estimate is not None
    assert ours.estimate.low < theirs.estimate.low < theirs.estimate.high < ours.estimate.high
    assert "20 of 8000 observations do not say it" in ours.why
    # A candidate whose harmful lines simply do not say so is never shown to be within its margin.
    hidden = [
        replace(one, harms={key: value for key, value in one.harms.items() if key != "refusal"})
        if one.arm == "candidate" and one.harms["refusal"] else one
        for one in traffic("shadow", 4000, harm=0.15)
    ]  # fmt: skip
    assert propose(PLAN, "shadow", hidden).move is Move.HOLD


def test_only_the_present_stage_counts_and_each_key_once() -> None:
    """Lines of other stages, requests that were not eligible and repeated keys are left out and counted."""
    seen = traffic("25%", 300, harm=0.0)
    more = [*seen, *seen[:50], *traffic("5%", 20, harm=0.0), replace(seen[0], key="x", eligible=False)]
    found, alone = propose(PLAN, "25%", more), propose(PLAN, "25%", seen)
    assert (found.repeated, found.left_out) == (50, 21)
    assert found.guards == alone.guards


def test_a_change_of_the_traffic_itself_cancels() -> None:
    """Where both arms get worse alike over time, the difference stays near 0: a weekend is no regression."""
    found = propose(PLAN, "25%", traffic("25%", 8000, harm=0.0, drift=0.3))
    assert found.move is not Move.ROLL_BACK
    refusal = next(guard.estimate for guard in found.guards if guard.metric == "refusal")
    assert refusal is not None
    assert abs(refusal.value) < 0.03


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 1.0])), max_size=60))
def test_blocks_hold_both_arms_once(rows: list[tuple[bool, float]]) -> None:
    """A block is closed by the first unit that gives it both arms; nothing is used twice."""
    seen = [Observation(f"k{k}", "candidate" if mine else "baseline", "25%", {"m": harm})
            for k, (mine, harm) in enumerate(rows)]  # fmt: skip
    values = differences("25%", seen, "m")
    changes = sum(1 for k in range(1, len(rows)) if rows[k][0] != rows[k - 1][0])
    assert len(values) <= min(sum(mine for mine, _ in rows), sum(not mine for mine, _ in rows))
    assert (len(values) > 0) == (changes > 0)
    assert all(-1.0 <= value <= 1.0 for value in values)


def test_harms_and_arms_are_checked() -> None:
    """A harm outside [0, 1] or an arm of another name is an error, not a number."""
    with pytest.raises(InputError, match="lies between"):
        propose(PLAN, "25%", [Observation("k", "candidate", "25%", {"error": 2.0})])
    with pytest.raises(InputError, match="neither candidate nor baseline"):
        propose(PLAN, "25%", [Observation("k", "control", "25%", {})])


def test_betting_bounds_are_those_of_the_track() -> None:
    """On a stream the bisection gives the ends of the confidence sequence of the same levels, finer than its grid."""
    x = np.random.default_rng(3).integers(0, 2, 400).astype(float)
    track = betting_track(x, level=0.95)
    found = betting_bounds(x, alpha_low=0.025, alpha_high=0.025)
    assert track is not None
    assert found is not None
    lows, highs = np.maximum.accumulate(track.lows), np.minimum.accumulate(track.highs)
    assert found.low == pytest.approx(lows[-1], abs=0.0025)
    assert found.high == pytest.approx(highs[-1], abs=0.0025)
    assert betting_bounds([], alpha_low=0.05, alpha_high=0.05) is None


def test_betting_bounds_shift_with_their_range() -> None:
    """Values in [-1, 1] are the same stream as their halves in [0, 1]; one value says nearly nothing."""
    x = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], 200)
    wide = betting_bounds(x, alpha_low=0.01, alpha_high=0.02, bounds=(-1.0, 1.0))
    unit = betting_bounds((x + 1) / 2, alpha_low=0.01, alpha_high=0.02)
    assert wide is not None
    assert unit is not None
    assert (wide.low, wide.high) == pytest.approx((2 * unit.low - 1, 2 * unit.high - 1))
    assert wide.level == pytest.approx(0.97)
    one = betting_bounds([1.0], alpha_low=0.01, alpha_high=0.01)
    assert one is not None
    assert one.low < 0.35
    assert one.high == 1.0


def test_rejecting_at_the_margin_is_the_capital_at_the_margin() -> None:
    """The lower bound passes a margin exactly where the capital against it has reached 1 / alpha at some look."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        x = np.clip(rng.normal(0.56, 0.2, 150), 0.0, 1.0)
        found = betting_bounds(x, alpha_low=0.01, alpha_high=0.01)
        best = max(log_capital(x[: t + 1], 0.5, alpha=0.02)[0] for t in range(x.size))
        assert found is not None
        if abs(found.low - 0.5) > 1e-4:
            assert (found.low > 0.5) == (best >= -math.log(0.01))


# --- the traffic log -------------------------------------------------------------------------------------------------


def test_a_traffic_log_is_read_line_by_line(tmp_path: Path) -> None:
    """Good lines become observations, a half-written last line is left out."""
    path = tmp_path / "t.jsonl"
    row = {"key": "u", "arm": "candidate", "stage": "5%", "harms": {"error": 1}}
    path.write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "eligible": False}) + "\n" + '{"key": "v"', "utf-8")
    first, second = read_traffic(path)
    assert (first, second.eligible) == (Observation("u", "candidate", "5%", {"error": 1.0}), False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "is a JSON object"),
        ('{"arm": "candidate", "stage": "5%", "harms": {}}', "field key"),
        ('{"key": "u", "arm": "control", "stage": "5%", "harms": {}}', "field arm: 'control'"),
        ('{"key": "u", "arm": "candidate", "stage": "6%", "harms": {}}', "field stage"),
        ('{"key": "u", "arm": "candidate", "stage": "5%", "harms": {"error": 7}}', "numbers from 0 to 1"),
        ('{"key": "u", "arm": "candidate", "stage": "5%", "harms": {}, "eligible": "yes"}', "true or false"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    """What is no observation is one error with file and line."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"key": "u", "arm": "baseline", "stage": "5%", "harms": {}}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        list(read_traffic(path))
    assert str(caught.value).startswith(f"{path}:2: ")


# --- the whole path --------------------------------------------------------------------------------------------------


def rolled_out(home: Path, plan: Plan, *, harm: float, seed: int) -> tuple[str, str]:
    """Drive one rollout from its start to its end through register, flag and traffic; returns state and last stage."""
    rng = random.Random(seed)
    register = Register(home)
    body = {**START, "plan": plan.model_dump(mode="json"), "salt": f"salt-{seed}"}
    register.append("rollout", "ro-1", body, at="2026-11-30T00:00:00+00:00")
    path = flag_path(home, "model")
    provider = RolloutProvider(path)
    last = "shadow"
    for turn in range(200):
        rollout = replay(register.entries("rollout"))
        if rollout.state in ("rolled back", "100%"):
            return rollout.state, last
        last = rollout.state
        FlagFile(path).write(flag_of(rollout))
        seen: list[Observation] = []
        limit = plan.stage(last).units
        while True:
            for k in range(2000 if last == "1%" else 800):
                key = f"{turn}-{len(seen)}-{k}"
                served = provider.resolve("model", "old", key=key, risk=rng.choice(["low", "low", "high"]))
                arms = ("baseline", "candidate") if served.shadow else (served.arm,)
                for arm in arms:
                    extra = harm if arm == "candidate" else 0.0
                    harms = {"refusal": float(rng.random() < 0.06 + extra), "error": float(rng.random() < 0.01)}
                    seen.append(Observation(key, arm, served.stage, harms, served.eligible))
            found = propose(plan, last, seen)
            if found.move is Move.HOLD and found.candidates < limit:
                continue
            event = {Move.ADVANCE: "advance", Move.ROLL_BACK: "rollback"}.get(found.move)
            if event is None:
                return f"held at {last}", last
            entry_body = {"event": event, "to": moved(last, event)}
            register.append("rollout", "ro-1", entry_body, at="2026-11-30T00:00:00+00:00")
            break
    raise AssertionError("no end")


SMALL = Plan.model_validate(
    {
        "alpha": 0.05,
        "guards": [{"metric": "refusal", "margin": 0.03}, {"metric": "error", "margin": 0.03}],
        "stages": [
            {"name": "shadow", "slack": 2.0, "units": 4000},
            {"name": "1%", "slack": 4.0, "units": 900, "only": ["low"]},
            {"name": "5%", "slack": 3.0, "units": 2000, "only": ["low"]},
            {"name": "25%", "slack": 1.5, "units": 8000},
            {"name": "100%"},
        ],
    }
)


def test_a_healthy_rollout_reaches_everybody(tmp_path: Path) -> None:
    """A candidate that does no harm goes through every stage by its evidence alone."""
    assert rolled_out(tmp_path, SMALL, harm=0.0, seed=1) == ("100%", "25%")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_silent_regression_is_caught_before_everybody_meets_it(tmp_path: Path, seed: int) -> None:
    """Ten points more refusals, with no error to see, end in a rollback (benchmarks/rollout.py measures the power)."""
    state, stage = rolled_out(tmp_path, SMALL, harm=0.10, seed=seed)
    assert state == "rolled back", (state, stage)


def test_a_proposal_says_what_each_end_is_held_to() -> None:
    """Every guard says in a sentence when it passes and when it is taken back, in at most 80 columns."""
    text = proposal_text(propose(PLAN, "5%", traffic("5%", 3000, harm=0.0)))
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    assert "points more than the baseline, between" in said
    assert "Passes once the upper end is below +4.0; taken back once the lower end is above +2.0" in said
