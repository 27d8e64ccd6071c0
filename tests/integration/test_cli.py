"""The command line against a real service with real workers on the tiny model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.trial import JobState
from tests import data_samples
from tests.live import TINY, Live, eventually

pytestmark = pytest.mark.xdist_group("cli")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    service = Live(tmp_path_factory.mktemp("cli") / "home")
    service.start()
    assert service.command("models", "add", "tiny", str(TINY)).returncode == 0
    yield service
    service.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_samples.pairs(60)))
    return file


@pytest.fixture(scope="module")
def followed(live: Live, data: Path) -> subprocess.CompletedProcess[str]:
    """A small job, followed to its end."""
    options = ["--trials", "4", "--confirmations", "0", "--task", "behaviour", "--epochs", "3", "--batch-size", "4"]
    options += ["--follow"]
    return live.command("submit", str(data), *options)


def test_follow_shows_the_trials_as_they_finish_and_the_winner_beside_its_baselines(
    followed: subprocess.CompletedProcess[str],
) -> None:
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "Use trial" in followed.stdout
    assert "untuned base" in followed.stdout
    assert "LoRA default" in followed.stdout
    assert re.search(r"sft lora r16", followed.stdout)
    rows = r"^ *(?:trial \d+ \(n=1\)|untuned base) +([\d.]+)"
    best, base = map(float, re.findall(rows, followed.stdout, re.MULTILINE)[:2])
    assert best < base
    assert followed.stdout.count("reference") == 2, "two answers beside those of the base"


def test_listings_speak_json(live: Live, followed: subprocess.CompletedProcess[str]) -> None:
    [job] = json.loads(live.quick("jobs", "--json").stdout)
    assert job["status"] == "succeeded"
    trials = json.loads(live.quick("trials", job["id"], "--json").stdout)
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert all(trial["metrics"]["perplexity"] > 1 and 0 <= trial["metrics"]["reward"] <= 1 for trial in trials)
    best = json.loads(live.quick("best", "last", "--json").stdout)
    assert best["metrics"]["perplexity"] == min(trial["metrics"]["perplexity"] for trial in trials)
    first = json.loads(live.quick("models", "list", "--json").stdout)[0]
    assert first["id"] == "tiny"


def test_tables_are_for_people(live: Live, followed: subprocess.CompletedProcess[str]) -> None:
    assert "succeeded" in live.quick("jobs").stdout
    table = live.quick("trials", "last").stdout
    assert "★" in table
    assert "perplexity" in table
    assert "base model: tiny" in table
    assert "untuned" in table
    assert "1.8 M" in live.quick("models", "list").stdout


def test_the_report_is_read_on_the_terminal_or_written_to_a_file(
    live: Live, followed: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    shown = live.quick("report", "last").stdout
    assert shown.startswith("# Report of ft:tiny:")
    assert "| untuned base (trial 0) |" in shown
    report = json.loads(live.quick("report", "last", "--format", "json").stdout)
    [base] = [one for one in report["comparisons"] if one["against"] == "untuned base"]
    assert base["low"] <= base["difference"] <= base["high"]
    assert report["forgetting"]["base"] > 0
    for name, start in (("report.html", "<!DOCTYPE html>"), ("report.md", "# Report"), ("report.json", "{")):
        written = live.quick("report", "last", "--output", str(tmp_path / name))
        assert written.returncode == 0, written.stderr
        assert (tmp_path / name).read_text().startswith(start)
    assert "luthier report last" in live.quick("best", "last").stdout
    assert "luthier report" in followed.stdout
    refused = live.quick("report", "last", "--output", str(tmp_path / "nowhere" / "report.html"))
    assert refused.returncode == 2
    assert "nowhere/report.html" in refused.stderr.replace("\n", "")


def test_export_writes_a_model_that_answers(
    live: Live, followed: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    assert live.quick("export", "last", str(folder)).returncode == 0
    assert (folder / "model.safetensors").is_file()
    assert (folder / "README.md").is_file()
    answer = live.command("generate", "last", "What does the owl near the pond eat?", "--max-new-tokens", "16")
    assert answer.returncode == 0, answer.stderr
    assert "eats" in answer.stdout

    again = live.quick("export", "last", str(folder))
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr.replace("\n", " ")


def test_ctrl_c_stops_the_watching_and_not_the_job(live: Live, data: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "luthier",
        "submit",
        str(data),
        "--trials",
        "6",
        "--epochs",
        "20",
        "--follow",
    ]
    environment = os.environ | {"LUTHIER_SERVER": live.server, "COLUMNS": "200"}
    watching = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    newest = eventually(lambda: next((j for j in live.client.jobs() if j.status is JobState.RUNNING), None), 60)
    time.sleep(2)
    watching.send_signal(signal.SIGINT)
    output, _ = watching.communicate(timeout=90)
    assert watching.returncode == 0
    assert f"luthier cancel {newest.id}" in output
    assert live.client.job(newest.id).status is JobState.RUNNING

    assert live.quick("cancel", newest.id).returncode == 0
    assert live.client.job(newest.id).status is JobState.CANCELLED
    too_late = live.quick("cancel", newest.id)
    assert too_late.returncode == 2
    assert newest.id in too_late.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "nowhere.jsonl"], "does not exist"),
        (["submit", "{data}", "--model", "gpt-17"], "tiny"),
        (["submit", "{data}", "--algorithm", "dpo"], "dpo"),
        (["submit", "{data}", "--trials", "0"], "trials"),
        (["submit", "{data}", "--seconds", "-1"], "device_seconds"),
        (["submit", "{data}", "--finalists", "0"], "finalists"),
        (["submit", "{data}", "--sampler", "annealing"], "sampler"),
        (["submit", "{data}", "--confirmations", "11"], "confirmations"),
        (["trials", "ftjob-nope"], "ftjob-nope"),
        (["models", "add", "x", "/nowhere"], "/nowhere"),
        (["best"], "JOB"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_wrong_use_exits_2_and_says_what_was_wrong(live: Live, data: Path, arguments: list[str], message: str) -> None:
    result = live.quick(*[argument.format(data=data) for argument in arguments])
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr


def test_a_process_that_is_used_wrongly_exits_2_without_a_traceback(live: Live) -> None:
    result = live.command("serve", "--host", "0.0.0.0")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "luthier keys create NAME --scope admin" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_file_is_answered_with_its_faults(live: Live, tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in data_samples.pairs(20)]
    rows[6] = json.dumps({"prompt": "What?", "completion": ""})
    file = tmp_path / "bad.jsonl"
    file.write_text("\n".join(rows))
    result = live.quick("submit", str(file))
    assert result.returncode == 2
    assert "row 7" in result.stderr
    assert "completion" in result.stderr


def test_without_a_service_the_message_says_so_and_exits_1() -> None:
    command = [sys.executable, "-P", "-m", "luthier", "jobs", "--server", "http://127.0.0.1:9"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "http://127.0.0.1:9" in result.stderr


def test_a_second_service_on_the_same_home_is_refused(live: Live) -> None:
    result = live.command("serve", "--home", str(live.home), "--port", "0")
    assert result.returncode == 2
    assert "--home" in result.stderr


def test_environments_are_listed_with_their_options(live: Live) -> None:
    listed = {entry["name"]: entry for entry in json.loads(live.quick("environments", "--json").stdout)}
    assert listed["tools/move"]["options"]["boxes"]["default"] == 3
    assert "reasoning_gym/chain_sum" in live.quick("environments").stdout


def test_an_environment_is_submitted_in_place_of_a_file(live: Live) -> None:
    options = ["--option", "boxes=4", "--rows", "60", "--trials", "2", "--confirmations", "0"]
    submitted = live.quick("submit", "--environment", "tools/move", *options, "--json")
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)
    live.client.cancel(job["id"])
    environment = job["luthier"]["task"]["environment"]
    assert environment == {"name": "tools/move", "options": {"boxes": 4}, "rows": 60, "max_turns": 8}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--environment"),
        (["--rows", "60"], "--option and --rows"),
        (["--environment", "tools/move", "--option", "boxes"], "NAME=VALUE, not 'boxes'"),
        (["--environment", "tools/move", "--option", "boxes=99"], "task.environment.options.boxes"),
        (["--environment", "tools/mvoe"], "tools/move"),
    ],
)
def test_a_submission_of_no_environment_says_what_is_wrong(live: Live, arguments: list[str], words: str) -> None:
    refused = live.quick("submit", *arguments)
    assert refused.returncode == 2
    assert words in " ".join(refused.stderr.split())
