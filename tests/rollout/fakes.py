"""An engine without a model: a completion is its prompt's position, index and length, decoded a token at a time."""

import time
from collections.abc import Callable

from rlvr.rollout.engine import Request
from rlvr.types import Completion


class FakeEngine:
    """`length(request)` tokens a completion, `nap` seconds a step. `stepped(engine)` is called after each."""

    max_model_len = 100

    def __init__(self, length: Callable[[Request], int] = lambda request: 2, nap: float = 0.0, max_num_seqs: int = 4):
        self.length, self.nap, self.max_num_seqs = length, nap, max_num_seqs
        self.policy_version = -1
        self.decoding: dict[tuple, list[int]] = {}  # key -> the version of each token
        self.requests: dict[tuple, Request] = {}
        self.most, self.steps, self.asleep = 0, 0, False
        self.loading = False

    def add(self, requests):
        for request in requests:
            self.requests[request.key], self.decoding[request.key] = request, []
        self.most = max(self.most, self.running)

    @property
    def running(self) -> int:
        return len(self.decoding)

    def step(self):
        assert not self.loading, "decoding with half of the weights"
        time.sleep(self.nap)
        self.steps += 1
        done = []
        for key, versions in list(self.decoding.items()):
            versions.append(self.policy_version)
            request = self.requests[key]
            if len(versions) == self.length(request):
                del self.decoding[key], self.requests[key]
                done.append((key, self.completion(request, versions)))
        return done

    def completion(self, request: Request, versions: list[int]) -> Completion:
        count = len(versions)
        updates = tuple((n, v) for n, v in enumerate(versions) if n and v != versions[n - 1])
        text = f"{request.prompt.position}/{request.index}"
        return Completion((1,) * count, (True,) * count, (0.0,) * count, versions[0], text, "eos", None, updates)

    def abort(self):
        self.decoding, self.requests = {}, {}

    def load_weights(self, weights, policy_version):
        list(weights)
        self.policy_version = policy_version

    def score(self, token_ids):
        return [float(self.policy_version)] * (len(token_ids) - 1)

    def sleep(self):
        self.asleep = True

    def wake(self):
        self.asleep = False

    def close(self):
        self.closed = True
