"""The task's grader for a reproduction script, on public libraries only. The grader is in grader.json."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

Row = dict[str, Any]

AVERAGED = 3.9  # exponent of the moving average of weights at a constant learning rate
NUMBER = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-+−])?(?<![A-Za-z0-9_.])"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
MARKED, WORD = re.compile(r"\$|\\\(|\\\[|\\boxed"), re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def question(row: Row, template: bool) -> Row:
    """Return a row's prompt, as messages if there is a chat template, and the grader's `item` as JSON."""
    item = row
    if "messages" in row:
        last = max(i for i, message in enumerate(row["messages"]) if message["role"] == "assistant")
        prompt = row["messages"][:last]
        item = {"reference": row["messages"][last].get("content") or "", **row}
    else:
        prompt = row["prompt"]
        if isinstance(prompt, str) and template:
            prompt = [{"role": "user", "content": prompt}]
        if (answer := row.get("completion")) is not None:
            item = {"reference": answer if isinstance(answer, str) else answer[-1].get("content") or "", **row}
    return {"prompt": prompt, "item": json.dumps(item)}


def reward(
    prompts: list[Any], completions: list[Any], completion_ids: list[Any], item: list[str], **columns: Any
) -> list[float]:
    """Return the grades of answers, with TRL's signature. `item` is the column from `question`."""
    grader = json.loads((Path(__file__).parent / "grader.json").read_text(encoding="utf-8"))
    texts = [answer if isinstance(answer, str) else answer[-1]["content"] for answer in completions]
    return [grade(grader, json.loads(row), text.strip()) for row, text in zip(item, texts, strict=True)]


def grade(grader: Row, item: Row, answer: str) -> float:
    """Return the grade of an answer; 0.0 if it cannot be graded."""
    try:
        if grader["type"] == "multi":
            parts = {name: grade(part, item, answer) for name, part in grader["graders"].items()}
            return formula(grader["calculate_output"], parts)
        return compare(grader, fill(grader["input"], item, answer), fill(grader["reference"], item, answer))
    except (LookupError, ValueError, ArithmeticError, TypeError):
        return 0.0


def formula(text: str, grades: dict[str, float]) -> float:
    functions: Row = {"min": min, "max": max, "abs": abs, "__builtins__": {}}
    functions |= {name: getattr(math, name) for name in ("floor", "ceil", "exp", "sqrt", "log")}
    return float(eval(text.strip().replace("^", "**"), functions, grades))


def fill(template: str, item: Row, answer: str) -> str:
    """Fill in `{{item.x}}` and `{{sample.output_text}}`. Raises LookupError for an unknown name."""
    sample: Row = {"output_text": answer}
    with contextlib.suppress(ValueError):
        sample["output_json"] = json.loads(answer)

    def look_up(found: re.Match[str]) -> str:
        value: Any = {"item": item, "sample": sample}
        for key in found[1].strip().split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return re.sub(r"\{\{([^{}]*)\}\}", look_up, template)


def compare(grader: Row, given: str, reference: str) -> float:
    match grader["type"], grader.get("operation"):
        case "string_check", "eq":
            return float(given == reference)
        case "string_check", "ne":
            return float(given != reference)
        case "string_check", "like":
            return float(reference in given)
        case "string_check", _:
            return float(reference.casefold() in given.casefold())
        case "number", _:
            number, expected = last_number(given), last_number(reference)
            return float(abs(number - expected) <= grader["tolerance"] * max(1.0, abs(expected)))
        case "math", _:
            return mathematics(given, reference, grader["float_rounding"])
        case _:
            score = 1.0 if given == reference else similarity(grader["evaluation_metric"], given, reference)
            return min(1.0, max(0.0, score))


def last_number(text: str) -> float:
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else math.nan


def mathematics(given: str, reference: str, rounding: int) -> float:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    def expression(text: str) -> Any:
        text = text.strip()
        if not MARKED.search(text) and not WORD.search(text):
            text = f"${text.rstrip('.')}$"
        return parse(text, [LatexExtractionConfig(), ExprExtractionConfig()])

    expected = expression(reference)
    return float(bool(expected) and verify(expected, expression(given), float_rounding=rounding))


def similarity(metric: str, given: str, reference: str) -> float:
    match metric:
        case "fuzzy_match":
            from rapidfuzz import fuzz

            return fuzz.ratio(given, reference) / 100
        case "bleu":
            from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

            smoothing = SmoothingFunction().method1
            words, wanted = given.split(), [reference.split()]
            return float(sentence_bleu(wanted, words, smoothing_function=smoothing, auto_reweigh=True))
        case "gleu":
            from nltk.translate.gleu_score import sentence_gleu

            return float(sentence_gleu([reference.split()], given.split()))
        case _:
            from rouge_score.rouge_scorer import RougeScorer

            name = metric.replace("_", "").replace("l", "L")
            return float(RougeScorer([name], tokenizer=Words()).score(reference, given)[name].fmeasure)


class Words:
    """A tokenizer for rouge-score that supports all scripts."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.casefold())


def ids_of(tokenizer: Any, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer(prompt.rstrip(" \t") or prompt)["input_ids"])
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def answers(model: Any, tokenizer: Any, prompt: Any, max_new_tokens: int, count: int | None = None) -> list[list[int]]:
    """Return the greedy answer to a prompt, or `count` sampled ones, as token ids including the end token."""
    ids = torch.tensor([ids_of(tokenizer, prompt)], device=model.device)
    drawn = {"do_sample": False} if count is None else {"do_sample": True, "top_k": 0, "num_return_sequences": count}
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.eos_token_id,
        eos_token_id=sorted(ends),
        **drawn,
    )[:, ids.shape[1] :].tolist()
    lengths = [next((t for t, token in enumerate(row, start=1) if token in ends), len(row)) for row in generated]
    return [answer[:length] for answer, length in zip(generated, lengths, strict=True)]


def score(model: Any, tokenizer: Any, questions: list[Row], max_new_tokens: int) -> list[float]:
    """Return the rewards of greedy answers."""
    texts = [
        tokenizer.decode(answers(model, tokenizer, row["prompt"], max_new_tokens)[0], skip_special_tokens=True)
        for row in questions
    ]
    return reward([], texts, [], [row["item"] for row in questions])


def learn_the_best(
    model: Any,
    tokenizer: Any,
    questions: list[Row],
    *,
    group: int,
    batch_size: int,
    max_new_tokens: int,
    learning_rate: float,
    schedule: str,
    warmup: int,
    weight_decay: float,
) -> None:
    """RAFT: each step trains on the best of the answers sampled per prompt, unless all have the same reward.

    `schedule` "cosine" decays to zero after `warmup` steps; under "constant" the model ends with the average weights.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)
    steps = math.ceil(len(questions) / batch_size)
    if schedule == "constant":
        rates = get_constant_schedule_with_warmup(optimizer, warmup)
    else:
        rates = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    means = [parameter.detach().clone() for parameter in trained]
    model.eval()
    for start in range(0, len(questions), batch_size):
        best = []
        for row in questions[start : start + batch_size]:
            sampled = answers(model, tokenizer, row["prompt"], max_new_tokens, group)
            texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in sampled]
            rewards = reward([], texts, [], [row["item"]] * group)
            if max(rewards) > min(rewards):
                best.append((ids_of(tokenizer, row["prompt"]), sampled[rewards.index(max(rewards))]))
        tokens = sum(len(answer) for _, answer in best)
        for prompt, answer in best:
            ids = torch.tensor([[*prompt, *answer]], device=model.device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            loss = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum") / tokens
            loss.backward()
        if best:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        rates.step()
        kept = (1 - batch_size / (start + batch_size)) ** AVERAGED
        for mean, parameter in zip(means, trained, strict=True):
            mean.mul_(kept).add_(parameter.detach(), alpha=1 - kept)
    if schedule == "constant":
        with torch.no_grad():
            for mean, parameter in zip(means, trained, strict=True):
                parameter.copy_(mean)
