"""CPU per judge call of other evaluation tools, beside our engine and bare aiohttp, against one loopback server.

    python benchmarks/peers.py                        # installs what is missing, then one interleaved run
    python benchmarks/peers.py --large 1000 --turns 3 # slower and steadier
    python benchmarks/peers.py --only engine,deepeval

Each tool lives in a virtual environment of its own (promptfoo in a folder of npm) under ``--cache``, made on the first
run from the package registries; one that cannot be installed or driven is named and left out. Each is driven by its own
documented way of judging with a chat model, at most 128 calls in flight, no latency at the server:

* ``inspect_ai``: ``model_graded_qa`` over canned answers; ``deepeval``: ``GEval`` with its steps given;
* ``alpaca_eval``: ``PairwiseAnnotator`` with its ``alpaca_eval_gpt4`` annotator;
* ``promptfoo``: ``llm-rubric`` over the echo provider; it may die in its logger after its results are printed ("write
  after end"), which is accepted as long as every call reached the server;
* ``aiohttp``: a pool of workers posts prompts and reads verdicts, nothing else;
* ``engine``: the whole path of ours with the shipped remote judge and its journal.

Every arm runs twice in a process of its own, with few calls and with many; the difference of their CPU times (children
included) over the difference of the calls that the server counted is the cost of a call without start-up. Printed are
the medians of the turns, and the ratio to the engine's. Prompts differ between tools, as their templates do; each call
holds the same request and answer of about 900 characters.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CONCURRENCY = 128
PROMPT = "Explain in two sentences why the sky is blue, for a child of eight. " * 3
ANSWER = "Sunlight holds all colours, and the air scatters the blue ones most, so blue reaches us from everywhere. " * 6

PACKAGES = {
    "inspect_ai": ("inspect-ai", "openai"),
    "deepeval": ("deepeval",),
    "alpaca_eval": ("alpaca-eval", "setuptools<81"),
}
PROMPTFOO = "promptfoo"
ARMS = ("aiohttp", "engine", *PACKAGES, PROMPTFOO)

SERVER = r"""
import asyncio, json
from collections import Counter
counts = Counter()
RANKS = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"
TEXTS = {"inspect_ai": "GRADE: C", "deepeval": '{"score": 8, "reason": "clear"}', "alpaca_eval": RANKS,
         "promptfoo": '{"pass": true, "score": 1, "reason": "clear"}'}
def answer(arm, body):
    if arm in TEXTS: text = TEXTS[arm]
    else:
        at = body.rfind(b"exactly one of: ") + 16
        text = body[at:at + 1].decode()
    top = [{"token": text, "logprob": -0.1, "bytes": None}]
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
        "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "logprobs": {"content": [{"token":
        text, "logprob": -0.1, "bytes": None, "top_logprobs": top}]}}],
        "usage": {"prompt_tokens": 600, "completion_tokens": 1, "total_tokens": 601}}
class Chat(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        head, sep, body = self.data.partition(b"\r\n\r\n")
        if not sep: return
        size = 0
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:": size = int(line[15:])
        if len(body) < size: return
        self.data = b""
        path = head.split(b" ", 2)[1].decode().split("/")
        if path[1] == "counts": value = dict(counts)
        else:
            counts[path[1]] += 1
            value = answer(path[1].split("-")[0], body)
        text = json.dumps(value).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(text), text))
async def main():
    server = await asyncio.get_running_loop().create_server(Chat, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

COMMON = f"""
import sys, os
url, count = sys.argv[1], int(sys.argv[2])
PROMPT, ANSWER = {PROMPT!r}, {ANSWER!r}
rows = [(f"{{PROMPT}} ({{n}})", f"{{ANSWER}}{{n}}", f"{{n}} {{ANSWER}}") for n in range(count)]
"""

DRIVERS = {
    "inspect_ai": """
import tempfile
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import model_graded_qa
from inspect_ai.solver import solver

@solver
def canned():
    async def solve(state, generate):
        state.output = ModelOutput.from_content("canned", state.metadata["answer"])
        return state
    return solve

samples = [Sample(input=prompt, target=second, metadata={"answer": first}) for prompt, first, second in rows]
grader = get_model("openai/m", base_url=url, api_key="none", responses_api=False)
task = Task(dataset=MemoryDataset(samples), solver=canned(), scorer=model_graded_qa(model=grader))
with tempfile.TemporaryDirectory() as folder:
    (log,) = eval(task, model="mockllm/model", max_connections=128, max_samples=128, display="none", log_dir=folder)
    assert log.status == "success", log.error
""",
    "deepeval": """
import asyncio
from deepeval.metrics import GEval
from deepeval.models import GPTModel
from deepeval.test_case import LLMTestCase
try:
    from deepeval.test_case import SingleTurnParams as Params
except ImportError:
    from deepeval.test_case import LLMTestCaseParams as Params

model = GPTModel(model="gpt-4o", base_url=url, api_key="none")

async def work():
    queue = iter(rows)
    async def worker():
        for prompt, first, _second in queue:
            metric = GEval(name="helpful", evaluation_steps=["Read the answer.", "Say how helpful it is."], model=model,
                           evaluation_params=[Params.INPUT, Params.ACTUAL_OUTPUT])
            case = LLMTestCase(input=prompt, actual_output=first)
            await metric.a_measure(case, _show_indicator=False)
            assert metric.score is not None
    await asyncio.gather(*(worker() for _ in range(128)))
asyncio.run(work())
""",
    "alpaca_eval": """
os.environ.update(OPENAI_API_KEY="none", OPENAI_API_BASE=url, OPENAI_MAX_CONCURRENCY="128")
from alpaca_eval.annotators import PairwiseAnnotator
if __name__ == "__main__":
    annotator = PairwiseAnnotator(annotators_config="alpaca_eval_gpt4", is_avoid_reannotations=False, caching_path=None)
    ours = [{"instruction": prompt, "output": first, "generator": "a"} for prompt, first, _ in rows]
    theirs = [{"instruction": prompt, "output": second, "generator": "b"} for prompt, _, second in rows]
    found = annotator.annotate_head2head(outputs_1=ours, outputs_2=theirs)
    assert len(found) == count and all(row["preference"] in (1, 2) for row in found), found[:2]
""",
}

OURS = """
import asyncio, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from judge import protocol
from judge.backends import open_backend
from judge.engine import Job, judge_pairs
from judge.environment import Environment
from judge.journal import Journal
from judge.testing import sample_rubric
from judge.types import Answer, Item, JudgeId, Pair
half = rows[: count // 2]
pairs = [Pair(f"p{n}", Item(prompt), Answer(one), Answer(two)) for n, (prompt, one, two) in enumerate(half)]
"""
DRIVERS["engine"] = f"""{OURS}
async def work(folder):
    backend = open_backend(f"openai:m?base_url={{url}}&concurrency=128&mode=logprobs", Environment(folder, folder))
    settled = 0
    with Journal(folder / "r.jsonl", create=True) as journal:
        journal.append("run", {{"run_id": "r"}})
        async for entry in judge_pairs(iter(pairs), Job(sample_rubric(), backend), journal=journal):
            settled += entry.comparison.invalid is None
    await backend.close()
    assert settled == count // 2
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(work(Path(folder)))
"""
DRIVERS["aiohttp"] = f"""{OURS}
import aiohttp
ask = protocol.plan(pairs[0], sample_rubric(), JudgeId("raw"))[0]
users = (f"{{number}} {{ask.user}}" for number in range(count))  # no rendering: that is the engine's work
async def work():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=128)) as session:
        async def worker():
            for user in users:
                turns = [{{"role": "system", "content": ask.system}}, {{"role": "user", "content": user}}]
                body = {{"model": "m", "messages": turns, "temperature": 0, "max_tokens": 8, "logprobs": True,
                         "top_logprobs": 20}}
                async with session.post(f"{{url}}/chat/completions", json=body) as response:
                    value = await response.json(content_type=None)
                assert len(value["choices"][0]["message"]["content"]) == 1
        await asyncio.gather(*(worker() for _ in range(128)))
asyncio.run(work())
"""


def install(arm: str, cache: Path) -> str:
    """Make the tool's environment where it is missing; why it cannot be had, or an empty string."""
    place = cache / arm
    if (place / "ready").exists() or arm in ("engine", "aiohttp"):
        return ""
    if arm == PROMPTFOO:
        npm = shutil.which("npm")
        if npm is None:
            return "npm is not installed"
        place.mkdir(parents=True, exist_ok=True)
        commands = [[npm, "install", "--no-fund", "--no-audit", "--prefix", str(place), PROMPTFOO]]
    else:
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        commands = [[sys.executable, "-m", "venv", str(place)], [*pip, *PACKAGES[arm]]]
    for command in commands:
        print(f"  {' '.join(command[:6])} ...", flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"cannot be installed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
    (place / "ready").touch()
    return ""


def version_of(arm: str, cache: Path) -> str:
    if arm == PROMPTFOO:
        path = cache / arm / "node_modules" / PROMPTFOO / "package.json"
        return str(json.loads(path.read_text(encoding="utf-8"))["version"])
    python = str(cache / arm / "bin" / "python") if arm in PACKAGES else sys.executable
    name = {"engine": "touchstone-judge"}.get(arm, arm)
    code = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def promptfoo_config(url: str, count: int) -> dict[str, object]:
    grader = {"id": "openai:chat:m", "config": {"apiBaseUrl": url, "apiKey": "none"}}
    test = {"assert": [{"type": "llm-rubric", "value": "is a helpful answer", "provider": grader}]}
    tests = [{**test, "vars": {"answer": f"{PROMPT} {ANSWER}{number}"}} for number in range(count)]
    return {"prompts": ["{{answer}}"], "providers": ["echo"], "tests": tests}


def measure(arm: str, url: str, count: int, cache: Path) -> float:
    """CPU seconds of one run of an arm, its children included."""
    quiet = {
        "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
        "DEEPEVAL_TELEMETRY_OPT_OUT": "YES", "ERROR_REPORTING": "0", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
        "DO_NOT_TRACK": "1", "INSPECT_LOG_LEVEL": "error", "OPENAI_API_KEY": "none",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {**os.environ, **quiet, "HOME": name, "PROMPTFOO_CONFIG_DIR": name}
        if arm == PROMPTFOO:
            config = folder / "promptfooconfig.json"
            config.write_text(json.dumps(promptfoo_config(url, count)), encoding="utf-8")
            tool = str(cache / arm / "node_modules" / ".bin" / PROMPTFOO)
            flags = ["--no-cache", "--no-write", "--no-table", "--no-progress-bar", "-j", str(CONCURRENCY)]
            command = [tool, "eval", "-c", str(config), *flags]
        else:
            python = str(cache / arm / "bin" / "python") if arm in PACKAGES else sys.executable
            script = folder / "drive.py"
            script.write_text(COMMON + DRIVERS[arm], encoding="utf-8")
            command = [python, str(script), url, str(count), str(REPO)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=name, env=env, capture_output=True, text=True, check=False, timeout=900)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode and not (arm == PROMPTFOO and "write after end" in done.stderr):
        raise RuntimeError(f"{arm}: exit {done.returncode}: {(done.stderr or done.stdout)[-800:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def counted(port: str) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts") as answer:
        found: dict[str, int] = json.load(answer)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "judge-peers")
    parser.add_argument("--small", type=int, default=40)
    parser.add_argument("--large", type=int, default=340)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--only", default=",".join(ARMS))
    options = parser.parse_args()
    arms = [arm for arm in options.only.split(",") if arm in ARMS]
    left_out: dict[str, str] = {}
    for arm in arms:
        why = install(arm, options.cache)
        if why:
            left_out[arm] = why
    slopes: dict[str, list[float]] = {}
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        for turn in range(options.turns):
            for arm in arms:
                if arm in left_out:
                    continue
                # Ours are so cheap that as few calls as the others get would measure noise.
                scale = 40 if arm in ("engine", "aiohttp") else 1
                try:
                    points = []
                    for size in (options.small * scale, options.large * scale):
                        name = f"{arm}-{turn}-{size}"
                        cpu = measure(arm, f"http://127.0.0.1:{port}/{name}/v1", size, options.cache)
                        points.append((counted(port).get(name, 0), cpu))
                    calls = points[1][0] - points[0][0]
                    if calls < (options.large - options.small) * scale:
                        raise RuntimeError(f"{arm}: {points[1][0]} calls reached the server, {options.large} were due")
                    slopes.setdefault(arm, []).append(1000 * (points[1][1] - points[0][1]) / calls)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    left_out[arm] = str(error)
    finally:
        server.terminate()
        server.wait()
    show(arms, slopes, left_out, options)


def show(
    arms: Sequence[str], slopes: dict[str, list[float]], left_out: dict[str, str], options: argparse.Namespace
) -> None:
    ours = statistics.median(slopes["engine"]) if "engine" in slopes else None
    print(f"CPU ms per call at c={CONCURRENCY}, {options.small} and {options.large} calls, median of {options.turns}")
    for arm in arms:
        if arm in slopes:
            each = statistics.median(slopes[arm])
            ratio = f"{each / ours:9.1f}x engine" if ours else ""
            print(f"{arm:>12} {version_of(arm, options.cache):>10} {each:9.3f}{ratio}")
    for arm, why in left_out.items():
        print(f"left out: {arm}: {why}")


if __name__ == "__main__":
    main()
