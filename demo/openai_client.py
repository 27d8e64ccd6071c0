"""Use the unmodified OpenAI client: upload a dataset, fine-tune, watch the job, and chat with the result.

python -m demo.openai_client data.jsonl --server http://127.0.0.1:8420 --ask "Name three rivers."
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

TERMINAL = ("succeeded", "failed", "cancelled")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.openai_client", description=__doc__)
    parser.add_argument("data", type=Path, help="a dataset with prompts and answers")
    parser.add_argument("--server", default="http://127.0.0.1:8420", help="a running `luthier serve`")
    parser.add_argument("--model", default="auto", help="a registered base model (default: any)")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default="auto", help="at most; auto: until it stops improving")
    parser.add_argument("--ask", default="How are you?", help="what to ask the base model and the result")
    options = parser.parse_args()
    key = os.environ.get("LUTHIER_API_KEY", "a service without keys accepts any")
    with OpenAI(base_url=f"{options.server}/v1", api_key=key) as client:
        file = client.files.create(file=options.data, purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            training_file=file.id,
            model=options.model,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": options.epochs}}},
            extra_body={"search": {"trials": options.trials, "confirmations": 0}},  # Luthier's additions
        )
        print(f"Job {job.id} on file {file.id}")
        job = watch(client, job.id)
        if job.fine_tuned_model is None:
            print(f"The job {job.status}: {job.error.message if job.error else 'no reason given'}", file=sys.stderr)
            return 1
        for model in (job.model, job.fine_tuned_model):
            print(f"{model}: ", end="", flush=True)
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": options.ask}],
                temperature=0,
                max_completion_tokens=32,
                stream=True,
            )
            for chunk in answer:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            print()
    return 0


def watch(client: OpenAI, job_id: str) -> FineTuningJob:
    """Print the job's events as they arrive, and return the job when it has ended."""
    seen: set[str] = set()
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        for event in reversed(client.fine_tuning.jobs.list_events(job_id, limit=100).data):
            if event.id not in seen:
                print(event.message)
                seen.add(event.id)
        if job.status in TERMINAL:
            return job
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
