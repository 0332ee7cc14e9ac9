"""What an objective counts, and what the registry makes of a config."""

import pytest
import torch

from genai_core.config.objectives import CausalLm, Contrastive, Mixture, MixtureTerm
from genai_core.objectives.base import CoupledObjective
from genai_core.objectives.causal_lm import CausalLmObjective, causal_lm_loss
from genai_core.objectives.registry import build_objectives


def test_causal_lm_sums_what_is_supervised_and_counts_it_from_the_batch_alone():
    logps = -torch.arange(8.0, dtype=torch.float64).reshape(2, 4)
    labels = torch.tensor([[-100, 5, -100, 7], [-100, -100, 3, 0]])
    assert float(causal_lm_loss(logps, labels)) == 1 + 3 + 6 + 7
    assert int(CausalLmObjective().counts({"labels": labels})["causal_lm"]) == 4


@pytest.mark.parametrize(
    ("config", "expected"),
    [(CausalLm(), [("causal_lm", 1.0, False)]),
     (Mixture(terms=(MixtureTerm(), MixtureTerm(objective=Contrastive(), weight=0.3))),
      [("causal_lm", 1.0, False), ("contrastive", 0.3, True)])],
)  # fmt: skip
def test_the_registry_names_weights_and_kinds(config, expected):
    batch = dict.fromkeys(("labels", "input_ids", "segment_ids"), torch.zeros(2, 4, dtype=torch.long))
    found = [
        (name, one.weight, isinstance(one.objective, CoupledObjective))
        for one in build_objectives(config)
        for name in one.objective.counts(batch)
    ]
    assert found == expected
