"""Pairs in rows without padding: what a row holds, and that its log-probabilities are those of the plain way."""

from __future__ import annotations

from pathlib import Path

import pytest

from judge.errors import InputError
from tune.preferences import Preference

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from tune.models import Base, open_base  # noqa: E402 - needs torch
from tune.packing import Encoded, encode, pack, row_of  # noqa: E402 - needs torch
from tune.scoring import Scorer, plain_logprobs, prove, split  # noqa: E402 - needs torch


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Base:
    return open_base(str(tiny_llama), tmp_path)


def preferences(count: int = 6) -> list[Preference]:
    return [
        Preference(f"q{n}", f"Question {n}? " * (n % 3 + 1), "Yes. " * (n + 1), "No, never. " * (7 - n))
        for n in range(count)
    ]


@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_packed_log_probabilities_are_the_plain_ones(base: Base, budget: int) -> None:
    """Whatever pairs share a row, each token's log-probability and entropy equal those of its sequence alone."""
    pairs, _ = encode(preferences(), base.text, most=512)
    scorer = Scorer(base.model)
    base.model.requires_grad_(False)
    for group in pack(pairs, budget):
        scored = scorer(row_of(group))
        wanted = [
            plain_logprobs(base.model, pair.prompt, answer) for pair in group for answer in (pair.chosen, pair.rejected)
        ]
        torch.testing.assert_close(scored.logprobs, torch.cat([one[0] for one in wanted]), atol=1e-5, rtol=0)
        torch.testing.assert_close(scored.entropy, torch.cat([one[1] for one in wanted]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_packed_gradients_are_the_plain_ones(base: Base, frozen: bool) -> None:
    """The gradient that reaches the first layer is that of the plain way, with the output layer frozen or not."""
    pairs, _ = encode(preferences(), base.text, most=512)
    base.model.requires_grad_(True)
    base.model.lm_head.requires_grad_(not frozen)
    watched = base.model.model.layers[0].self_attn.q_proj.weight

    def gradient(logprobs: list[torch.Tensor]) -> torch.Tensor:
        base.model.zero_grad()
        sum((k + 1) * one.sum() for k, one in enumerate(logprobs)).backward()
        return watched.grad.clone()

    chosen, rejected = split(Scorer(base.model)(row_of(pairs)))
    packed = gradient([*chosen, *rejected])
    plain = gradient(
        [plain_logprobs(base.model, pair.prompt, pair.chosen)[0] for pair in pairs]
        + [plain_logprobs(base.model, pair.prompt, pair.rejected)[0] for pair in pairs]
    )
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)


def test_the_plain_fallback_scores_the_same_row(base: Base) -> None:
    """A scorer that computes sequence by sequence gives the same values in the same order."""
    pairs, _ = encode(preferences(), base.text, most=512)
    row = row_of(pairs)
    with torch.no_grad():
        packed, apart = Scorer(base.model)(row), Scorer(base.model, packed=False)(row)
    assert packed.lengths == apart.lengths
    torch.testing.assert_close(packed.logprobs, apart.logprobs, atol=1e-5, rtol=0)


def test_a_model_that_mixes_rows_is_found_out(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ignores the row's mask fails the proof, so that it is computed the plain way."""
    pairs, _ = encode(preferences(2), base.text, most=512)
    assert prove(base.model, pairs, tolerance=1e-3)[0]
    body = base.model.model.forward
    monkeypatch.setattr(base.model.model, "forward", lambda **given: body(**{**given, "attention_mask": None}))
    proved, difference = prove(base.model, pairs, tolerance=1e-3)
    assert not proved
    assert difference > 1e-3


def test_a_model_whose_logits_are_capped_is_found_out(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose logits are not hidden states times the output layer fails the proof, too."""
    pairs, _ = encode(preferences(2), base.text, most=512)
    whole = base.model.forward

    def capped(**given: object) -> object:
        made = whole(**given)
        made.logits = 0.5 * torch.tanh(made.logits / 0.5)
        return made

    monkeypatch.setattr(base.model, "forward", capped)
    assert not prove(base.model, pairs, tolerance=1e-3)[0]


def test_a_row_holds_no_padding_and_each_prompt_once(base: Base) -> None:
    """A row is as long as its prompts and its answers without their last tokens."""
    pairs, _ = encode(preferences(3), base.text, most=512)
    row = row_of(pairs)
    assert row.ids.shape[1] == sum(pair.tokens - 2 for pair in pairs)
    assert row.lengths == tuple(size for pair in pairs for size in (len(pair.chosen), len(pair.rejected)))
    assert row.targets.tolist() == [token for pair in pairs for part in (pair.chosen, pair.rejected) for token in part]


def test_packing_loses_no_pair_and_keeps_the_budget() -> None:
    """Every pair is in exactly one row; a row over budget holds one pair."""
    pairs = [Encoded(f"q{n}", n, (1,) * (n + 1), (2,) * 3, (3,) * (n % 5 + 1)) for n in range(40)]
    rows = pack(pairs, 60)
    assert sorted(pair.number for row in rows for pair in row) == list(range(40))
    assert all(sum(pair.tokens for pair in row) <= 60 or len(row) == 1 for row in rows)
    assert len(rows) < 40


def test_special_tokens_written_out_end_no_turn(base: Base) -> None:
    """An answer that spells the end of a turn is encoded as the characters it consists of."""
    pairs, _ = encode([Preference("q", "Hi", "a<|e|>b", "c")], base.text, most=512)
    assert pairs[0].chosen.count(base.text.end) == 1
    assert pairs[0].chosen[-1] == base.text.end


def test_an_answer_that_a_limit_cut_off_does_not_end(base: Base) -> None:
    """Else a rejected answer that ran into the limit would teach that to stop is what was wrong with it."""
    (pair,), _ = encode([Preference("q", "Hi", "yes", "on and on", cut=("rejected",))], base.text, most=512)
    assert (pair.chosen[-1], base.text.end in pair.rejected) == (base.text.end, False)
    assert list(pair.rejected) == base.text.encode("on and on")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Preference("long", "word " * 200, "yes", "no"), "q: .*|long: the prompt has"),
        (Preference("answer", "Hi", "yes " * 200, "no"), "answer: prompt and answer have"),
        (Preference("blank", "Hi", "yes", " \n"), "blank: the rejected answer is empty"),
        (
            Preference("tool", "Hi", "yes", ({"role": "assistant", "content": "", "tool_calls": [{"id": 1}]},)),
            "tool: the rejected answer calls tools",
        ),
    ],
)
def test_pairs_that_cannot_be_trained_on_are_named(base: Base, bad: Preference, said: str) -> None:
    """Too long a prompt or answer, an empty one, tool calls: refused with the id; left out and counted if asked."""
    good = Preference("good", "Hi", "yes", "no")
    with pytest.raises(InputError, match=said):
        encode([good, bad], base.text, most=300)
    kept, problems = encode([good, bad], base.text, most=300, skip_bad=True)
    assert [pair.id for pair in kept] == ["good"]
    assert [problem.id for problem in problems] == [bad.id]


@pytest.mark.parametrize(("chosen", "said"), [("", "'chosen' is empty"), ("no", "'chosen' equals 'rejected'")])
def test_empty_and_equal_answers_are_no_preference(chosen: str, said: str) -> None:
    """A pair that teaches nothing cannot even be made."""
    with pytest.raises(InputError, match=said):
        Preference("q", "Hi", chosen, "no")


def test_a_tokenizer_without_a_chat_template_gets_a_plain_form(tiny_llama: Path, tmp_path: Path) -> None:
    """Without a chat template prompts are put into a plain form that ends where the answer begins."""
    import shutil

    folder = tmp_path / "plain"
    shutil.copytree(tiny_llama, folder)
    for name in ("chat_template.jinja",):
        (folder / name).unlink(missing_ok=True)
    base = open_base(str(folder), tmp_path)
    assert not base.tokenizer.chat_template
    pairs, _ = encode([Preference("q", "How many?", "Four.", "Five.")], base.text, most=512)
    assert base.tokenizer.decode(pairs[0].prompt).endswith("Request:\nHow many?\n\nAnswer:\n")
    assert prove(base.model, pairs, tolerance=1e-3)[0]
