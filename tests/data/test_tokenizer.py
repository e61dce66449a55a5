"""Text survives the tokenizer, whoever loads it."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlvr.config import ModelConfig, RecipeError
from rlvr.data import tokenizer
from rlvr.data.prompts import Renderer
from rlvr.data.tokenizer import check_stop, load_tokenizer, special_tokens
from tests.data.tokenizers import WORDS, byte_level_folder, ids, model_folder

TEXT = "What is 1 + 2?\n\nLet me think."


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "LlamaTokenizerFast"])
def test_a_wrong_class_loses_neither_spaces_nor_lines(tmp_path, tokenizer_class):
    core = byte_level_folder(tmp_path, tokenizer_class)
    render = Renderer(ModelConfig(path=str(tmp_path)))
    begins = [core.token_to_id("<bos>")]
    asked = render(({"role": "user", "content": TEXT},))
    assert list(asked) == begins + core.encode(TEXT).ids
    assert render.tokenizer.decode(asked, skip_special_tokens=True) == TEXT


def test_what_the_loaded_one_writes_is_loaded_alike_by_others(tmp_path):
    """By vLLM, from a folder without config.json; and by who takes up what a run exports."""
    (tmp_path / "own").mkdir()
    byte_level_folder(tmp_path / "own", "LlamaTokenizerFast")
    ours = load_tokenizer(str(tmp_path / "own"))
    ours.save_pretrained(tmp_path / "written")
    for config in (False, True):
        if config:
            shutil.copy(tmp_path / "own" / "config.json", tmp_path / "written")
        theirs = AutoTokenizer.from_pretrained(tmp_path / "written")
        assert theirs.decode(theirs.encode(TEXT, add_special_tokens=False)) == TEXT
        assert (theirs.eos_token_id, theirs.chat_template) == (ours.eos_token_id, ours.chat_template)


def test_a_tokenizer_of_few_words_is_what_its_file_says(tmp_path):
    assert load_tokenizer(model_folder(tmp_path)).encode("what is a b") == list(ids("what is a b"))


def test_one_that_loses_what_it_reads_is_refused_with_what_came_back(tmp_path, monkeypatch):
    byte_level_folder(tmp_path, "LlamaTokenizerFast")
    monkeypatch.setattr(tokenizer, "gives_back", lambda tokenizer: False)
    said = r"its tokenizer loses what it reads, .a b\\n1 \+ 2. comes back as .*tokenizer_class=LlamaTokenizer"
    with pytest.raises(RecipeError, match=said):
        load_tokenizer(str(tmp_path))


def test_the_files_of_transformers_are_read_where_mistrals_lie_beside_them(tmp_path):
    data = Path(pytest.importorskip("mistral_common").__file__).parent / "data"
    byte_level_folder(tmp_path, "LlamaTokenizerFast", model_type="mistral")
    shutil.copy(next(data.glob("tekken_*.json")), tmp_path / "tekken.json")
    own = tmp_path / "own.jinja"
    own.write_text("Question: {{ messages[-1]['content'] }}")
    render = Renderer(ModelConfig(path=str(tmp_path), chat_template=str(own)))
    assert render.tokenizer.decode(render(({"role": "user", "content": TEXT},))) == f"Question: {TEXT}"


def test_a_folder_may_be_named_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    model_folder(tmp_path / "m")
    assert Renderer(ModelConfig(path="~/m"))(({"role": "user", "content": "1"},))
    with pytest.raises(RecipeError, match=r"^model\.path=~/n: no such folder$"):
        load_tokenizer("~/n")


def test_a_stop_string_with_a_special_token_in_it_is_refused(tmp_path):
    loaded = load_tokenizer(model_folder(tmp_path))
    special = {word: n for n, word in enumerate(WORDS) if word in ("<unk>", "<end>")}
    assert special_tokens(loaded) == special
    check_stop(loaded, ["<end>", "assistant", "<en", "d>"])
    with pytest.raises(RecipeError, match=r"rollout\.stop: '<end>\\n' holds the special token '<end>'"):
        check_stop(loaded, ["<end>\n"])


def test_only_tokens_that_are_not_shown_are_special(tmp_path):
    path = Path(model_folder(tmp_path), "tokenizer.json")
    known = json.loads(path.read_text())
    shown = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    known["added_tokens"].append({"id": WORDS.index("<think>"), "content": "<think>"} | shown)
    path.write_text(json.dumps(known))
    assert special_tokens(load_tokenizer(str(tmp_path))).keys() == {"<unk>", "<end>"}
