"""What is found out about a model from its config alone."""

from math import inf

import pytest
from transformers import AutoConfig

from rlvr.config import ModelConfig, RecipeError
from rlvr.objective import Objective, ratios, surrogates, weightings
from rlvr.objective.advantages import standardize
from rlvr.objective.kl import KL, k3
from rlvr.train.models import check_policy, check_reference, context_length, one_rule
from tests.train.conftest import VOCABULARY


def of_type(family: str, **values: object):
    return AutoConfig.for_model(family, max_position_embeddings=64, **values)


def phi():
    long = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None}
    return of_type("phi3", original_max_position_embeddings=16, rope_scaling=long, **small, **ids)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (of_type("qwen3"), 64),
        (of_type("gpt2"), 64),
        (of_type("llama", rope_scaling={"rope_type": "linear", "factor": 4.0}), 256),
        (of_type("qwen3", rope_scaling={"rope_type": "dynamic", "factor": 2.0}), 128),
        # said to be in max_position_embeddings already
        (of_type("qwen3", rope_scaling={"rope_type": "yarn", "factor": 4.0}), 64),
        (AutoConfig.for_model("mamba"), inf),
    ],
)
def test_how_long_a_sequence_a_model_was_built_for(config, tokens):
    assert context_length(config) == tokens


@pytest.mark.parametrize(
    ("config", "kind", "tokens"),
    [
        (of_type("qwen3"), "", inf),
        (of_type("qwen3", rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "dynamic", 64),
        (of_type("qwen3", rope_scaling={"rope_type": "yarn", "factor": 4.0}), "", inf),
        (phi(), "longrope", 16),
    ],
)
def test_up_to_where_a_rotary_embedding_is_the_same_for_all(config, kind, tokens):
    assert one_rule(config) == (kind, tokens)


def test_logprobs_that_would_depend_on_the_longest_beside_are_refused(tmp_path):
    phi().save_pretrained(tmp_path)
    assert check_policy(ModelConfig(path=str(tmp_path), max_context=16)) == 99
    with pytest.raises(RecipeError, match=r"^model\.max_context=17 > 16: .* model\.path=.*, longrope, treats"):
        check_policy(ModelConfig(path=str(tmp_path), max_context=17))


def test_up_to_what_the_policy_was_built_for(model_folder):
    assert check_policy(ModelConfig(path=model_folder, max_context=64)) == VOCABULARY
    with pytest.raises(RecipeError, match=rf"^model\.max_context=65 > 64, what model\.path={model_folder} was built"):
        check_policy(ModelConfig(path=model_folder, max_context=65))


def test_a_reference_reads_what_the_policy_reads(model_folder):
    kl = KL(k3, 0.1, reference=model_folder)
    objective = Objective(standardize, ratios.token, surrogates.unclipped, weightings.token_mean, kl=kl)
    check_reference(objective, VOCABULARY, 64)
    with pytest.raises(RecipeError, match=r"^model\.max_context=65 > 64, what algorithm\.kl\.reference="):
        check_reference(objective, VOCABULARY, 65)


def test_a_model_without_a_config_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=rf"^model\.path={tmp_path}: no model could be read: "):
        check_policy(ModelConfig(path=str(tmp_path)))
