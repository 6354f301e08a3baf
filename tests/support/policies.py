"""Policies that no option asks for, so that a test need not wait for a fault by luck."""

from dataclasses import replace
from typing import Any

import pytest

from approxifer.pipeline.planning.options import Options

_ASKED = Options.policy


def change_policy(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let every run of this test have a policy with these fields changed."""
    made = _ASKED.fget
    assert made is not None
    monkeypatch.setattr(
        Options, "policy", property(lambda options: replace(made(options), **changes))
    )
