"""Rows become prompts that the model can read, and the stream loses none of them."""

import json
import os
from collections import Counter
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.config import DataConfig, ModelConfig, RecipeError
from rlvr.data.prompts import PromptStream, Renderer, load_prompts, refuse_overlap
from tests.builders import prompt
from tests.data.tokenizers import byte_level_folder, ids, model_folder

REAL = Path(os.environ.get("RLVR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def render(model) -> Renderer:
    return Renderer(ModelConfig(path=model))


def load(tmp_path, rows, render, room=100, **data):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts(str(path), "data.train", DataConfig(train=str(path), **data), render, room)


def test_a_row_becomes_a_prompt_in_the_models_chat_format(tmp_path, render):
    (made,) = load(tmp_path, [{"problem": "what is 1 + 1 ?", "answer": "2", "level": 3}], render)
    assert made.token_ids == ids("user what is 1 + 1 ? <end> assistant")
    assert made.messages == ({"role": "user", "content": "what is 1 + 1 ?"},)
    assert (made.answer, made.domain, made.position, made.row) == ("2", "default", 0, {"level": 3})


def test_columns_and_system_message_are_the_recipes(tmp_path, render):
    rows = [{"q": "what is 2 ?", "a": 2, "kind": "math", "id": "gsm-7"}]
    (made,) = load(tmp_path, rows, render, prompt="q", answer="a", domain="kind", system="be brief")
    assert made.token_ids == ids("system be brief <end> user what is 2 ? <end> assistant")
    assert (made.id, made.answer, made.domain) == ("gsm-7", 2, "math")


def test_chat_messages_are_taken_as_they_are(tmp_path, render):
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    (made,) = load(tmp_path, [{"problem": chat, "answer": ""}], render, system="be brief")
    assert made.token_ids == ids("system be brief <end> user 1 <end> assistant 2 <end> user 3 <end> assistant")


def test_keys_that_a_table_padded_with_null_are_not_there(tmp_path):
    """Templates ask `'tool_calls' in message`. Parquet and `datasets` give every message the keys of all others."""
    asks = "{% for m in messages %}{{ m.content }}{% if 'tool_calls' in m %} assistant{% endif %} {% endfor %}"
    render = Renderer(ModelConfig(path=model_folder(tmp_path, asks)))
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}
    chat = [{"role": "user", "content": "1", "tool_calls": None}, call, {"role": "tool", "content": "2", "name": None}]
    (made,) = load(tmp_path, [{"problem": chat, "answer": ""}], render)
    assert made.messages == ({"role": "user", "content": "1"}, call, {"role": "tool", "content": "2"})
    assert made.token_ids == ids("1 None assistant 2")


def test_what_the_assistant_has_begun_is_refused(tmp_path, render):
    """It would be judged without its beginning: `The answer is \\boxed{` and then `42}.` has no box."""
    chat = [{"role": "user", "content": "what is 2"}, {"role": "assistant", "content": "2 +"}]
    with pytest.raises(RecipeError, match=r"row 0: problem=.* ends in the assistant's own words"):
        load(tmp_path, [{"problem": chat, "answer": ""}], render)


def test_two_system_messages_are_refused(tmp_path, render):
    chat = [{"role": "system", "content": "be"}, {"role": "user", "content": "1"}]
    rows = [{"problem": "1", "answer": "1"}, {"problem": chat, "answer": "1"}]
    assert load(tmp_path, rows, render)[1].token_ids == ids("system be <end> user 1 <end> assistant")
    with pytest.raises(RecipeError, match=r"row 1: problem has a system message of its own, and data\.system would be"):
        load(tmp_path, rows, render, system="be brief")


def test_a_token_that_the_model_does_not_know_is_refused(tmp_path, render):
    rows = [{"problem": "1", "answer": "1"}, {"problem": "<think>", "answer": "1"}]
    (last,) = ids("<think>")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_prompts(str(path), "data.train", DataConfig(), render, 100, vocabulary=last + 1)
    with pytest.raises(RecipeError, match=rf"row 1: the prompt has the token {last}, but model\.path knows {last}"):
        load_prompts(str(path), "data.train", DataConfig(), render, 100, vocabulary=last)


def test_a_call_of_a_tool_needs_no_text(tmp_path, render):
    """OpenAI's form: what the assistant says is the call. Templates that know of tools render it."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    chat = [{"role": "user", "content": "1"}, call, {"role": "ipython", "content": "2"}]
    assert load(tmp_path, [{"problem": chat, "answer": ""}], render)[0].messages[1] == call
    with pytest.raises(RecipeError, match="has no text as the content of message 1, but None"):
        load(tmp_path, [{"problem": chat[:2], "answer": ""}], render)


def test_rows_may_have_the_same_id_or_none(tmp_path, render):
    rows = [{"problem": "1", "answer": "1", "id": n} for n in ("a", "a", None, 0)]
    assert [(p.id, p.position) for p in load(tmp_path, rows, render)] == [("a", 0), ("a", 1), ("2", 2), ("0", 3)]


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ([{"content": "1"}], "has the role None in message 0; there are: system, "),
        ([{"from": "human", "value": "1"}], "has the role None in message 0"),
        ([{"role": "user", "content": "1"}, {"role": "robot", "content": "2"}], "has the role 'robot' in message 1"),
        ([{"role": ["user"], "content": "1"}], r"has the role \['user'\] in message 0"),
        ([{"role": "user"}], "has no text as the content of message 0, but None"),
        ([{"role": "user", "content": None}], "has no text as the content of message 0, but None"),
        ([{"role": "user", "content": [{"type": "text", "text": "1"}]}], "has no text as the content of message 0"),
        ([{"role": "user", "content": 1}], "has no text as the content of message 0, but 1"),
        ([{"role": "user", "content": ""}], "is empty"),
        ("1 \ud800", "holds half of a surrogate pair in message 0"),
    ],
)
def test_chat_messages_of_another_form_are_refused_with_their_row_and_column(tmp_path, render, chat, said):
    rows = [{"q": "1", "answer": "1"}, {"q": chat, "answer": "2"}]
    with pytest.raises(RecipeError, match=rf"a\.jsonl, row 1: q=.* {said}"):
        load(tmp_path, rows, render, prompt="q")


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "1", "user", "role", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "from"]), inner, max_size=3),
)


@settings(deadline=None, max_examples=200)
@given(chat=JSONS)
def test_whatever_a_prompt_column_holds_is_taken_as_text_or_refused_in_a_line(tmp_path_factory, render, chat):
    try:
        (made,) = load(tmp_path_factory.mktemp("rows"), [{"problem": chat, "answer": "1"}], render)
    except RecipeError as error:
        assert "row 0: " in str(error) and "\n" not in str(error)
    else:
        assert made.token_ids and all(isinstance(message["content"], str) for message in made.messages)


def test_a_missing_column_is_answered_with_those_that_are_there(tmp_path, render):
    for knob in ("prompt", "answer", "domain"):
        said = rf"^data\.{knob}=nope: no such column in .*; it has problem, answer, level$"
        with pytest.raises(RecipeError, match=said):
            load(tmp_path, [{"problem": "1", "answer": "2", "level": 3}], render, **{knob: "nope"})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "1", "level": 1}, "row 1: no answer"),
        ({"problem": "1", "answer": float("nan"), "level": 1}, "row 1: no answer"),
        ({"problem": "1", "answer": "2", "level": float("nan")}, "row 1: no level"),
        ({"problem": "1", "answer": "2"}, "row 1: no level"),
        ({"problem": "", "answer": "2", "level": 1}, "row 1: problem is empty"),
        ({"problem": 17, "answer": "2", "level": 1}, "row 1: problem=17 is neither text nor chat messages"),
        ({"problem": ["1"], "answer": "2", "level": 1}, r"row 1: problem=\['1'\] is neither text nor chat messages"),
    ],
)
def test_a_later_row_that_lacks_something_is_named(tmp_path, render, row, said):
    with pytest.raises(RecipeError, match=said):
        load(tmp_path, [{"problem": "1", "answer": "2", "level": 1}, row], render, domain="level")


def test_data_without_references_has_none(tmp_path, render):
    (made,) = load(tmp_path, [{"problem": "1", "level": 3}], render, answer=None)
    assert made.answer is None and made.row == {"level": 3}


def test_a_prompt_that_fits_is_taken_and_one_token_more_is_refused_with_the_numbers(tmp_path, render):
    rows = [{"problem": "1", "answer": "1"}, {"problem": "1 2 3", "answer": "1"}]
    assert len(load(tmp_path, rows, render, room=6)) == 2  # user 1 2 3 <end> assistant
    said = r"row 1: the prompt has 6 tokens > 5 = model\.max_context - rollout\.max_tokens"
    with pytest.raises(RecipeError, match=said):
        load(tmp_path, rows, render, room=5)


def test_the_recipes_chat_template_replaces_the_tokenizers(tmp_path, model):
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m['content'] }} + {% endfor %}")
    render = Renderer(ModelConfig(path=model, chat_template=str(tmp_path / "own.jinja")))
    assert render(({"role": "user", "content": "1"},)) == ids("1 +")


def test_a_prompt_knows_that_its_template_opens_the_thoughts(tmp_path, model):
    rows = [{"problem": "what is <think> ?", "answer": "2"}]
    for ending, thinking in (("assistant <think>\n", True), ("assistant", False), ("<think> </think>\n", False)):
        (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}" + ending)
        (made,) = load(tmp_path, rows, Renderer(ModelConfig(path=model, chat_template=str(tmp_path / "own.jinja"))))
        assert made.thinking == thinking, ending


def test_it_is_the_end_of_a_long_prompt_that_opens_the_thoughts(render):
    assert render.ends_in_thoughts(ids("what is " * 20 + "<think>"))
    assert not render.ends_in_thoughts(ids("<think> " * 16 + "what is " * 20))


def test_a_tag_that_no_completion_shows_opens_nothing(tmp_path, render):
    render = Renderer(ModelConfig(path=model_folder(tmp_path)))
    assert render.ends_in_thoughts(ids("user <think>"))
    render.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})  # decoded without it
    assert not render.ends_in_thoughts(ids("user <think>"))


def test_plain_is_the_bare_text_also_for_a_model_without_template(tmp_path):
    render = Renderer(ModelConfig(path=model_folder(tmp_path, template=None), chat_template="plain"))
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "1 ?"})
    assert render(messages) == ids("be brief 1 ?")


def test_plain_adds_nothing_to_the_text(tmp_path):
    byte_level_folder(tmp_path, "PreTrainedTokenizerFast")
    render = Renderer(ModelConfig(path=str(tmp_path), chat_template="plain"))
    messages = ({"role": "system", "content": "be"}, {"role": "user", "content": "Question: 1?\nAnswer:"})
    assert render.tokenizer.decode(list(render(messages))) == "be\nQuestion: 1?\nAnswer:"


@pytest.mark.parametrize("begins", [True, False])
def test_plain_text_begins_as_the_tokenizer_begins_a_text(tmp_path, begins):
    render = Renderer(ModelConfig(path=model_folder(tmp_path, template=None, begins=begins), chat_template="plain"))
    bare = ids("1 ?")
    assert render(({"role": "user", "content": "1 ?"},)) == ((*ids("<begin>"), *bare) if begins else bare)


def test_a_model_without_chat_template_needs_one_from_the_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"has no chat template; set model\.chat_template"):
        Renderer(ModelConfig(path=model_folder(tmp_path, template=None)))


def test_a_template_that_is_not_there_or_refuses_is_one_clear_line(tmp_path, model):
    with pytest.raises(RecipeError, match=r"model\.chat_template=nope\.jinja: no such file"):
        Renderer(ModelConfig(path=model, chat_template="nope.jinja"))
    own = tmp_path / "own.jinja"
    for text, said in (
        ("{{ raise_exception('no system') }}", "refuses .*no system"),
        ("{% if %}", "refuses .*Expected an expression"),
        ("{{ 1 / 0 }}", "refuses .*ZeroDivisionError: division by zero"),
        ("{{ 'a' + messages }}", "refuses .*TypeError: "),
        ("{{ '' }}", "makes no token of "),
    ):
        own.write_text(text)
        with pytest.raises(RecipeError, match=rf"a\.jsonl, row 0: .*model\.chat_template.* {said}") as refused:
            render = Renderer(ModelConfig(path=model, chat_template=str(own)))
            load(tmp_path, [{"problem": "1", "answer": "1"}], render)
        assert "\n" not in str(refused.value)
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"model\.chat_template=.*own\.jinja cannot be read: .*utf-8"):
        Renderer(ModelConfig(path=model, chat_template=str(own)))


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(RecipeError, match=r"^model\.path=.*/nope: no such folder$"):
        Renderer(ModelConfig(path=str(tmp_path / "nope")))


def test_a_folder_without_tokenizer_is_one_clear_line(tmp_path):
    with pytest.raises(RecipeError, match=r"^model\.path=.*: no tokenizer could be loaded: ") as refused:
        Renderer(ModelConfig(path=str(tmp_path)))
    assert "\n" not in str(refused.value)


def test_held_out_problems_that_are_trained_on_are_refused(tmp_path, render):
    train = load(tmp_path, [{"problem": "1 + 1", "answer": "2"}, {"problem": "1 + 2", "answer": "3"}], render)
    heldout = load(tmp_path, [{"problem": "2 + 2", "answer": "4"}, {"problem": "1 + 2", "answer": "x"}], render)
    said = r"1 of 2 prompts of data\.heldout are in data\.train too, the first: '1 \+ 2'"
    with pytest.raises(RecipeError, match=said):
        refuse_overlap(train, heldout)
    refuse_overlap(train, heldout[:1])


def test_real_data_sets_are_read_whole(render):
    if not REAL.is_dir():
        pytest.skip(f"no real data in {REAL}")
    room = 10_000
    gsm8k = DataConfig(prompt="question")
    train = load_prompts(str(REAL / "gsm8k_test.jsonl"), "data.train", gsm8k, render, room)
    assert len(train) == 1319
    assert train[0].answer.endswith("#### 18")
    math = load_prompts(str(REAL / "math500_test.json"), "data.heldout", DataConfig(domain="subject"), render, room)
    assert len(math) == 500
    assert {p.domain for p in math} >= {"Algebra", "Geometry"}
    assert math[0].row["level"] == 2


def stream(size: int, seed: int = 0, shuffle: bool = True) -> PromptStream:
    return PromptStream([prompt(n) for n in range(size)], seed, shuffle)


def names(made: PromptStream, cursor: int, count: int) -> list[str]:
    return [p.id for p in made.take(cursor, count)]


@settings(deadline=None)
@given(size=st.integers(1, 12), seed=st.integers(0, 5), cursor=st.integers(0, 40), counts=st.lists(st.integers(0, 9)))
def test_the_stream_is_a_function_of_the_position_however_it_is_cut(size, seed, cursor, counts):
    piecewise, position = [], cursor
    for count in counts:
        piecewise += stream(size, seed).take(position, count)
        position += count
    assert piecewise == stream(size, seed).take(cursor, sum(counts))
    assert [p.position for p in piecewise] == list(range(cursor, position))


@settings(deadline=None)
@given(size=st.integers(1, 30), epoch=st.integers(0, 5), shuffle=st.booleans())
def test_every_epoch_has_every_prompt_once(size, epoch, shuffle):
    assert Counter(names(stream(size, 1, shuffle), epoch * size, size)) == Counter(f"train-{n}" for n in range(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [names(stream(50, seed), 50 * epoch, 50) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6


def test_without_shuffle_the_order_is_the_files():
    assert names(stream(3, shuffle=False), 1, 5) == ["train-1", "train-2", "train-0", "train-1", "train-2"]


def test_the_recipes_split_is_that_of_a_data_set_whose_name_says_none(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "set").mkdir()
    for name in ("train", "test"):
        (tmp_path / "set" / f"{name}.jsonl").write_text(json.dumps({"problem": name, "answer": "1"}) + "\n")

    def read(source, split):
        data = DataConfig(train=source, split=split)
        return [p.messages[0]["content"] for p in load_prompts(source, "data.train", data, lambda m: (1,), 9)]

    assert read(str(tmp_path / "set"), "test") == ["test"] and read(f"{tmp_path}/set:train", "test") == ["train"]
