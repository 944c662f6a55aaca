"""What every test shares: gold data where it is present, no network but this machine, reasons for what is skipped."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent

# Set before any test imports a library that reads them at import: nothing is fetched from a hub, no telemetry is sent.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
)

# A loaded machine is slow, not wrong: no example is judged by the time it takes, and every run draws the same examples.
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


class NetworkForbiddenError(AssertionError):
    """A test tried to reach another machine."""


def _is_here(family: int, address: Any) -> bool:
    """Whether an address is on this machine; other names than localhost count as elsewhere."""
    if family == getattr(socket, "AF_UNIX", None):
        return True
    host = str(address[0]) if isinstance(address, tuple) else str(address)
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Make every connection and name look-up that leaves this machine fail with a message instead of a time-out."""
    patch = pytest.MonkeyPatch()
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(address: Any) -> None:
        message = f"a test tried to reach {address!r}; tests may connect to this machine only"
        raise NetworkForbiddenError(message)

    def guarded_connect(self: socket.socket, address: Any) -> None:
        return connect(self, address) if _is_here(self.family, address) else refuse(address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if not _is_here(self.family, address):
            refuse(address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host or ""
        if not _is_here(socket.AF_INET, (name,)) and name not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            refuse(host)
        return getaddrinfo(host, *args, **kwargs)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def gold() -> Callable[[str], Path]:
    """Return a function from the name of a gold set to its folder; the test is skipped where that is not present.

    Looks in ``$JUDGE_GOLD``, else in ``../shared/gold`` beside the repository. Gold data is never copied into it.
    """
    root = Path(os.environ.get("JUDGE_GOLD") or REPO.parent / "shared" / "gold")

    def folder(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            pytest.skip(f"gold data {name!r} is not in {root}; set JUDGE_GOLD to a folder that has it")
        return path

    return folder


@cache
def _missing(marker: str) -> str:
    """Return why tests of a marker cannot run here, or an empty string."""
    if marker == "torch":
        absent = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        return f"{' and '.join(absent)} not installed; `make test` says how to get them" if absent else ""
    if importlib.util.find_spec("torch") is None:
        return "no CUDA device can be used: torch is not installed"
    # Asked in another process: initialising CUDA here would leak into tests that fork.
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 1)"
    return (
        ""
        if subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
        else "no CUDA device"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, tests whose marker needs something that is not here."""
    for item in items:
        for marker in ("torch", "gpu"):
            if item.get_closest_marker(marker) and (reason := _missing(marker)):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chat() -> Any:
    """The misbehaving chat server (tests/servers/chat.py), whose ``launch`` starts one in a process of its own."""
    spec = importlib.util.spec_from_file_location("chat_server", REPO / "tests" / "servers" / "chat.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chat_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(chat: Any) -> Iterator[Any]:
    """One misbehaving chat server for a file of tests."""
    with chat.launch() as served:
        yield served


TINY_CHAT = (
    "{% for message in messages %}<|s|>{{ message['role'] }}\n{{ message['content'] | trim }}<|e|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|s|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer Llama with random weights from a fixed seed, a byte-level tokenizer and a chat template."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|s|>", eos_token="<|e|>")
    tokenizer.chat_template = TINY_CHAT
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=False,
    )
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
