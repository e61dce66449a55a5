"""One data-parallel rank of the policy trainer. The only file that imports DeepSpeed; knows no Ray and no reward.

    Batch (all ranks get the whole) -> old and reference logprobs, where asked for -> optimizer steps, each:
        layout -> my micro-batches -> logprobs -> objective.loss -> backward, ... -> step

Every token's weight is its share of the whole step, so micro-batches and ranks just add up. DeepSpeed averages over
ranks; `loss * world_size` undoes that, and is the only correction.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import replace
from functools import lru_cache
from io import StringIO
from itertools import count
from pathlib import Path
from socket import socket
from statistics import mean
from time import perf_counter

from rlvr.train.extensions import alone_in, home, with_own_tools

# before DeepSpeed is imported: where its compiled extensions lie, and what compiles them
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(home()))
os.environ["PATH"] = with_own_tools(os.environ.get("PATH", ""))

import torch
import torch.distributed as dist
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder
from transformers.integrations import HfDeepSpeedConfig
from transformers.utils import logging as transformers_logging

from rlvr.checkpoint.files import Fingerprint
from rlvr.config import ModelConfig, RecipeError, TrainerConfig
from rlvr.data.prompts import template_of
from rlvr.objective import Batch, Objective, Statistics
from rlvr.train import process_group
from rlvr.train.exporting import make_writable, write_model
from rlvr.train.lora import (
    Weight,
    adapter_parameters,
    add_adapters,
    merged_weights,
    save_adapter,
    without_adapters,
)
from rlvr.train.offload import offloading
from rlvr.train.optimizer import GuardedAdamW
from rlvr.train.packing import Layout, Row, layout
from rlvr.train.policy import Policy, dtype_of, load_policy, pack, prompts_of, scatter
from rlvr.train.proof import prove
from rlvr.train.saving import TAG, CopyThenWrite, load_checkpoint, told_in_words
from rlvr.weights import cut

Weights = dict[str, Tensor]

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


class DeepSpeedTrainer:
    """A rank. All methods are collective: every rank calls them, in the same order, with the same arguments."""

    def __init__(
        self, model: ModelConfig, cfg: TrainerConfig, temperature: float, rank: int = 0, address: str = "",
        bound: socket | None = None,
    ):  # fmt: skip
        """`address` is host:port of rank 0, the same on every rank, and `bound` its socket there; without need with one
        rank."""
        self.cfg, self.temperature, self.rank = cfg, temperature, rank
        torch.set_num_threads(cfg.threads)
        transformers_logging.disable_progress_bar()
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if self.cuda else torch.device("cpu")
        self._join(address, bound)
        dtype = dtype_of(model.dtype)
        self._gradients_arrive_whole = cfg.zero_stage == 0 and dtype == torch.float32  # else DeepSpeed's wrapper clips
        settings = self._deepspeed_config(dtype)
        # transformers then builds a ZeRO-3 model shard by shard; it must outlive the loading, hence the attribute
        self._zero3 = HfDeepSpeedConfig(settings) if cfg.zero_stage == 3 else None
        self._model = model
        # of the export, which rank 0 writes; read now: a file that is not here must not be missed when the run ends
        self._template = template_of(model) if rank == 0 else None
        self._compiled = cfg.compiles(self.cuda)
        policy = load_policy(model, cfg.gradient_checkpointing, self._compiled)
        make_writable(policy.lm, model.path)
        self._share = self._shares_prompts(policy)
        # pi_old, pi_ref and each epoch's updates are of the same completions
        self._laid_out = lru_cache(maxsize=1 + cfg.mini_batches)(layout)
        if cfg.lora.rank:
            add_adapters(policy.lm, cfg.lora)
        optimizer = GuardedAdamW(
            _decay_groups(policy, cfg.weight_decay),
            max_norm=cfg.max_grad_norm if self._gradients_arrive_whole else None,
            device=self.device,
            lr=cfg.learning_rate,
            betas=tuple(cfg.betas),
            fused=self.cuda and cfg.offload_optimizer == "none",
        )
        with redirect_stdout(StringIO()):  # it prints memory figures
            self.engine, self.optimizer, *_ = deepspeed.initialize(model=policy, optimizer=optimizer, config=settings)
        self.engine.checkpoint_engine = self._files = CopyThenWrite()
        self._guard = optimizer
        self._reference: Policy | None = None
        self._reference_path: str | None = None
        prove(self.engine, f"model.path={model.path}", cfg.probe_tolerance, self.device, self._share)

    def _join(self, address: str, bound: socket | None) -> None:
        os.environ |= {"RANK": str(self.rank), "WORLD_SIZE": str(self.cfg.ranks), "LOCAL_RANK": "0"}
        if deepspeed.comm.is_initialized():
            return
        backend = "nccl" if self.cuda else "gloo"
        process_group.join(backend, address, self.rank, self.cfg.ranks, bound)
        if not self.cuda:
            with alone_in(Path(os.environ["TORCH_EXTENSIONS_DIR"])):
                ShareMemCommBuilder().load()  # now, as init_distributed would without our lock
        deepspeed.init_distributed(dist_backend=backend, verbose=False)

    def _shares_prompts(self, policy: Policy) -> bool:
        if self.cfg.share_prompts and not policy.can_share_prompts:
            raise RecipeError(
                "trainer.share_prompts=true needs model.attention=sdpa, and a model whose layers all see everything"
            )
        return policy.can_share_prompts if self.cfg.share_prompts is None else self.cfg.share_prompts

    def _deepspeed_config(self, dtype: torch.dtype) -> dict:
        # bfloat16 weights need a float32 copy to be updated in, and DeepSpeed keeps one from stage 1 on only
        stage = max(self.cfg.zero_stage, 1) if dtype == torch.bfloat16 else self.cfg.zero_stage
        return {
            "train_micro_batch_size_per_gpu": 1,  # a bookkeeping figure only: our micro-batches vary in size
            "managed_gradient_accumulation": False,  # step() is the boundary, however many backwards came before
            "gradient_clipping": 0.0 if self._gradients_arrive_whole else self.cfg.max_grad_norm,
            "zero_allow_untested_optimizer": True,  # GuardedAdamW is torch's AdamW, on whatever device
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {"stage": stage, "overlap_comm": False} | offloading(self.cfg, pinned=self.cuda),
            "bf16": {"enabled": dtype == torch.bfloat16},
            "data_types": {"grad_accum_dtype": "fp32"},
            "steps_per_print": None,
            "wall_clock_breakdown": False,
        }

    # ---- training ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]:
        """`epochs` x `mini_batches` optimizer steps on the batch. Metrics, the same on every rank, are of all the
        tokens that these trained on; loss, gradient norm and packing are means over those that had any."""
        started = perf_counter()
        torch.set_num_threads(self.cfg.threads)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        batch = self._prepared(batch, objective)
        prepared = perf_counter() - started
        parts = self.cfg.mini_batches
        cuts = [batch] if parts == 1 else [objective.part(batch, slice(n, None, parts)) for n in range(parts)]
        updates = [self._update(cut, objective) for _ in range(self.cfg.epochs) for cut in cuts]
        total = sum((seen for seen, _ in updates), Statistics())
        counted = [said for seen, said in updates if seen.tokens] or [said for _, said in updates]
        metrics = total.means() | {name: mean(said[name] for said in counted) for name in counted[0]}
        for name in ("time/gradient", "time/optimizer"):
            metrics[name] = sum(said[name] for _, said in updates)
        times = {"time/logprobs": prepared, "time/train": perf_counter() - started}
        return metrics | {"tokens/trained": total.tokens, "policy/lr": learning_rate} | times

    def _update(self, batch: Batch, objective: Objective) -> tuple[Statistics, dict[str, float]]:
        """What it saw, for those of a step to be added up, and what is its own."""
        started = perf_counter()
        plan = self._layout(batch)
        total, loss = Statistics(), 0.0
        for rows in plan.micro_batches[self.rank]:
            micro_loss, statistics = self._forward_backward(batch, rows, objective)
            total, loss = total + statistics, loss + micro_loss
        total, loss = self._over_ranks(total, loss)
        ready = perf_counter()
        metrics = {
            "packing/padding_waste": plan.padding_waste,
            "packing/shared": plan.shared,
            "time/gradient": ready - started,
        }
        if total.tokens:  # else there is no update, and no number that were of one
            metrics |= {"policy/loss": loss} | self._step()
        return total, metrics | {"time/optimizer": perf_counter() - ready}

    def _step(self) -> dict[str, float]:
        self.engine.step()
        norm = self._guard.norm if self._gradients_arrive_whole else self.engine.get_global_grad_norm()
        if not self.engine.was_step_applied():  # in bfloat16 DeepSpeed itself looks, before the guard
            if self.cfg.offload_optimizer != "none":  # then it (0.19) keeps the gradient, and adds the next ones to it
                self.optimizer.averaged_gradients.clear()
            return {"policy/grad_norm": math.nan, "policy/skipped": 1.0}
        assert norm is not None, "there was an update"
        return {"policy/grad_norm": float(norm), "policy/skipped": float(self._guard.skipped)}

    def _prepared(self, batch: Batch, objective: Objective) -> Batch:
        """With what must be known before the first optimizer step: pi_old if there are several, pi_ref, and a KL
        penalty in the reward."""
        if len(batch) and (self.cfg.epochs * self.cfg.mini_batches > 1 or objective.kl_in_reward):
            batch = replace(batch, old_logprobs_BT=self._logprobs(self.engine, batch))
        if len(batch) and objective.needs_reference:
            assert objective.kl is not None
            batch = replace(batch, ref_logprobs_BT=self._reference_logprobs(batch, objective.kl.reference))
        return objective.penalised(batch) if len(batch) and objective.kl_in_reward else batch

    @torch.no_grad()
    def _logprobs(self, policy: Callable, batch: Batch) -> Tensor:
        """[B,T] of the tokens to score, on CPU, whole on every rank."""
        out_BT = torch.zeros(batch.token_ids_BT.shape)
        for rows in self._layout(batch).micro_batches[self.rank]:
            packed = pack(batch, rows, batch.scored_BT).to(self.device)
            logprobs_N, _ = policy(packed, self.temperature, self.cfg.logprob_chunk_tokens)
            out_BT.view(-1)[packed.place_N.cpu()] = logprobs_N.float().cpu()
        if self.cfg.ranks > 1:  # each token is scored by one rank
            shared_BT = out_BT.to(self.device)
            dist.all_reduce(shared_BT)
            out_BT = shared_BT.cpu()
        return out_BT

    def _layout(self, batch: Batch) -> Layout:
        cfg, policy = self.cfg, self.engine.module
        row_tokens = cfg.micro_batch_tokens if policy.single_row else cfg.row_tokens
        lengths, prompts = tuple(batch.lengths_B.tolist()), tuple(prompts_of(batch)) if self._share else ()
        return self._laid_out(
            lengths, cfg.ranks, row_tokens, cfg.micro_batch_tokens, policy.attention_tokens, prompts
        )  # fmt: skip

    def _forward_backward(self, batch: Batch, rows: list[Row], objective: Objective) -> tuple[float, Statistics]:
        mine = [i for row in rows for document in row for i in document]
        micro, local = batch.rows(mine), count()  # the same rows, of its own indices
        packed = pack(micro, [[[next(local) for _ in document] for document in row] for row in rows], micro.mask_BT)
        packed = packed.to(self.device)
        micro = micro.to(self.device)
        logprobs_N, entropy_N = self.engine(packed, self.temperature, self.cfg.logprob_chunk_tokens)
        loss, statistics = objective.loss(scatter(logprobs_N, packed, micro), micro)
        self.engine.backward(loss * self.cfg.ranks, scale_wrt_gas=False)
        return float(loss.detach()), statistics + Statistics({"entropy": float(entropy_N.sum())})

    def _over_ranks(self, total: Statistics, loss: float) -> tuple[Statistics, float]:
        if self.cfg.ranks == 1:
            return total, loss
        gathered: list = [None] * self.cfg.ranks
        dist.all_gather_object(gathered, (total, loss))
        return sum((statistics for statistics, _ in gathered), Statistics()), sum(loss for _, loss in gathered)

    def _reference_logprobs(self, batch: Batch, path: str | None) -> Tensor:
        """The reference is loaded when it is first asked for. Offloaded, it is on the GPU only while it computes."""
        if self.cfg.lora.rank and path is None:  # the frozen model is still there
            with without_adapters(self.engine.module):
                return self._logprobs(self.engine, batch)
        sharded = self.cfg.zero_stage == 3
        if self._reference is None or path != self._reference_path:
            self._reference, self._reference_path = None, path  # the former makes room first
            model = replace(self._model, path=path or self._model.path)
            self._reference = load_policy(model, False, self._compiled).requires_grad_(False)
            if self._share and not self._reference.can_share_prompts:
                raise RecipeError(f"the reference {model.path} cannot share prompts: trainer.share_prompts=false")
            if sharded:
                settings = self._deepspeed_config(dtype_of(self._model.dtype))
                settings["zero_optimization"].pop("offload_optimizer", None)  # it has none
                if self.cfg.offload_reference:
                    settings["zero_optimization"]["offload_param"] = {"device": "cpu", "pin_memory": self.cuda}
                self._reference, *_ = deepspeed.initialize(model=self._reference, config=settings)
            if path is not None:
                reference = self._reference if sharded else self._reference.to(self.device)
                prove(reference, f"algorithm.kl.reference={path}", self.cfg.probe_tolerance, self.device, self._share)
        if sharded:
            return self._logprobs(self._reference, batch)
        logprobs_BT = self._logprobs(self._reference.to(self.device), batch)
        if self.cfg.offload_reference:
            self._reference.to("cpu")
        return logprobs_BT

    @torch.no_grad()
    def score(self, token_ids: list[int]) -> list[float]:
        """log pi(token t | tokens < t), t >= 1, temperature 1: what an engine with the same weights must say too."""
        torch.set_num_threads(self.cfg.threads)
        tokens = torch.tensor([token_ids])
        batch = Batch.of_tokens(tokens)
        packed = pack(batch, [[[0]]], batch.mask_BT).to(self.device)
        with torch.compiler.set_stance("force_eager"):  # one sequence is not worth what compiling for it takes
            logprobs_N, _ = self.engine(packed, 1.0, self.cfg.logprob_chunk_tokens)
        return logprobs_N.tolist()

    # ---- weights ----------------------------------------------------------------------------------------------------

    def weights(self, everywhere: bool = False) -> Iterator[Weights]:
        """Buckets of the policy's weights by their Hugging Face names, on CPU, whole on rank 0 (empty elsewhere);
        `everywhere`: whole on every rank, on its device.

        ZeRO-3 gathers one bucket at a time; adapters are merged. Tied weights travel once. A bucket is to be read
        before the next one is asked for: where that needs no copy its tensors are the trainer's own.
        """
        for bucket in cut(merged_weights(self.engine.module.lm), self.cfg.bucket_mb * 2**20, _bytes):
            with self._gathered(p for _, weight in bucket for p in weight.parameters):
                whole = {name: weight.merged() for name, weight in bucket} if everywhere or self.rank == 0 else {}
                yield whole if everywhere else {name: weight.to("cpu") for name, weight in whole.items()}

    def _gathered(self, parameters: Iterable[Tensor]) -> AbstractContextManager:
        return deepspeed.zero.GatheredParameters(list(parameters), enabled=self.cfg.zero_stage == 3)

    @told_in_words()
    def export(self, folder: str) -> None:
        """A plain Hugging Face folder, written by rank 0: weights, config, tokenizer with the chat template of the
        recipe. Adapters are merged, and once more by themselves in `adapter`."""
        weights: Weights = {}
        for bucket in self.weights():
            weights |= {name: tensor.clone() for name, tensor in bucket.items()}
        lm = self.engine.module.lm
        if self.rank == 0:
            write_model(lm, weights, self._model.path, self._template, folder)
        if adapters := adapter_parameters(lm):
            with self._gathered(adapters.values()):
                if self.rank == 0:
                    save_adapter(lm, {n: p.detach().to("cpu") for n, p in adapters.items()}, Path(folder, "adapter"))

    def save(self, folder: str) -> None:
        """Begin to save all that this rank needs to go on exactly: its shard of weights and optimizer state."""
        self.engine.save_checkpoint(folder, tag=TAG, save_latest=False)

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        """None while this rank is still writing; else its files."""
        return self._files.saved(wait)

    def load(self, folder: str) -> None:
        load_checkpoint(self.engine, Path(folder), self.rank, self.cfg.ranks)


def _decay_groups(policy: Policy, weight_decay: float) -> list[dict]:
    """Norms and biases are not decayed: decay is for matrices."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    matrices = [p for p in trained if _dims(p) >= 2]
    vectors = [p for p in trained if _dims(p) < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _bytes(weight: Weight) -> int:
    return getattr(weight.parameter, "ds_numel", weight.parameter.numel()) * weight.parameter.element_size()


def _dims(parameter: Tensor) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))
