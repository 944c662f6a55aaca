"""calibration.makers: one family for one maker, however its model is written."""

from __future__ import annotations

import pytest

from calibration.makers import maker


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("openai/gpt-4o", "openai"),
        ("gpt-4o", "openai"),
        ("openai:gpt-4o-mini@2024-07-18[t=0]", "openai"),
        ("openrouter/openai/o3-mini", "openai"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta"),
        ("ollama:llama3:8b", "meta"),
        ("vertex_ai/gemini-1.5-pro", "google"),
        ("mistralai/Mixtral-8x7B", "mistral"),
        ("acme/rex-2", "acme"),
        ("rex-2", "rex"),
        ("optimus-1", "optimus"),
        ("local/smollm2-135m@abc[likelihood]", ""),
        ("recorded/gpt-4o", ""),
        ("", ""),
    ],
)
def test_maker(name: str, family: str) -> None:
    """The maker of known models with and without a prefix; hosts, versions and decoding do not matter."""
    assert maker(name) == family
