"""The judge's numbers are the textbook's, whoever trained the model and however rows are grouped."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

import workers.evaluate.judge
import workers.train.rollouts.sampling
from luthier.design import Architecture
from luthier.environments.single_turn import question
from luthier.errors import GraderFault, TrialFailed
from luthier.graders import grade
from luthier.task import DataKind, Grader, JudgeSpec, Multi, Python, StringCheck, TextSimilarity
from luthier.trial import Metrics
from tests import data_samples
from tests.textbook import as_conversation, logps
from workers import cache
from workers.cache import Base
from workers.evaluate.judge import general_bits_per_byte, general_rows, judge, judge_rows, renderer
from workers.train.architectures import build
from workers.train.rollouts.sampling import generate

Row = dict[str, Any]
START, END = 1, 2  # <|im_start|>, <|im_end|>


def spec(kind: DataKind, *, grader: Grader | None = None, **limits: int) -> JudgeSpec:
    objective = "reward" if grader else "perplexity"
    return JudgeSpec(kind=kind, validation="v", test="t", objective=objective, grader=grader, **limits)


def judged(tiny: Base, wanted: JudgeSpec, rows: Sequence[Row], model: PreTrainedModel | None = None) -> Metrics:
    return judge(model or tiny.model, tiny.tokenizer, wanted, rows)


@torch.no_grad()
def textbook(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], targets: Sequence[Sequence[bool]], content: int
) -> tuple[float, float, int]:
    """Perplexity, bits per byte and target tokens by one plain padded forward with labels."""
    longest = max(map(len, sequences))
    ids_BT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sequences])
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences])
    labels_BT = torch.full_like(ids_BT, -100)
    for b, (ids, wanted) in enumerate(zip(sequences, targets, strict=True)):
        for t, is_target in enumerate(wanted):
            labels_BT[b, t] = ids[t] if is_target else -100
    logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits
    nll = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).double(), labels_BT[:, 1:].flatten(), reduction="sum"
    )
    tokens = int((labels_BT[:, 1:] != -100).sum())
    return float((nll / tokens).exp()), float(nll / math.log(2) / content), tokens


def assert_textbook(metrics: Metrics, expected: tuple[float, float, int]) -> None:
    assert metrics.perplexity == pytest.approx(expected[0], rel=1e-5)
    assert metrics.bits_per_byte == pytest.approx(expected[1], rel=1e-5)
    assert metrics.tokens == expected[2]


def chatml(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Row], *, ask: bool = False) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=True)["input_ids"])


def pair_as_textbook(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Row], answer: Sequence[Row]
) -> tuple[list[int], list[bool]]:
    asked, whole = chatml(tokenizer, prompt, ask=True), chatml(tokenizer, [*prompt, *answer])
    return whole, [t >= len(asked) for t in range(len(whole))]


def chat_as_textbook(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Row]) -> tuple[list[int], list[bool]]:
    """Read ChatML's marks: an assistant turn is what follows `<|im_start|>assistant\\n`, `<|im_end|>\\n` included."""
    ids = chatml(tokenizer, messages)
    [newline] = tokenizer("\n")["input_ids"]
    header = [START, *tokenizer("assistant\n")["input_ids"]]
    weights = iter([m.get("weight", 1) for m in messages if m["role"] == "assistant"])
    targets, t = [False] * len(ids), 0
    while t < len(ids):
        if ids[t : t + len(header)] != header:
            t += 1
            continue
        t, weight = t + len(header), next(weights)
        end = ids.index(END, t)
        assert ids[end + 1] == newline
        targets[t : end + 2] = [bool(weight)] * (end + 2 - t)
        t = end + 2
    return ids, targets


# Perplexity and bits per byte


@pytest.mark.parametrize("worded", [dict, as_conversation], ids=["texts", "messages"])
def test_pairs_are_scored_on_the_answers_tokens(worded: Any, tiny: Base) -> None:
    rows = data_samples.pairs(9)
    spoken = [as_conversation(row) for row in rows]
    ids, targets = zip(*(pair_as_textbook(tiny.tokenizer, r["prompt"], r["completion"]) for r in spoken), strict=True)
    content = sum(len(row["completion"].encode()) for row in rows)
    metrics = judged(tiny, spec(DataKind.PAIRS), [worded(row) for row in rows])
    assert_textbook(metrics, textbook(tiny.model, ids, targets, content))
    assert (metrics.rows, metrics.reward, metrics.reward_name) == (9, None, None)


def test_chats_are_scored_on_the_assistant_turns_that_have_weight(tiny: Base) -> None:
    rows = data_samples.chat(9)
    ids, targets = zip(*(chat_as_textbook(tiny.tokenizer, row["messages"]) for row in rows), strict=True)
    content = sum(
        len(m["content"].encode())
        for row in rows
        for m in row["messages"]
        if m["role"] == "assistant" and m.get("weight", 1)
    )
    assert_textbook(judged(tiny, spec(DataKind.CHAT), rows), textbook(tiny.model, ids, targets, content))


def test_preferences_are_scored_on_the_chosen_answers(tiny: Base) -> None:
    rows = data_samples.preference(9)
    spoken = [as_conversation(row) for row in rows]
    ids, targets = zip(*(pair_as_textbook(tiny.tokenizer, r["prompt"], r["chosen"]) for r in spoken), strict=True)
    content = sum(len(row["chosen"].encode()) for row in rows)
    assert_textbook(judged(tiny, spec(DataKind.PREFERENCE), rows), textbook(tiny.model, ids, targets, content))


@pytest.mark.parametrize("window", [16, 33, 512])
def test_text_is_scored_in_windows_that_score_each_token_but_the_first_once(window: int, tiny: Base) -> None:
    rows = data_samples.text(6)
    sequences, targets, content, scored = [], [], 0, 0
    for row in rows:
        ids = [*tiny.tokenizer(row["text"])["input_ids"], END]
        scored += len(ids) - 1
        content += len(row["text"].encode()) - len(tiny.tokenizer.decode(ids[:1]).encode())
        for start in range(0, len(ids) - 1, window - 1):
            sequences.append(ids[start : start + window])
            targets.append([False, *[True] * (len(sequences[-1]) - 1)])
    metrics = judged(tiny, spec(DataKind.TEXT, window=window), rows)
    assert_textbook(metrics, textbook(tiny.model, sequences, targets, content))
    assert metrics.tokens == scored


def test_a_row_longer_than_the_limit_is_cut(tiny: Base) -> None:
    rows = [as_conversation(row) for row in data_samples.pairs(4)]
    pairs = [pair_as_textbook(tiny.tokenizer, row["prompt"], row["completion"]) for row in rows]
    limit = min(targets.index(True) for _, targets in pairs) + 4  # into every answer, past none
    ids, targets = [ids[:limit] for ids, _ in pairs], [targets[:limit] for _, targets in pairs]
    content = 0
    for cut, wanted in zip(ids, targets, strict=True):
        content += len(tiny.tokenizer.decode([i for i, target in zip(cut, wanted, strict=True) if target]).encode())
    metrics = judged(tiny, spec(DataKind.PAIRS, max_tokens=limit), rows)
    assert_textbook(metrics, textbook(tiny.model, ids, targets, content))


def test_every_model_reads_the_same_rows_whatever_its_context(tiny: Base) -> None:
    """So that a context made longer is compared on rows that need it: the base is run beyond its own."""
    rows = [{**row, "completion": row["completion"] * 120} for row in data_samples.pairs(2)]
    longer = build(tiny.model, Architecture(base="tiny", rope_factor=4))
    wanted = spec(DataKind.PAIRS, max_tokens=2048)
    base, stretched = judged(tiny, wanted, rows), judged(tiny, wanted, rows, longer)
    assert base.tokens == stretched.tokens > 2 * 512
    assert base.perplexity != stretched.perplexity
    assert judged(tiny, spec(DataKind.PAIRS, max_tokens=512), rows).tokens < 2 * 512


def test_only_the_first_rows_are_scored_up_to_the_limit(tiny: Base) -> None:
    rows = data_samples.pairs(9)
    assert judged(tiny, spec(DataKind.PAIRS, max_rows=4), rows) == judged(tiny, spec(DataKind.PAIRS), rows[:4])


# Preference accuracy


@torch.no_grad()
def test_preference_accuracy_is_the_share_of_pairs_whose_chosen_answer_is_likelier_per_token(tiny: Base) -> None:
    rows = data_samples.preference(12)
    for row in rows[::3]:  # some the other way round
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    wins, leads = [], []
    for row in map(as_conversation, rows):
        means = []
        for answer in (row["chosen"], row["rejected"]):
            ids, targets = pair_as_textbook(tiny.tokenizer, row["prompt"], answer)
            means.append(logps(tiny.model, ids)[targets.index(True) - 1 :].mean())
        wins.append(float(means[0] > means[1]))
        leads.append(float(means[0] - means[1]))
    metrics = judged(tiny, spec(DataKind.PREFERENCE), rows)
    assert 0 < sum(wins) < len(wins)
    assert metrics.reward == pytest.approx(sum(wins) / len(wins))
    assert metrics.reward_name == "preference_accuracy"
    assert metrics.margin == pytest.approx(sum(leads) / len(leads), abs=1e-5)


def test_a_pair_of_which_the_limit_leaves_no_answer_is_in_no_metric(tiny: Base) -> None:
    short = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Moon moon zebra quantum."}
    long = {**short, "prompt": "Hi " * 60}
    limited = spec(DataKind.PREFERENCE, max_tokens=50)
    assert judged(tiny, limited, [short]).reward == 1.0
    assert judged(tiny, limited, [long, short, long]) == judged(tiny, limited, [short])
    with pytest.raises(TrialFailed):
        judged(tiny, limited, [long])


@torch.no_grad()
def test_label_auc_is_the_share_of_desirable_and_undesirable_rows_in_order(tiny: Base) -> None:
    rows = data_samples.unpaired(12)
    for row in rows[::4]:  # some the other way round
        row["label"] = not row["label"]
    means: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        spoken = as_conversation(row)
        ids, targets = pair_as_textbook(tiny.tokenizer, spoken["prompt"], spoken["completion"])
        means[row["label"]].append(float(logps(tiny.model, ids)[targets.index(True) - 1 :].mean()))
    wins = [wanted > unwanted for wanted in means[True] for unwanted in means[False]]
    metrics = judged(tiny, spec(DataKind.UNPAIRED), rows)
    assert 0 < sum(wins) < len(wins)
    assert metrics.reward == pytest.approx(sum(wins) / len(wins))
    assert metrics.reward_name == "label_auc"
    leads = [wanted - unwanted for wanted in means[True] for unwanted in means[False]]
    assert metrics.margin == pytest.approx(sum(leads) / len(leads), abs=1e-5)


def test_answers_found_equally_likely_count_half_whatever_their_labels(tiny: Base) -> None:
    same = {"prompt": "Hi", "completion": "Hello!"}
    rows = [same | {"label": True}, same | {"label": False}]
    assert judged(tiny, spec(DataKind.UNPAIRED), rows).reward == 0.5


def test_the_perplexity_of_unpaired_labels_is_that_of_the_desirable_answers(tiny: Base) -> None:
    rows = data_samples.unpaired(9)
    wanted = [{name: row[name] for name in ("prompt", "completion")} for row in rows if row["label"]]
    found, expected = judged(tiny, spec(DataKind.UNPAIRED), rows), judged(tiny, spec(DataKind.PAIRS), wanted)
    assert (found.perplexity, found.bits_per_byte) == pytest.approx((expected.perplexity, expected.bits_per_byte))


def test_rows_of_a_single_label_cannot_be_judged(tiny: Base) -> None:
    rows = [row | {"label": True} for row in data_samples.unpaired(4)]
    with pytest.raises(TrialFailed, match="label AUC"):
        judged(tiny, spec(DataKind.UNPAIRED), rows)


# Graded generations


@torch.no_grad()
def answer_alone(tiny: Base, prompt: Sequence[Row], max_new_tokens: int) -> str:
    """One greedy answer by transformers' `generate`, without a batch."""
    ids = torch.tensor([chatml(tiny.tokenizer, prompt, ask=True)])
    output = tiny.model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False)
    return str(tiny.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()


GRADERS: list[Grader] = [
    TextSimilarity(evaluation_metric="fuzzy_match"),
    StringCheck(operation="like", reference="people"),  # a word that some answers of the untrained model have
    Multi(
        graders={"word": StringCheck(operation="like", reference="people"), "close": TextSimilarity()},
        calculate_output="0.5 * word + 0.5 * close",
    ),
]


@pytest.mark.parametrize("grader", GRADERS, ids=lambda grader: grader.type)
def test_the_reward_is_the_mean_grade_of_greedy_answers(grader: Grader, tiny: Base) -> None:
    rows = data_samples.pairs(11)
    grades = []
    for row in rows:
        answer = answer_alone(tiny, as_conversation(row)["prompt"], 12)
        item = {**row, "reference": row["completion"]}
        grades.append(grade(grader, item=item, sample={"output_text": answer}))
    metrics = judged(tiny, spec(DataKind.PAIRS, grader=grader, max_new_tokens=12), rows)
    assert 0 < sum(grades) < len(grades)
    assert metrics.reward == pytest.approx(sum(grades) / len(grades))
    assert metrics.reward_name == grader.name


def test_of_a_chat_the_last_assistant_turn_is_asked_for(tiny: Base) -> None:
    rows = data_samples.chat(5)
    grader = TextSimilarity()
    grades = []
    for row in rows:
        answer = answer_alone(tiny, row["messages"][:-1], 12)
        item = {**row, "reference": row["messages"][-1]["content"]}
        grades.append(grade(grader, item=item, sample={"output_text": answer}))
    metrics = judged(tiny, spec(DataKind.CHAT, grader=grader, max_new_tokens=12), rows)
    assert metrics.reward == pytest.approx(sum(grades) / len(grades))


def test_the_question_of_a_chat_ends_before_its_last_assistant_turn() -> None:
    row = data_samples.chat(1)[0]
    row["messages"].append({"role": "user", "content": "Thanks."})
    asked = question(row, DataKind.CHAT)
    assert list(asked.prompt) == row["messages"][:4]
    assert asked.reference == row["messages"][4]["content"]


def test_a_tool_call_is_compared_as_the_chat_template_writes_it(tiny: Base) -> None:
    rows = data_samples.agent(2)
    called = '<tool_call>\n{"name": "food", "arguments": {"animal": "dog"}}\n</tool_call>'
    check = StringCheck(input="{{item.reference}}", reference=called)
    agents = spec(DataKind.CHAT, grader=check, max_new_tokens=1).model_copy(update={"tools": True})
    tokenizer = cache.tokenizer(tiny.entry, agents)
    assert judge(tiny.model, tokenizer, agents, rows[1:]).reward == 1.0
    answered = agents.model_copy(
        update={"grader": StringCheck(input="{{item.reference}}", reference="The cat eats fish.")}
    )
    assert judge(tiny.model, tokenizer, answered, rows[:1]).reward == 1.0


def test_a_completion_of_several_turns_is_asked_for_its_last_one(tiny: Base) -> None:
    chat = data_samples.agent(1)[0]
    row = {"prompt": chat["messages"][:1], "completion": chat["messages"][1:], "tools": chat["tools"]}
    assert question(row, DataKind.PAIRS) == question(chat, DataKind.CHAT)


def test_only_the_first_prompts_are_answered_up_to_the_limit(tiny: Base) -> None:
    rows = data_samples.pairs(6)
    few = spec(DataKind.PAIRS, grader=TextSimilarity(), max_new_tokens=8, max_generations=2)
    assert judged(tiny, few, rows).reward == judged(tiny, few, rows[:2]).reward
    assert judged(tiny, few, rows).tokens == judged(tiny, spec(DataKind.PAIRS), rows).tokens


def test_a_rows_own_columns_reach_the_grader_and_its_reference_goes_before_the_answer(tiny: Base) -> None:
    rows = [{**row, "reference": "yes", "level": 3} for row in data_samples.pairs(2)]
    own = StringCheck(input="{{item.reference}}{{item.level}}", reference="yes3")
    assert judged(tiny, spec(DataKind.PAIRS, grader=own, max_new_tokens=1), rows).reward == 1.0
    answers = StringCheck(input="{{item.reference}}", reference="{{item.completion}}")
    assert judged(tiny, spec(DataKind.PAIRS, grader=answers, max_new_tokens=1), data_samples.pairs(2)).reward == 1.0


def test_answers_are_plain_text_without_marks_and_end_where_the_model_ends_them(tiny: Base) -> None:
    render = renderer(tiny.tokenizer, spec(DataKind.PAIRS))
    prompts = [render.prompt(row["prompt"]) for row in data_samples.pairs(9)]
    answers = generate(tiny.model, tiny.tokenizer, prompts, 60)
    assert answers == [answer.strip() for answer in answers]
    assert not any("<|" in answer for answer in answers)
    assert min(len(tiny.tokenizer(answer)["input_ids"]) for answer in answers) < 59


def test_generation_settings_shipped_with_a_model_do_not_join_the_judges(tiny: Base) -> None:
    model = copy.deepcopy(tiny.model)
    shipped = GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=3.0, num_beams=2, max_length=3)
    model.generation_config = shipped
    graded = spec(DataKind.PAIRS, grader=TextSimilarity(), max_new_tokens=12)
    rows = data_samples.pairs(5)
    assert judged(tiny, graded, rows, model) == judged(tiny, graded, rows)
    assert model.generation_config is shipped


# The same for every trial


GRADED = spec(DataKind.CHAT, grader=TextSimilarity(), max_new_tokens=12)
SPECS = [
    (GRADED, data_samples.chat(9)),
    (spec(DataKind.PREFERENCE), data_samples.preference(9)),
    (spec(DataKind.TEXT, window=32), data_samples.text(9)),
]


@pytest.mark.parametrize(("wanted", "rows"), SPECS, ids=lambda value: getattr(value, "kind", ""))
def test_the_same_rows_give_the_same_numbers_twice(wanted: JudgeSpec, rows: list[Row], tiny: Base) -> None:
    assert judged(tiny, wanted, rows) == judged(tiny, wanted, rows)


@pytest.mark.parametrize("cap", [1, 50, 300])
@pytest.mark.parametrize(("wanted", "rows"), SPECS, ids=lambda value: getattr(value, "kind", ""))
def test_how_rows_are_grouped_does_not_matter(
    wanted: JudgeSpec, rows: list[Row], cap: int, tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = judged(tiny, wanted, rows)
    monkeypatch.setattr(workers.evaluate.judge, "TOKEN_CAP", {"cpu": cap})
    monkeypatch.setattr(workers.train.rollouts.sampling, "generation_batch", lambda tokens: 1 + cap // 50)
    after = judged(tiny, wanted, rows)
    assert after.perplexity == pytest.approx(before.perplexity, rel=1e-5)
    assert after.bits_per_byte == pytest.approx(before.bits_per_byte, rel=1e-5)
    assert (after.reward, after.tokens) == (before.reward, before.tokens)


def test_judging_changes_neither_the_model_nor_torchs_random_numbers(tiny: Base) -> None:
    model = copy.deepcopy(tiny.model).train()
    random = torch.random.get_rng_state()
    assert judged(tiny, GRADED, data_samples.chat(3), model) == judged(tiny, GRADED, data_samples.chat(3))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(p, tiny.model.state_dict()[name]) for name, p in model.state_dict().items())


# Row by row

EACH_KIND = [
    (spec(DataKind.PAIRS, grader=TextSimilarity(), max_new_tokens=8, max_generations=3), data_samples.pairs(9)),
    (spec(DataKind.CHAT), data_samples.chat(9)),
    (spec(DataKind.TEXT, window=32), data_samples.text(9)),
    (spec(DataKind.PREFERENCE), data_samples.preference(9)),
    (spec(DataKind.UNPAIRED), data_samples.unpaired(9)),
]


@pytest.mark.parametrize(("wanted", "rows"), EACH_KIND, ids=lambda value: getattr(value, "kind", ""))
def test_the_rows_scores_add_up_to_the_totals(wanted: JudgeSpec, rows: list[Row], tiny: Base) -> None:
    metrics, found = judge_rows(tiny.model, tiny.tokenizer, wanted, rows)
    assert metrics == judged(tiny, wanted, rows)
    assert len(found.nll) == len(found.tokens) == len(found.bytes) == metrics.rows
    assert sum(found.tokens) == metrics.tokens
    assert math.exp(sum(found.nll) / metrics.tokens) == pytest.approx(metrics.perplexity, rel=1e-12)
    assert sum(found.nll) / math.log(2) / sum(found.bytes) == pytest.approx(metrics.bits_per_byte, rel=1e-12)


@pytest.mark.parametrize(("wanted", "rows"), EACH_KIND, ids=lambda value: getattr(value, "kind", ""))
def test_a_rows_score_is_what_it_scores_alone(wanted: JudgeSpec, rows: list[Row], tiny: Base) -> None:
    found = judge_rows(tiny.model, tiny.tokenizer, wanted, rows)[1]
    plain = wanted.model_copy(update={"kind": DataKind.PAIRS}) if wanted.kind is DataKind.UNPAIRED else wanted
    for i, row in enumerate(rows):
        if found.tokens[i]:
            alone = judge_rows(tiny.model, tiny.tokenizer, plain, [row])[1]
            assert (found.nll[i], found.tokens[i], found.bytes[i]) == (
                pytest.approx(alone.nll[0], rel=1e-4),
                alone.tokens[0],
                alone.bytes[0],
            )


def test_rewards_are_those_of_the_rows_that_were_graded(tiny: Base) -> None:
    (graded, rows), _, (text, documents), (preferences, pairs), (verdicts, answers) = EACH_KIND
    metrics, found = judge_rows(tiny.model, tiny.tokenizer, graded, rows)
    assert found.reward is not None
    assert (len(found.reward), sum(found.reward) / 3) == (3, metrics.reward)
    assert judge_rows(tiny.model, tiny.tokenizer, text, documents)[1].reward is None
    metrics, found = judge_rows(tiny.model, tiny.tokenizer, preferences, pairs)
    assert found.reward is not None
    assert set(found.reward) <= {0.0, 0.5, 1.0}
    assert sum(found.reward) / 9 == metrics.reward
    metrics, found = judge_rows(tiny.model, tiny.tokenizer, verdicts, answers)
    assert found.reward is not None
    assert found.labels == tuple(row["label"] for row in answers)
    wanted = [score for score, label in zip(found.reward, found.labels, strict=True) if label]
    unwanted = [score for score, label in zip(found.reward, found.labels, strict=True) if not label]
    leads = [(good > bad) + 0.5 * (good == bad) for good in wanted for bad in unwanted]
    assert metrics.reward == pytest.approx(sum(leads) / len(leads), rel=1e-12)


def test_a_row_is_read_once(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = workers.evaluate.judge.target_logps

    def counted(model: Any, laid: Any) -> torch.Tensor:
        seen.extend(laid.lengths)
        return real(model, laid)

    monkeypatch.setattr(workers.evaluate.judge, "target_logps", counted)
    judge_rows(tiny.model, tiny.tokenizer, spec(DataKind.PAIRS), data_samples.pairs(7))
    assert len(seen) == 7


def test_the_general_text_is_plain_english_that_is_scored_as_text_whatever_the_task(tiny: Base) -> None:
    rows = general_rows()
    assert len(rows) == 20
    assert all(row["text"].isascii() and 300 < len(row["text"]) < 600 for row in rows)
    of_text = judged(tiny, spec(DataKind.TEXT), list(rows)).bits_per_byte
    for kind in (DataKind.PAIRS, DataKind.PREFERENCE, DataKind.TEXT):
        assert general_bits_per_byte(tiny.model, tiny.tokenizer, spec(kind)) == of_text


# What cannot be scored


def test_a_likelihood_that_is_no_number_fails_the_trial(tiny: Base) -> None:
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(TrialFailed, match="not finite"):
        judged(tiny, spec(DataKind.PAIRS), data_samples.pairs(2), model)


def test_a_grader_that_this_machine_may_not_run_fails_the_trial(tiny: Base) -> None:
    own = Python(source="def grade(sample, item): return 1")
    with pytest.raises(GraderFault, match="LUTHIER_PYTHON_GRADERS=1"):
        judged(tiny, spec(DataKind.PAIRS, grader=own, max_new_tokens=1), data_samples.pairs(2))


def test_rows_of_which_the_limit_leaves_nothing_fail_the_trial(tiny: Base) -> None:
    with pytest.raises(TrialFailed, match="max_length"):
        judged(tiny, spec(DataKind.PAIRS, max_tokens=8), data_samples.pairs(2))


def test_a_perplexity_too_large_for_a_float_stays_finite(tiny: Base) -> None:
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        model.model.norm.weight.mul_(1e4)
    metrics = judged(tiny, spec(DataKind.PAIRS), data_samples.pairs(2), model)
    assert math.isfinite(metrics.perplexity)
    assert metrics.bits_per_byte > 100
