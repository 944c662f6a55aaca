"""The whole path of a rollout on simulated traffic: how often a healthy one is stopped, a harmful one caught.

    python benchmarks/rollout.py [--rounds 100] [--seed 0] [--only healthy]
    python benchmarks/rollout.py --limit [--rounds 400]       how often one guard on its limit passes one stage

Every round drives one rollout through the register, the flag file and the same proposals as `judge rollout advance`,
looking after every few hundred units until it is rolled back, reaches 100%, or has used up a stage without an answer.
Base rates: 6% refusals, 1% errors; two guards with a margin of 3 points, one alpha of 5%. Five candidates:

    healthy       no more harm than the baseline: must not be stopped
    at the edge   exactly the margin more refusals: the worst candidate that may not be rolled back in error
    silent        10 points more refusals, not one error more: must be caught before everybody meets it
    live only     the same, but nothing to see in the shadow: people provoke it
    high risk     the same, and only in requests that are not of low risk: first met at 25%
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from calibration.estimates import clopper_pearson
from judge.flags import FlagFile, RolloutProvider, flag_of, flag_path
from judge.policy import Plan
from judge.register import Register
from judge.rollout import moved, replay
from judge.watching import Move, Observation, propose

PLAN = Plan.model_validate(
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
AT = "2026-11-30T00:00:00+00:00"
LOOKS = {"shadow": 400, "1%": 4000, "5%": 2000, "25%": 2000}
"""Requests between two looks."""


SCENES: dict[str, Callable[[str, str], float]] = {
    "healthy": lambda _stage, _risk: 0.0,
    "at the edge": lambda _stage, _risk: 0.03,
    "silent": lambda _stage, _risk: 0.10,
    "live only": lambda stage, _risk: 0.0 if stage == "shadow" else 0.10,
    "high risk": lambda stage, risk: 0.0 if stage == "shadow" or risk == "low" else 0.20,
}
"""How much more often the candidate refuses, by stage and risk."""


def one(home: Path, harm: Callable[[str, str], float], seed: int) -> tuple[str, str, int, int]:
    """One rollout: how it ended, at which stage, how many units met the candidate there unshadowed, and the looks."""
    rng = random.Random(seed)
    register = Register(home)
    body = {
        "event": "start", "to": "shadow", "flag": "model", "licence": "decision-1", "run": "r-1", "candidate": "new",
        "baseline": "old", "plan": PLAN.model_dump(mode="json"), "policy": "simulated@1", "salt": f"salt-{seed}",
        "adapter": {},
    }  # fmt: skip
    register.append("rollout", "ro-1", body, at=AT)
    path = flag_path(home, "model")
    provider, met, looks = RolloutProvider(path), 0, 0
    while True:
        rollout = replay(register.entries("rollout"))
        if rollout.state in ("rolled back", "100%"):
            return rollout.state, rollout.events[-1].body.get("at_stage", "25%"), met, looks
        FlagFile(path).write(flag_of(rollout))
        stage, seen = rollout.state, []
        while True:
            for _ in range(LOOKS[stage]):
                key = f"{stage}-{len(seen)}"
                risk = rng.choice(("low", "low", "high"))
                served = provider.resolve("model", "old", key=key, risk=risk)
                for arm in ("baseline", "candidate") if served.shadow else (served.arm,):
                    extra = harm(stage, risk) if arm == "candidate" else 0.0
                    harms = {"refusal": float(rng.random() < 0.06 + extra), "error": float(rng.random() < 0.01)}
                    seen.append(Observation(key, arm, served.stage, harms, served.eligible))
            looks += 1
            found = propose(PLAN, stage, seen)
            if found.move is not Move.HOLD or found.candidates >= PLAN.stage(stage).units:
                break
        met += found.candidates if stage != "shadow" else 0
        if found.move is Move.HOLD:
            return "held for a person", stage, met, looks
        event = "advance" if found.move is Move.ADVANCE else "rollback"
        register.append("rollout", "ro-1", {"event": event, "to": moved(stage, event), "at_stage": stage}, at=AT)


def at_limit(rounds: int, seed: int) -> None:
    """One guard at one stage, the candidate exactly at margin x slack: looked at after 1,500 blocks, valid at each."""
    stage = PLAN.stage("shadow")
    for base in (0.0, 0.01, 0.06):
        passed = 0
        for k in range(rounds):
            rng, seen = random.Random(f"{seed} {base} {k}"), []
            for n in range(1500):
                for arm, chance in (("baseline", base), ("candidate", base + PLAN.guards[0].margin * stage.slack)):
                    harms = {"refusal": float(rng.random() < chance), "error": 0.0}
                    seen.append(Observation(f"k{n}", arm, "shadow", harms))
            passed += propose(PLAN, "shadow", seen).guards[0].move is Move.ADVANCE
        low, high = clopper_pearson(passed, rounds)
        told = f"{passed} of {rounds} = {passed / rounds:.1%} [{low:.1%}, {high:.1%}]"
        print(f"on the limit, baseline {base:.0%}: {told} pass; alpha / 4 = {PLAN.alpha / 4:.2%} may", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(SCENES), action="append", help="one of the candidates")
    parser.add_argument("--limit", action="store_true", help="one guard on its limit, instead of whole rollouts")
    asked = parser.parse_args()
    if asked.limit:
        at_limit(asked.rounds, asked.seed)
        return
    for name in asked.only or SCENES:
        harm = SCENES[name]
        started, ends, stages, met, looks = time.process_time(), Counter(), Counter(), 0, 0
        for k in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                end, stage, units, seen = one(Path(folder), harm, asked.seed + k)
            ends[end] += 1
            stages[f"{end} at {stage}" if end != "100%" else end] += 1
            met, looks = met + units, looks + seen
        back = ends["rolled back"]
        low, high = clopper_pearson(back, asked.rounds)
        rate = f"{back / asked.rounds:.1%} [{low:.1%}, {high:.1%}]"
        print(f"{name:12} rolled back {back} of {asked.rounds} = {rate}")
        told = ", ".join(f"{key} {count}" for key, count in sorted(stages.items()))
        each = f"on average {met / asked.rounds:.0f} units met it, {looks / asked.rounds:.0f} looks"
        print(f"             {told}; {each}; {time.process_time() - started:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
