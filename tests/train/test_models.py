"""What is found out about a model from its config alone."""

from math import inf

import pytest
from transformers import AutoConfig

from rlvr.config import ModelConfig, RecipeError
from rlvr.objective import Objective, ratios, surrogates, weightings
from rlvr.objective.advantages import standardize
from rlvr.objective.kl import KL, k3
from rlvr.train.models import check_policy, check_reference, context_length
from tests.train.conftest import VOCABULARY


def of_type(family: str, **values: object):
    return AutoConfig.for_model(family, max_position_embeddings=64, **values)


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


def test_up_to_what_the_policy_was_built_for(model_folder):
    check_policy(ModelConfig(path=model_folder, max_context=64))
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
