"""Asks an OpenAI-compatible chat endpoint, remembers what it said, and gives up in good time. Judges nothing.

    ask --cache by content--> POST {url}/chat/completions --retries with back-off--> text, read by the caller's `accept`

What cannot be reached or read is `NoReply`, never an answer. Only replies that the caller accepted are remembered.
"""

import asyncio
import difflib
import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

MAX_REPLY = 1_000_000  # bytes
REMEMBERED = 20_000  # replies in each process
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}  # statuses that may pass
LONGEST_WAIT_S = 30.0


class NoReply(Exception):
    """The endpoint did not answer, or not in a way that can be read; one line that says why."""


@dataclass(frozen=True)
class Endpoint:
    """The `endpoint` option of every verifier that asks a model: {url: http://judge:8000/v1, model: qwen3-32b, ...}."""

    url: str
    model: str
    key_env: str = ""  # the environment variable with the key: a key itself is never written into a recipe
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 2048
    timeout_s: float = 60.0  # of one request
    attempts: int = 4
    backoff_s: float = 0.5  # before the second attempt, then doubled
    structured: bool = False  # ask the server to enforce the form of the reply (`response_format`)
    cache: str = ""  # a folder in which replies outlive the process
    price_in: float = 0.0  # per million prompt tokens, in the currency of your choice
    price_out: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the request

    @classmethod
    def of(cls, options: Mapping[str, Any], knob: str = "endpoint") -> "Endpoint":
        """ValueError names the option that is wrong."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(known)}"
                raise ValueError(f"{knob}.{name}: no such option; {hint}")
        for name in ("url", "model"):
            if not options.get(name):
                raise ValueError(f"{knob}.{name} is missing")
        made = cls(**options)
        if made.attempts < 1 or made.timeout_s <= 0:
            raise ValueError(f"{knob}: attempts {made.attempts} and timeout_s {made.timeout_s} must be above 0")
        return made


@dataclass(frozen=True)
class Reply(Generic[T]):
    text: str
    value: T  # what `accept` made of the text
    attempts: int = 0  # 0: remembered
    cost: float = 0.0


def prepare(endpoint: Mapping[str, Any]) -> None:
    """For `setup`: the options are looked at, and the client, which takes a second to import, is there."""
    Endpoint.of(endpoint)
    import aiohttp  # noqa: F401


_remembered: OrderedDict[str, str] = OrderedDict()
_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()


async def ask(
    endpoint: Endpoint,
    prompt: str,
    seed: int,
    accept: Callable[[str], T],
    form: Mapping[str, Any] | None = None,
) -> Reply[T]:
    """The reply to `prompt`. `accept` raises ValueError for a text it cannot read; that is NoReply. `form`: a JSON
    schema of the reply, for endpoints that are `structured`."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": endpoint.temperature,
        "seed": seed,
        "max_tokens": endpoint.max_tokens,
        **endpoint.extra,
    }
    if endpoint.structured and form is not None:
        schema = {"name": "verdict", "strict": True, "schema": form}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    key = hashlib.sha256(json.dumps([endpoint.url, body], sort_keys=True).encode()).hexdigest()
    lock = _locks.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())
    async with lock:  # completions that say the same are asked about once
        if (known := recall(key, endpoint.cache)) is not None:
            return Reply(known, accept(known))
        text, attempts, cost = await _posted(endpoint, body)
        try:
            value = accept(text)
        except ValueError as error:
            raise NoReply(f"the reply cannot be read: {error}; it ends {text[-200:]!r}") from None
        remember(key, text, endpoint.cache)
    return Reply(text, value, attempts, cost)


async def _posted(endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[str, int, float]:
    """(text, attempts, cost); NoReply once the attempts are used up, or at once where another would not help."""
    import aiohttp

    headers = {}
    if endpoint.key_env:
        if not os.environ.get(endpoint.key_env):
            raise NoReply(f"endpoint.key_env: the environment variable {endpoint.key_env} is not set")
        headers["Authorization"] = f"Bearer {os.environ[endpoint.key_env]}"
    address = endpoint.url.rstrip("/") + "/chat/completions"
    said = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s)) as session:
        for attempt in range(1, endpoint.attempts + 1):
            wait_s = endpoint.backoff_s * 2 ** (attempt - 1)
            try:
                async with session.post(address, json=body, headers=headers, allow_redirects=False) as response:
                    raw = await _limited(response.content)
                    if response.status == 200:
                        text, cost = read(raw, endpoint)
                        return text, attempt, cost
                    said = f"HTTP {response.status}: {raw[:200].decode(errors='replace')}"
                    if response.status not in AGAIN:
                        raise NoReply(f"{address}: {said}")
                    wait_s = max(wait_s, seconds(response.headers.get("Retry-After", "")))
            except TimeoutError:
                said = f"no reply within endpoint.timeout_s {endpoint.timeout_s:g} s"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                said = f"{type(error).__name__}: {error}"
            if attempt < endpoint.attempts:
                await asyncio.sleep(min(wait_s, LONGEST_WAIT_S))
    raise NoReply(f"{address}: {said} (endpoint.attempts {endpoint.attempts} used up)")


async def _limited(stream: Any) -> bytes:
    raw = b""
    async for chunk in stream.iter_any():
        raw += chunk
        if len(raw) > MAX_REPLY:
            raise ValueError(f"a reply of more than {MAX_REPLY} bytes")
    return raw


def read(raw: bytes, endpoint: Endpoint) -> tuple[str, float]:
    """The text of a chat completion and its cost; ValueError when it is none."""
    try:
        reply = json.loads(raw)
        text = reply["choices"][0]["message"]["content"]
        usage = reply.get("usage") or {}
        tokens = [float(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"no chat completion ({type(error).__name__}: {error}): {raw[:100]!r}") from None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a chat completion without text")
    return text, (tokens[0] * endpoint.price_in + tokens[1] * endpoint.price_out) / 1e6


def seconds(header: str) -> float:
    try:
        return max(0.0, min(float(header), LONGEST_WAIT_S))
    except ValueError:
        return 0.0  # absent, or a date


def recall(key: str, folder: str) -> str | None:
    if key in _remembered:
        _remembered.move_to_end(key)
        return _remembered[key]
    if not folder:
        return None
    try:
        text = json.loads(_file(key, folder).read_text())["text"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: it is asked for and written again
    return text if isinstance(text, str) else None


def remember(key: str, text: str, folder: str) -> None:
    _remembered[key] = text
    if len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    if folder:
        path = _file(key, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump({"text": text}, file)
        os.replace(file.name, path)


def forget() -> None:
    _remembered.clear()


def _file(key: str, folder: str) -> Path:
    return Path(folder).expanduser() / key[:2] / f"{key}.json"
