"""Rows -> Prompts -> a stream in which every position always holds the same prompt."""

import json
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from rlvr.config import DataConfig, ModelConfig, RecipeError
from rlvr.data.rows import Row, is_missing, one_line, read_rows
from rlvr.data.tokenizer import load_tokenizer
from rlvr.types import Prompt

Messages = tuple[Mapping[str, str], ...]
Render = Callable[[Messages], tuple[int, ...]]  # a Renderer, or whatever is enough for the purpose
# OpenAI's, and what chat templates of Llama and GLM call tools
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "observation", "environment")
PLAIN = "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"


class Renderer:
    """Messages -> token ids, through the model's chat template or the recipe's."""

    def __init__(self, model: ModelConfig, day: date | None = None):
        """`day`: what a template that asks for the date is told; none: today."""
        self.day = day or date.today()
        self.tokenizer = load_tokenizer(model.path)
        use_template(self.tokenizer, template_of(model))
        if not self.tokenizer.chat_template:
            raise RecipeError(
                f"model.path={model.path}: its tokenizer has no chat template; set model.chat_template to a Jinja "
                "file, or to `plain` for the bare text"
            )

    def __call__(self, messages: Messages) -> tuple[int, ...]:
        """At least one token; RecipeError where the template refuses, breaks or writes nothing."""
        try:
            rendered = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False,
                strftime_now=self.day.strftime,
            )  # fmt: skip
        except Exception as error:  # some refuse a system message, or two user messages in a row; others just break
            said = one_line(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {one_line(error)}"
            raise RecipeError(f"{TEMPLATE} refuses {messages!r:.200}: {said}") from None
        if not rendered:
            raise RecipeError(f"{TEMPLATE} makes no token of {messages!r:.200}")
        return tuple(rendered)

    def ends_in_thoughts(self, token_ids: Sequence[int]) -> bool:
        """Whether they end in `<think>`, in a text that shows such tags: completions are decoded like this too."""
        text = str(self.tokenizer.decode(list(token_ids[-16:]), skip_special_tokens=True))
        return text.rstrip().endswith("<think>")


TEMPLATE = "the chat template (model.chat_template, or the tokenizer's own)"


def template_of(model: ModelConfig) -> str | None:
    """What replaces the tokenizer's own chat template; None: nothing does."""
    if model.chat_template is None:
        return None
    if model.chat_template == "plain":
        return PLAIN
    template = Path(model.chat_template).expanduser()
    if not template.is_file():
        raise RecipeError(f"model.chat_template={template}: no such file")
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"model.chat_template={template} cannot be read: {one_line(error)}") from None


def use_template(tokenizer: Any, template: str | None) -> None:
    """In training, and in what a run exports: whoever takes that up must ask as it was asked in training."""
    if template == PLAIN and [tokenizer.bos_token_id] == tokenizer("a").input_ids[:1]:
        template = "{{ bos_token }}" + PLAIN
    if template is not None:
        tokenizer.chat_template = template


def load_prompts(
    source: str, knob: str, data: DataConfig, render: Render, room: int, vocabulary: int = sys.maxsize
) -> list[Prompt]:
    """Every row of `source` as a Prompt of at most `room` tokens, all of them below `vocabulary`."""
    rows = read_rows(source, data.split, knob)
    wanted = {"data.prompt": data.prompt, "data.answer": data.answer, "data.domain": data.domain}
    for key, column in wanted.items():
        if column is not None and column not in rows[0]:
            raise RecipeError(f"{key}={column}: no such column in {source}; it has {', '.join(map(str, rows[0]))}")
    prompts = []
    for number, row in enumerate(rows):
        prompt = _prompt(row, number, source, data, render)
        if len(prompt.token_ids) > room:
            raise RecipeError(
                f"{source}, row {number}: the prompt has {len(prompt.token_ids)} tokens > {room} = model.max_context - "
                "rollout.max_tokens: raise the one, lower the other, or drop the row"
            )
        if prompt.token_ids and (last := max(prompt.token_ids)) >= vocabulary:
            raise RecipeError(
                f"{source}, row {number}: the prompt has the token {last}, but model.path knows {vocabulary} only: its "
                "tokenizer has more; drop the row"
            )
        prompts.append(prompt)
    return prompts


def _prompt(row: Row, number: int, source: str, data: DataConfig, render: Render) -> Prompt:
    for column in (data.prompt, data.answer, data.domain):
        if column is not None and is_missing(row.get(column)):
            raise RecipeError(f"{source}, row {number}: no {column}")
    question = row[data.prompt]
    if not question:
        raise RecipeError(f"{source}, row {number}: {data.prompt} is empty")
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    if why := wrong_messages(messages):
        raise RecipeError(f"{source}, row {number}: {data.prompt}={question!r:.80} {why}")
    # tables of parquet pad with null the keys that some other message has; templates ask whether a key is there
    messages = [{k: v for k, v in m.items() if v is not None or k == "content"} for m in messages]
    if data.system:
        if any(message["role"] == "system" for message in messages):
            raise RecipeError(
                f"{source}, row {number}: {data.prompt} has a system message of its own, and data.system would be a "
                "second one; set data.system=null, or take them out of the rows"
            )
        messages.insert(0, {"role": "system", "content": data.system})
    try:
        token_ids = render(tuple(messages))
    except RecipeError as error:
        raise RecipeError(f"{source}, row {number}: {error}") from None
    return Prompt(
        id=str(number if row.get("id") is None else row["id"]),
        position=number,
        messages=tuple(messages),
        token_ids=token_ids,
        answer=None if data.answer is None else row[data.answer],
        domain=str(row[data.domain]) if data.domain else "default",
        row={key: value for key, value in row.items() if key not in (data.prompt, data.answer)},
        thinking=isinstance(render, Renderer) and render.ends_in_thoughts(token_ids),
    )


def wrong_messages(messages: Any) -> str | None:
    """Why they cannot be a prompt. Chat templates pass over what they do not know, so the model would see less."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return "is neither text nor chat messages"
    for place, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return f"has the role {role!r:.40} in message {place}; there are: {', '.join(ROLES)}"
        if content is None and message.get("tool_calls") and place < len(messages) - 1:
            continue  # the call is what it says
        if not isinstance(content, str):
            return f"has no text as the content of message {place}, but {content!r:.40}"
        if re.search(r"[\ud800-\udfff]", content):
            return f"holds half of a surrogate pair in message {place}, which no tokenizer reads"
    if messages and messages[-1]["role"] == "assistant":
        return "ends in the assistant's own words: what the policy does not write is not judged with it; leave them out"
    return None if any(message["content"] for message in messages) else "is empty"


def fingerprint(prompts: Sequence[Prompt]) -> str:
    """Of their ids, tokens and answers, in their order."""
    seen = sha256()
    for prompt in prompts:
        seen.update(json.dumps([prompt.id, prompt.token_ids, prompt.answer], default=str).encode())
    return seen.hexdigest()


def refuse_overlap(train: Sequence[Prompt], heldout: Sequence[Prompt]) -> None:
    """What is trained on cannot measure the result."""
    seen = {prompt.token_ids for prompt in train}
    both = [prompt for prompt in heldout if prompt.token_ids in seen]
    if both:
        raise RecipeError(
            f"{len(both)} of {len(heldout)} prompts of data.heldout are in data.train too, the first: "
            f"{both[0].messages[-1]['content'][:80]!r}"
        )


class PromptStream:
    """An endless stream: epoch after epoch, each in its own order. Position -> prompt is a pure function."""

    def __init__(self, prompts: Sequence[Prompt], seed: int, shuffle: bool):
        self.prompts, self.seed, self.shuffle = prompts, seed, shuffle
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a step may span two epochs

    def take(self, cursor: int, count: int) -> list[Prompt]:
        """`count` prompts from position `cursor` on."""
        taken = []
        for position in range(cursor, cursor + count):
            epoch, place = divmod(position, len(self.prompts))
            taken.append(replace(self.prompts[self._order(epoch)[place]], position=position))
        return taken

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self.prompts)))
        if self.shuffle:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return order
