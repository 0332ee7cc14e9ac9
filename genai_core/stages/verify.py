"""Export = reload in a fresh process with plain transformers and equal logits, or there is no export."""

from __future__ import annotations

import json

from genai_core.config.stages import VerifyStage
from genai_core.errors import IntegrityError
from genai_core.stages.contract import StageContext, StageResult


def verify(config: VerifyStage, context: StageContext) -> StageResult:
    """Load the model folder in a fresh process and compare its logits with ours.

    Raises IntegrityError with the difference when they do not agree.
    """
    from genai_core.models.load import load_model
    from genai_core.models.round_trip import compare_logits, reload_fresh

    folder = context.inputs["model"]
    what = f"The published folder of {context.refs['model'].label()}"
    reloaded = reload_fresh(folder, what)
    difference = compare_logits(load_model(folder), reloaded).largest
    if difference > config.max_logit_difference:
        raise IntegrityError(
            f"{what} gives other logits in a fresh process: largest difference {difference:.3g}, allowed "
            f"{config.max_logit_difference:.3g}. It is not registered."
        )
    tokens = len(reloaded.prompt_ids[0])
    report = {"passed": True, "prompt_tokens": tokens, "reply_tokens": len(reloaded.reply_ids)}
    (context.output / "report.json").write_text(json.dumps(report, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    return StageResult(metrics={"prompt_tokens": float(tokens)}, told={"max_logit_difference": difference})
