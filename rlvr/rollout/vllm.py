"""The vLLM engine, on CPU and CUDA. Only this file and vllm_worker.py import vLLM. Knows no data set, no reward and no
trainer."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from rlvr.config import RecipeError
from rlvr.data.tokenizer import load_tokenizer, local, special_tokens
from rlvr.rollout.engine import Done, Request
from rlvr.types import Completion, Sampling, StopReason, sampling_seed

PROBE = "probe"
SHARED = Path("/dev/shm")
set_num_threads = torch.set_num_threads  # vLLM puts a function that does nothing in its place


def prepare(threads: int, kv_cache_gib: float) -> None:
    """vLLM reads these when it is imported."""
    # its own engine process would import everything a second time: 99 s instead of 8 s to load a tiny model
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(round(kv_cache_gib))
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # pinned threads of two actors fight for the same cores
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # this process has threads: a fork of it may hang
    if not torch.cuda.is_available():
        # vLLM has helpers of a few lines compiled: 4 to 13 s before the first token, and not a step is faster for it
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    for name, value in {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}.items():
        os.environ.setdefault(name, value)


class VllmEngine:
    def __init__(
        self,
        path: str,
        *,
        dtype: str,
        max_model_len: int,
        max_num_seqs: int,
        kv_cache_gib: float = 1.0,
        gpu_memory_utilization: float = 0.85,
        tensor_parallel: int = 1,
        threads: int = 1,
        seed: int = 0,
        max_top_k: int = 0,
        sleeps: bool = False,
        share_prompts: bool | None = None,
        on_death: Callable[[], None] | None = None,
    ):
        """`kv_cache_gib`: whole, on a CPU. `max_top_k`: the largest `Sampling.top_k` that will be asked for. `sleeps`:
        on a GPU, memory is taken in a way that lets `sleep` give it back. `share_prompts`: completions of one prompt
        share its cache; None: on a GPU, where numbers are not the same to the last bit anyway. `tensor_parallel` above
        1: as many processes hold a part of the model each. `on_death`, of one who will be killed and not end: called by
        another thread when one of those has died, and nothing else works any more."""
        on_gpu = torch.cuda.is_available()
        if max_top_k and dtype == "bfloat16" and not on_gpu:
            # half of all tokens have ties at the k-th place: vLLM then samples from all of those, and tells of k
            raise RecipeError(
                f"rollout.top_k={max_top_k}: on a CPU vllm samples from more tokens than these where several are as "
                "likely, as in bfloat16, and the trainer would train on another distribution; set rollout.dtype=float32"
            )
        prepare(threads, kv_cache_gib)
        import vllm

        settings: dict[str, Any] = {"dtype": dtype}
        self.sleeps = sleeps and on_gpu
        if on_gpu:
            settings |= {"enable_sleep_mode": sleeps}
            settings |= {"gpu_memory_utilization": gpu_memory_utilization}
        else:
            settings |= {"enforce_eager": True, "dtype": "float32" if dtype == "auto" else dtype}
            # a prompt prefilled in two goes rewinds its random generator, which CPU generators cannot do
            settings |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, max_model_len)}
        if tensor_parallel > 1:
            # inside a placement group vLLM would look for a bundle of its own for each GPU
            settings |= {"tensor_parallel_size": tensor_parallel, "distributed_executor_backend": "mp"}
        set_num_threads(threads)
        self.threads, self.policy_version = threads, -1
        self.max_model_len, self.max_num_seqs = max_model_len, max_num_seqs
        self.tokenizer = load_tokenizer(path)
        self._special = special_tokens(self.tokenizer)
        with shown(self.tokenizer) as tokenizer:
            self.llm: Any = vllm.LLM(
                model=local(path),
                tokenizer=tokenizer,
                # where Mistral's own files lie beside these, vLLM would take those; the trainer reads these
                tokenizer_mode="hf",
                config_format="hf",
                load_format="hf",
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs + 1,  # a probe waits for nobody's end
                seed=seed,
                # of the distribution that was sampled from: temperature, top-p, top-k
                logprobs_mode="processed_logprobs",
                max_logprobs=max(1, max_top_k),
                enable_prefix_caching=on_gpu if share_prompts is None else share_prompts,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                async_scheduling=False,  # keeps a request's tokens independent of what else is in flight
                worker_extension_cls="rlvr.rollout.vllm_worker.Loading",
                **settings,
            )
        self._engine = self.llm.llm_engine
        self._executor, self._on_death = self._engine.engine_core.engine_core.model_executor, on_death
        if on_death and tensor_parallel > 1:
            without_names(psutil.Process())
            self._executor.register_failure_callback(on_death)
        self._engine.set_weight_version("-1")
        self._names = count()  # of vLLM's requests
        self._waiting = deque[Request]()  # vLLM itself would begin one too many
        self._running: dict[str, Request] = {}
        self._ended: list[Done] = []

    def add(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    def _begin(self) -> None:
        """What there is room for."""
        from vllm.inputs.engine import tokens_input

        # one vLLM request a completion, not n=8 of one: each has its own seed, and each ends when it ends
        while self._waiting and len(self._running) < self.max_num_seqs:
            request = self._waiting.popleft()
            name = str(next(self._names))
            self._running[name] = request
            # shared among completions that begin under the same weights, and with none that began before
            prompt = tokens_input(list(request.prompt.token_ids), cache_salt=str(self.policy_version))
            self._engine.add_request(name, prompt, parameters(request, self._special))

    @property
    def running(self) -> int:
        return len(self._waiting) + len(self._running) + len(self._ended)

    def step(self) -> list[Done]:
        set_num_threads(self.threads)  # of whoever calls: threads have a number each
        self._begin()
        if self._running:
            self._take(self._step())
        ended, self._ended = self._ended, []
        return ended

    def _step(self) -> Sequence[Any]:
        with self._whole():
            outputs: Sequence[Any] = self._engine.step()
        return outputs

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """An error of an engine that has lost a process is that death: vLLM raises it before it calls `on_death`."""
        try:
            yield
        except Exception:
            if self._on_death and getattr(self._executor, "is_failed", False):  # of an executor with processes
                self._on_death()
            raise

    def _take(self, outputs: Sequence[Any]) -> Any:
        """What ended is kept for the next `step`; the answer to a probe is returned."""
        probe = None
        for output in outputs:
            if output.request_id == PROBE:
                probe = output
                continue
            request = self._running.pop(output.request_id)
            self._ended.append((request.key, self._completion(output.outputs[0], request.sampling)))
        return probe

    def abort(self) -> None:
        self._engine.abort_request(sorted(self._running))
        self._waiting.clear()
        self._running, self._ended = {}, []

    def _completion(self, output: Any, sampling: Sampling) -> Completion:
        token_ids = tuple(output.token_ids)
        kept_ids = None
        if sampling.truncated:
            kept_ids = tuple(tuple(t for t, p in at.items() if p.logprob > -math.inf) for at in output.logprobs)
        spans = output.weight_versions
        reason: StopReason = "abort"
        if output.finish_reason == "length":
            reason = "length"
        elif output.finish_reason == "stop":
            # an id where that of a token stopped, None where it was the end token's
            named = {self._special.get(text, text) for text in sampling.stop}
            reason = "stop" if output.stop_reason in named else "eos"
        return Completion(
            token_ids=token_ids,
            loss_mask=(True,) * len(token_ids),
            rollout_logprobs=tuple(at[token].logprob for at, token in zip(output.logprobs, token_ids, strict=True)),
            policy_version=int(spans[0].version),
            text=self.tokenizer.decode(token_ids, skip_special_tokens=True),
            stop_reason=reason,
            kept_ids=kept_ids,
            updates=tuple((span.start, int(span.version)) for span in spans[1:]),
        )

    def load_weights(self, weights: Iterable[Mapping[str, torch.Tensor]], policy_version: int) -> None:
        for bucket in weights:
            with self._whole():
                self.llm.collective_rpc("load_bucket", args=(bucket,))
        self.llm.reset_prefix_cache()
        self._engine.set_weight_version(str(policy_version))
        self.policy_version = policy_version

    def score(self, token_ids: list[int]) -> list[float]:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        set_num_threads(self.threads)  # of whoever calls: threads have a number each
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        self._engine.add_request(PROBE, tokens_input(token_ids), params)
        while (scored := self._take(self._step())) is None:
            pass
        return [at[token].logprob for token, at in zip(token_ids[1:], scored.prompt_logprobs[1:], strict=True)]

    def sleep(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=2)  # the weights too: they are about to be old

    def wake(self) -> None:
        if self.sleeps:
            self.llm.wake_up()

    def close(self) -> None:
        """vLLM's own processes end with this one."""


@contextmanager
def shown(tokenizer: Any) -> Iterator[str | None]:
    """A folder to load it from, where its class is no model's own: vLLM might choose another one. None: it will not."""
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is not PreTrainedTokenizerFast:
        yield None
        return
    with TemporaryDirectory(prefix="rlvr-tokenizer-") as folder:
        tokenizer.save_pretrained(folder)
        yield folder


def without_names(parent: psutil.Process) -> None:
    """Takes its names from the memory that this process and its children share, which all of them have opened by now:
    the last one to end then frees it. Under a name it would stay for ever where they are killed."""
    for process in (parent, *parent.children()):
        for mapped in process.memory_maps():
            where = Path(mapped.path)
            if where.parent == SHARED and where.name.startswith(("psm_", "vllm_dist_", "sem.mp-")) and where.exists():
                where.unlink()
                if where.name.startswith("psm_"):  # Python keeps a list of these
                    resource_tracker.unregister(f"/{where.name}", "shared_memory")
                if where.name.startswith("sem."):  # and of these: whoever opened one maps it by name
                    resource_tracker.unregister(f"/{where.name.removeprefix('sem.')}", "semaphore")


def parameters(request: Request, special: Mapping[str, int]) -> Any:
    """`special`: the ids of tokens that no text shows."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    greedy = sampling.temperature == 0
    strings = [text for text in sampling.stop if text not in special]
    return SamplingParams(
        n=1,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        seed=None if greedy else sampling_seed(sampling.seed, request.prompt.position, request.index),
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        logprobs=sampling.top_k if sampling.truncated else 0,  # of what could be sampled, or of what was
        stop=strings or None,
        stop_token_ids=[special[text] for text in sampling.stop if text in special],
        detokenize=bool(strings),  # only stop strings need the text as it grows
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # made for this request alone
    )
