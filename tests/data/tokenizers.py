"""A model folder that is nothing but a config and a tokenizer of whole words."""

import json
import re
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)
WORDS = ["<unk>", "<end>", "system", "user", "assistant", "be", "brief", "what", "is", *"12345+?"]
WORDS += ["<begin>", "<think>", "</think>"]


def model_folder(folder: Path, template: str | None = TEMPLATE, begins: bool | None = None) -> str:
    """Words that are not in the vocabulary are `<unk>`: one word is one token. `begins`: whether the tokenizer puts
    `<begin>` before a text by itself; None: it has no such token."""
    core = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    if begins:
        core.post_processor = TemplateProcessing("<begin> $A", special_tokens=[("<begin>", WORDS.index("<begin>"))])
    more = {} if begins is None else {"bos_token": "<begin>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>", **more)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    return str(folder)


def ids(text: str) -> tuple[int, ...]:
    return tuple(WORDS.index(word) if word in WORDS else 0 for word in re.split(r"\s+", text.strip()))


def byte_level_folder(folder: Path, tokenizer_class: str, model_type: str = "llama") -> Tokenizer:
    """A tokenizer.json of bytes, and the class to load it with: DeepSeek-R1-Distill-Llama says LlamaTokenizerFast."""
    core = Tokenizer(BPE())
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    letters = ByteLevel.alphabet()
    core.train_from_iterator(
        ["what is 1 + 2?\n"], BpeTrainer(vocab_size=300, initial_alphabet=letters, special_tokens=["<bos>", "<eos>"])
    )
    core.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": tokenizer_class, "bos_token": "<bos>", "eos_token": "<eos>"}
    settings["chat_template"] = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 300}))
    return core
