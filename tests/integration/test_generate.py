"""`python -m workers.generate` answers as the judge lets a model answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers import generate as command
from workers.sampling import generate
from workers.train.data.rendering import Renderer
from workers.warm import Base

PROMPT = "How are you?"
SYSTEM = "You like cats."


def judges_answer(tiny: Base, prompt: str | list[dict[str, str]]) -> str:
    ids = Renderer(tiny.tokenizer, window=64, max_tokens=64).prompt(prompt)
    return generate(tiny.model, tiny.tokenizer, [ids], 12)[0]


def test_the_process_prints_the_greedy_answer_and_nothing_else(tiny: Base) -> None:
    arguments = [tiny.entry.source, PROMPT, "--max-new-tokens", "12"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.generate", *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout == judges_answer(tiny, PROMPT) + "\n" != "\n"
    assert done.stderr == ""


def test_a_system_text_stands_before_the_prompt(tiny: Base, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([tiny.entry.source, PROMPT, "--system", SYSTEM, "--max-new-tokens", "12"]) == 0
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    assert capsys.readouterr().out == judges_answer(tiny, messages) + "\n" != judges_answer(tiny, PROMPT) + "\n"


def test_a_folder_without_a_model_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path), PROMPT]) == 2
    assert f"{tmp_path} has no config.json" in capsys.readouterr().err


def test_no_new_tokens_are_wrong_use(tiny: Base, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([tiny.entry.source, PROMPT, "--max-new-tokens", "0"])
    assert "--max-new-tokens must be at least 1" in capsys.readouterr().err
