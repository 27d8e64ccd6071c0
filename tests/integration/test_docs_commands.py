"""Every command of the README and of docs/ is executed, as it stands there, against one real service.

The README goes first, and what it leaves is there for all other pages: a service at port 8420 with a worker, a base
model `my-model`, the dataset `data.jsonl`, and a job that has ended (`last`, `JOB_ID`, with `FILE_ID`). A page's blocks
run in their order in one folder and one shell; those in Python share their names. What is quoted is filled in here:
the port, `/path/to/…`, the ids, and budgets: where a page says how many trials, only the two baselines are run, and the
LoRA default for one epoch. Jobs
that a page leaves running are cancelled after it.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
from openai import OpenAI

from luthier.api_types import Job
from luthier.client import Client
from tests import data_samples, tiny_gguf
from tests.chat_endpoint import chatting
from tests.doc_blocks import PAGES, PYTHON, SHELL, Block, Shell, blocks
from tests.live import TINY, TINY_ENCODER, Live

pytestmark = pytest.mark.xdist_group("docs")

TESTS = Path(__file__).parents[1]
COMMANDS = ("luthier", "curl", "make", "python", "pip", "export", "docker", "git", "ssh")
LANGUAGES = {"", "json", "jsonl", "text", "toml", "yaml", "csv"}


@dataclass
class Reader:
    """Somebody who does what the pages say."""

    live: Live
    folder: Path
    job: Job | None = None
    printed: list[str] = field(default_factory=list)

    def read(self, page: str) -> str:
        """Do what a page says; what its commands print."""
        found = [block for block in blocks(PAGES[page].read_text("utf-8")) if block.mark in (None, "file")]
        shell = Shell(self.folder, self._environment())
        names: dict[str, Any] = {"__name__": page}
        printed = ""
        try:
            for block in found:
                if block.mark == "file":
                    (self.folder / block.said).write_text(block.text)
                elif block.language in SHELL:
                    printed += shell.run(self.filled(block.text))
                elif block.language in PYTHON:
                    self._python(block, page, names)
        finally:
            shell.close()
            for name in names.values():
                if isinstance(name, Client | OpenAI):
                    name.close()
            for job in self.live.client.jobs():
                if not job.status.terminal:
                    self.live.client.cancel(job.id)
        return printed

    def _python(self, block: Block, page: str, names: dict[str, Any]) -> None:
        text = self.filled(block.text)
        if ">>>" not in text:
            exec(compile(text, f"{page}, line {block.line}", "exec"), names)
            return
        said: list[str] = []
        examples = doctest.DocTestParser().get_doctest(text, names, page, page, block.line)
        failed = doctest.DocTestRunner().run(examples, out=said.append, clear_globs=False).failed
        names.update(examples.globs)
        assert failed == 0, "".join(said)

    def filled(self, text: str) -> str:
        text = re.sub(r"--trials \d+(?!.*--epochs)", "--trials 2 --confirmations 0 --epochs 1", text)
        text = re.sub(r'(\\?")trials\1: \d+', r"\1trials\1: 2, \1confirmations\1: 0", text)
        places = {
            "http://127.0.0.1:8420": self.live.server,
            "Client()": f'Client("{self.live.server}")',
            "/path/to/all-MiniLM-L6-v2": str(TINY_ENCODER),
            "/path/to/model.Q4_1.gguf": str(self.folder / "model.gguf"),
            "/path/to/model": str(TINY),
            "/path/to/folder": str(TINY),
        }
        if self.job is not None:
            places |= {"FILE_ID": self.job.training_file, "JOB_ID": self.job.id}
            text = re.sub(r"(luthier .*?) last\b", rf"\1 {self.job.id}", text)
        for quoted, meant in places.items():
            text = text.replace(quoted, meant)
        return text

    def _environment(self) -> dict[str, str]:
        own = {"LUTHIER_SERVER": self.live.server, "LUTHIER_HOME": str(self.live.home), "COLUMNS": "120"}
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return os.environ | own | {"PATH": path, "PYTHONPATH": os.environ.get("PYTHONPATH", str(TESTS.parent))}


def _opinion(body: dict[str, Any]) -> str:
    """A model that finds everything 8 of 10, and never quite what it should be."""
    schema = body["response_format"]["json_schema"]["schema"]["properties"]["result"]
    return json.dumps({"reasoning": "", "result": "partly" if "enum" in schema else 8})


def _prepare(folder: Path) -> None:
    """What the reader has before reading: Luthier, installed, and files to learn from."""
    (folder / "bin").mkdir(parents=True)
    for name, arguments in (("luthier", ' -P -m luthier "$@"'), ("python", ' "$@"')):
        command = folder / "bin" / name
        command.write_text(f"#!/bin/sh\nexec {sys.executable}{arguments}\n")
        command.chmod(0o755)
    samples = {"data.jsonl": data_samples.pairs(48), "pages.jsonl": data_samples.text(48)}
    samples |= {"preferences.jsonl": data_samples.preference(48), "chats.jsonl": data_samples.chat(48)}
    for name, rows in samples.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "grader.json").write_text(json.dumps({"type": "text_similarity"}))
    tiny_gguf.write(TINY, folder / "model.gguf", gguf.GGMLQuantizationType.Q8_0)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader of the README."""
    folder = tmp_path_factory.mktemp("docs")
    _prepare(folder / "work")
    with pytest.MonkeyPatch.context() as patch, chatting(_opinion) as chat:
        patch.chdir(folder / "work")
        patch.setenv("LUTHIER_PYTHON_GRADERS", "1")
        patch.setenv("LUTHIER_GRADER_BASE_URL", chat.url)
        live = Live(folder / "home")
        live.start()
        reader = Reader(live, folder / "work")
        try:
            reader.printed.append(reader.read("README.md"))
            reader.job = next(job for job in live.client.jobs() if job.status == "succeeded")
            yield reader
        finally:
            live.close()


def test_the_readme_leads_from_a_file_to_a_model_that_answers(reader: Reader) -> None:
    [printed] = reader.printed
    assert "best design" in printed
    assert "# Report of ft:my-model:" in printed
    assert '"default_metrics"' in printed
    assert "<!DOCTYPE html>" in printed
    assert "model.safetensors" in printed
    assert (reader.folder / "model" / "model.safetensors").is_file()
    assert (reader.folder / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_what_a_page_says_works(page: str, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_run_or_says_why_not(page: str) -> None:
    text = PAGES[page].read_text("utf-8")
    for block in blocks(text):
        assert block.command or block.language in LANGUAGES, f"{page}, line {block.line}: who runs {block.language}?"
        if block.mark == "test":
            assert _runs(page, block.said), f"{page}, line {block.line}: no test runs {block.said}"
        if block.mark == "not run":
            assert len(block.said.split()) >= 3, f"{page}, line {block.line}: why not?"
    unfenced = re.findall(rf"^ {{4,}}(?:\$ )?(?:{'|'.join(COMMANDS)}) [^\n]+$", text, re.MULTILINE)
    assert unfenced == [], "commands stand in fenced blocks, so that they are run"
    assert text.count("\n```") % 2 == 0


def _runs(page: str, name: str) -> bool:
    """Whether a test module has this name, or opens the page and names the block."""
    quoted = (f'"{name}"', f"test: {name} -->")
    return any(
        module.stem == name or (Path(page).name in text and any(quote in text for quote in quoted))
        for module, text in _modules().items()
    )


@cache
def _modules() -> dict[Path, str]:
    return {module: module.read_text("utf-8") for module in TESTS.rglob("test_*.py")}
