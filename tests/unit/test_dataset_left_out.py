"""Text that would be left out of training is read where it is clear; else it is named, or the file refused."""

from pathlib import Path

import pytest

from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.uploads import Row, load_rows

TOWNS = ["Ely", "Rye", "Bath", "Deal", "Ware", "Hove"]
PAIR: Row = {"prompt": "Where is {town}?", "completion": "{town} lies by the sea, they say."}


def _rows(row: Row, count: int = 24) -> list[Row]:
    """Rows with another town and number in each of their texts."""
    return [
        {
            column: value.replace("{town}", f"{TOWNS[n % 6]} {TOWNS[n // 6]}").replace("{n}", str(n))
            if isinstance(value, str)
            else value
            for column, value in row.items()
        }
        for n in range(count)
    ]


@pytest.mark.parametrize(
    "name", ["System Message", "systemPrompt", "SYS", "system-instruction", "sys_prompt", "\ufeffsystem\u200b"]
)
def test_a_system_prompt_is_read_however_its_name_is_spelt(name: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, _rows({name: "Be brief."} | PAIR))
    assert loaded.unused_columns == ()
    assert loaded.rows[0]["prompt"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("column", ["inputs", "question", "query", "text", "sentence"])
@pytest.mark.parametrize("answer", ["output", "response"])
def test_an_instruction_has_its_input_under_other_names_too(column: str, answer: str, tmp_path: Path) -> None:
    row = {"instruction": "Name the county.", column: "Where is {town}?", answer: "Kent for {town}."}
    loaded = load_rows(tmp_path, _rows(row))
    assert loaded.rows[1]["prompt"] == "Name the county.\n\nWhere is Rye Ely?"
    assert any(f"`{column}`" in note for note in loaded.notes)
    whole = row | {column: "Name the county. Where is {town}? Kent for {town}."}
    if (column, answer) == ("text", "output"):
        assert load_rows(tmp_path, _rows(whole)).rows[1]["prompt"] == "Name the county."


@pytest.mark.parametrize("column", ["story", "dialogue", "background", "table"])
def test_what_a_question_is_about_is_put_before_it(column: str, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, _rows({column: "Bo rowed to {town}.", "question": "Where to?", "answer": "{town}"}))
    assert loaded.rows[1]["prompt"] == "Bo rowed to Rye Ely.\n\nWhere to?"


@pytest.mark.parametrize(
    "row",
    [
        PAIR | {"my_notes": "They think of {town} with joy."},
        PAIR | {"response": "Nobody knows where {town} is."},
        PAIR | {"訳": "{town} は海の近くにあるそうです。"},
        {"task_text": "Say it of {town} in one word.", "input": "Where is {town}?", "output": "By the sea."},
        {"heading": "A question about {town}", "question": "Where is it?", "answer": "By the sea."},
        {"messages": [{"role": "assistant", "content": "Hi."}], "moral of it": "Never go to {town} alone."},
        {"text": "They went to {town}.", "gloss": "went means travelled to {town}"},
        {"text": "They went home {n}.", "mood": "{town}"},
        {"prompt": "Where is {town}?", "completon": "{town} lies by the sea."},
    ],
)
def test_a_text_that_is_not_learned_is_named_in_one_warning_with_a_sample(row: Row, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, _rows(row))
    [warning] = loaded.warnings
    assert warning in loaded.notes
    assert f"`{loaded.unused_columns[0]}`" in warning
    if loaded.kind is not DataKind.PROMPTS:
        assert "Ely Ely" in warning


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "train-{n}-{town}"),
        ("row", "{n}"),
        ("seen", "2024-01-{n} 10:30 UTC"),
        ("day", "Mon Jan {n} 2024"),
        ("link", "https://example.com/{town}"),
        ("at", "data/{n}/part.txt"),
        ("note", "always the same words here"),
        ("mood", "{town}"),
        ("source", "the newspaper of {town}"),
        ("asked", "Where is {town}?"),
        ("whole", "Q: Where is {town}? A: {town} lies by the sea, they say."),
        ("flag", True),
        ("vector", [0.5, 0.25]),
        ("nothing", None),
    ],
)
def test_identifiers_dates_links_constants_and_repeats_raise_no_warning(
    column: str, value: object, tmp_path: Path
) -> None:
    assert load_rows(tmp_path, _rows(PAIR | {column: value})).warnings == ()


@pytest.mark.parametrize("name", ["source", "Topic", "model", "annotator_name", "meta"])
def test_sentences_are_named_even_where_the_column_is_called_as_metadata(name: str, tmp_path: Path) -> None:
    rows = _rows({"instruction": "Into Welsh.", name: "The boats of {town} go out at night.", "output": "{n} cychod"})
    for n, row in enumerate(rows):
        row["instruction"] = ["Into Welsh.", "Translate.", "Say it in Welsh."][n % 3]
    [warning] = load_rows(tmp_path, rows).warnings
    assert f"`{name}`" in warning
    kinds = [row | {name: f"one of the {n % 3} kinds of our long texts"} for n, row in enumerate(rows)]
    objects = [row | {name: {"note": row[name]}} for row in rows]
    assert load_rows(tmp_path, kinds).warnings == load_rows(tmp_path, objects).warnings == ()


@pytest.mark.parametrize("name", ["target_lang", "Tone", "output-format", "desired length", "persona"])
def test_a_class_that_says_what_is_asked_for_is_named(name: str, tmp_path: Path) -> None:
    rows = [row | {name: ["plain", "rather formal"][n % 2]} for n, row in enumerate(_rows(PAIR))]
    [warning] = load_rows(tmp_path, rows).warnings
    assert f"`{name}`" in warning


def test_a_class_that_tells_answers_to_one_prompt_apart_is_named(tmp_path: Path) -> None:
    prompts = _rows(PAIR)
    moods = ["glad", "sad", "tired"]
    rows: list[Row] = [
        row | {"completion": f"{len(mood)} {row['completion']}", "mood": mood} for row in prompts for mood in moods
    ]
    [warning] = load_rows(tmp_path, rows).warnings
    assert "`mood`" in warning
    by_model = [{"model" if column == "mood" else column: value for column, value in row.items()} for row in rows]
    alike = [row | {"mood": moods[n % 3]} for n, row in enumerate(prompts * 2)]
    assert load_rows(tmp_path, by_model).warnings == load_rows(tmp_path, alike).warnings == ()


@pytest.mark.parametrize("name", ["Category", "topic", "text_lang", "level"])
def test_classes_of_texts_are_named_where_they_are_all_that_stands_beside(name: str, tmp_path: Path) -> None:
    texts = [{"id": n, "text": f"They went {n}.", name: ["sea", "land"][n % 2]} for n in range(24)]
    [warning] = load_rows(tmp_path, texts).warnings
    assert f"`{name}`" in warning
    assert load_rows(tmp_path, [row | {"license": ["mit", "cc"][n % 2]} for n, row in enumerate(texts)]).warnings == ()


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Where is {town}?", "Option 1": "By the sea", "Option 2": "Inland", "answer": "1"},
        {"question": "Where is {town}?", "ans_a": "By the sea", "ans_b": "Inland", "answer": "Inland"},
        {"prompt": "Where is {town}?", "ending0": "By the sea", "ending1": "Inland", "completion": "0"},
        {"instruction": "Where is {town}?", "sol_x_a": "By the sea", "sol_x_b": "Inland", "output": "(B)"},
        {"question": "Is it {town}?", "a": "Yes", "b": "No", "c": "Where is {town}?", "answer": "c."},
        {"question": "Where is {town}?", "way1": "By the sea", "way2": "Inland", "response": "way2"},
    ],
)
def test_choices_in_columns_of_their_own_are_named(row: Row, tmp_path: Path) -> None:
    loaded = load_rows(tmp_path, _rows(row))
    [warning] = [warning for warning in loaded.warnings if "prompts do not contain" in warning]
    assert all(f"`{column}`" in warning for column in loaded.unused_columns)


def test_columns_of_one_stem_that_are_no_choices_raise_no_warning(tmp_path: Path) -> None:
    assert load_rows(tmp_path, _rows(PAIR | {"score1": 0.5, "score2": 0.7, "v_a": "x", "v_b": "y"})).warnings == ()


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Name {town}.", "input": "It is {n}.", "output": "{town}!", "text": "{town} {n}"},
        {"messages": "M", "prompt": "Where is {town}?"},
        {"text": "They went to {town} {n}.", "timestamp": "2019-04-25T12:{n}Z", "url": "https://a.b/{n}"},
        {"text": "They went to {town} {n}.", "speaker": "{town}", "lang": "en", "license": "mit"},
    ],
)
def test_whole_examples_and_metadata_raise_no_warning(row: Row, tmp_path: Path) -> None:
    rows = _rows(row)
    for each in rows:
        if "output" in each:
            each["text"] = f"Below is a task. {each['instruction']} {each['input']} Response: {each['output']}"
        if "messages" in each:
            each["messages"] = [{"role": "user", "content": each["prompt"]}, {"role": "assistant", "content": "There."}]
    assert load_rows(tmp_path, rows).warnings == ()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Answer the question.", "question": "Where is {town}?", "answer": "By the sea."},
        {"prompt": "Say where.", "input": "Where is {town}?", "completion": "{town} is by the sea."},
        {"prompt": "{n}: {{question}}", "question": "Where is it?", "response": "{n}"},
        {"instruction": "Ask %(question)s {n}", "question": "Where?", "output": "There."},
        {"text": "They went to {town}.", "sql": "SELECT * FROM {town}"},
    ],
)
def test_what_would_teach_something_else_is_refused(row: Row, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="1 fault:\n  - row 1, columns "):
        load_rows(tmp_path, _rows(row))


@pytest.mark.parametrize(
    "prompt", ["Run print(f'{note} {n}')", 'Why does f"""a\n{note}{n}""" fail?', "```js\nsay(`${note}`)\n``` {n}"]
)
def test_braces_in_code_are_no_places_for_columns(prompt: str, tmp_path: Path) -> None:
    rows = _rows({"prompt": prompt, "completion": "{n}", "note": "{n}"})
    assert load_rows(tmp_path, rows).kind is DataKind.PAIRS


def test_prompts_of_code_and_prompts_that_are_alike_are_not_refused(tmp_path: Path) -> None:
    rows = _rows({"prompt": "What does f'{x} {n}' print?", "completion": "{n}", "note": "{n}"})
    assert load_rows(tmp_path, rows).kind is DataKind.PAIRS
    alike = _rows({"prompt": "Write a poem.", "completion": "O {town}!", "question": None})
    assert load_rows(tmp_path, alike).kind is DataKind.PAIRS


@pytest.mark.parametrize(
    ("column", "parts"),
    [
        ("split", ("train", "test")),
        ("Partition", ("training", "dev")),
        ("is_test", (True, False)),
        ("fold", (0, 1)),
        ("data_split", ("train", "holdout")),
        ("split", ("train_prefs", "test_prefs")),
        ("subset", ("validation.other", "train.100")),
        ("held_out", (False, True)),
        ("test", (0, 1)),
        ("usage", ("Training", "Testing")),
        ("stage of the data", ("trn", "tst")),
    ],
)
def test_a_column_of_splits_is_named_with_its_parts(column: str, parts: tuple[object, object], tmp_path: Path) -> None:
    rows = [row | {column: parts[n % 4 == 0]} for n, row in enumerate(_rows(PAIR))]
    [warning] = load_rows(tmp_path, rows).warnings
    assert f"`{column}`" in warning
    assert "18 rows" in warning
    one = [row | {column: parts[0]} for row in rows]
    assert load_rows(tmp_path, one).warnings == ()
    words = [row | {column: f"w{n % 3}"} for n, row in enumerate(rows)]
    assert column == "fold" or load_rows(tmp_path, words).warnings == ()


@pytest.mark.parametrize("values", [("dev", "ops"), ("exam", "test"), ("train ride", "bus ride"), ("1", "2")])
def test_words_that_are_no_parts_of_the_data_are_no_split(values: tuple[str, str], tmp_path: Path) -> None:
    assert load_rows(tmp_path, [row | {"sort": values[n % 2]} for n, row in enumerate(_rows(PAIR))]).warnings == ()
    shards = [row | {"split": f"train_{n % 3}"} for n, row in enumerate(_rows(PAIR))]
    assert load_rows(tmp_path, shards).warnings == ()


SEEN = {"prompt": "<image>\nWhat is seen {n}?", "completion": "The pier of {town}."}


@pytest.mark.parametrize(
    "row",
    [
        SEEN | {"img": "{n}.png"},
        SEEN | {"Image_File": "{n}.png"},
        {"text": "<|image_pad|> shows {town}", "picture_url": "https://a.b/{n}"},
        {
            "messages": [{"role": "user", "content": "<audio> What?"}, {"role": "assistant", "content": "A"}],
            "photo": "p",
        },
    ],
)
def test_media_that_the_texts_have_places_for_are_refused_under_every_name(row: Row, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1 fault:\n  - row 1, columns `\w+`: images, video and audio"):
        load_rows(tmp_path, _rows(row))


def test_media_that_no_text_has_a_place_for_are_noted_and_places_without_media_too(tmp_path: Path) -> None:
    [warning] = load_rows(tmp_path, _rows(PAIR | {"product_image": "{n}", "video_url": "https://a.b/{n}"})).warnings
    assert "`video_url`" in warning
    assert load_rows(tmp_path, _rows(PAIR | {"video_id": "v{n}", "image_name": "{n}.png"})).warnings == ()
    [warning] = load_rows(tmp_path, _rows(SEEN)).warnings
    assert "24 rows" in warning
    few = [*_rows(PAIR), *_rows({"prompt": "What is <image> in HTML {n}?", "completion": "Nothing."}, 6)]
    assert load_rows(tmp_path, few).warnings == ()


@pytest.mark.parametrize("value", ["False", "none", "0", "", [], None])
def test_a_cell_that_says_that_there_is_no_picture_is_accepted(value: object, tmp_path: Path) -> None:
    assert load_rows(tmp_path, _rows(PAIR | {"image": value})).warnings == ()
    with pytest.raises(DatasetError, match=r"24 faults.*\n  - row 1, field `image`"):
        load_rows(tmp_path, _rows(PAIR | {"image": "{n}.png"}))
