"""Distillation: does a small model learn more of the same text from a larger one's distributions than from the text alone?"""

from __future__ import annotations

from genai_core.claims.arms import BASE, heldout_losses, pretrain_arm, small_corpus
from genai_core.claims.base import Cases, Claim, Comparison, Setting
from genai_core.claims.combination import STEPS
from genai_core.config.model import FolderBase
from genai_core.config.objectives import CausalLm, Distillation, Objective

STUDENT_STEPS = 300
STUDENT = BASE.model_copy(update={"n_layers": 2, "d_model": 96, "n_heads": 4, "n_kv_heads": 4, "d_ff": 256})
LOSS = "causal loss, nats/token"


def measure(setting: Setting) -> Cases:
    """Train the student on the text alone, and from the causal model of the first claim, both ways round."""
    corpus = small_corpus(setting)
    teacher = pretrain_arm(setting, corpus, CausalLm(), STEPS)
    given = FolderBase(path=str(teacher))
    arms: dict[str, Objective] = {
        "text alone": CausalLm(),
        "forward KL": Distillation(teacher=given),
        "reverse KL": Distillation(teacher=given, divergence="reverse"),
    }
    models = {
        name: pretrain_arm(setting, corpus, objective, STUDENT_STEPS, base=STUDENT) for name, objective in arms.items()
    }
    losses = {name: heldout_losses(model, corpus, CausalLm()) for name, model in models.items()}
    return {LOSS: {**losses, "teacher": heldout_losses(teacher, corpus, CausalLm())}}


CLAIM = Claim(
    name="distillation",
    source="Hinton et al. 2015, arXiv 1503.02531; GKD, Agarwal et al. 2024, arXiv 2306.13649",
    asks=f"A student of 0.5 M weights, {STUDENT_STEPS} steps; its teacher is the causal model of the first claim.",
    comparisons=(
        Comparison("forward KL beats the text alone", LOSS, "forward KL", "text alone", "lower"),
        Comparison("reverse KL beats the text alone", LOSS, "reverse KL", "text alone", "lower"),
        Comparison("and the student reaches its teacher", LOSS, "forward KL", "teacher", "lower"),
    ),
    measure=measure,
)
