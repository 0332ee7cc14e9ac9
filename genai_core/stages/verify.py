"""Export = reload in a fresh process with plain transformers and equal logits, or there is no export."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from genai_core.config.stages import VerifyStage
from genai_core.errors import IntegrityError
from genai_core.models import reload as reload_script
from genai_core.stages.contract import StageContext, StageResult

TIMEOUT_SECONDS = 600


def verify(config: VerifyStage, context: StageContext) -> StageResult:
    """Load the model folder in a fresh process and compare its logits with ours.

    Raises IntegrityError with the difference when they do not agree.
    """
    import torch

    from genai_core.models.load import load_model

    folder = context.inputs["model"]
    answer_file = context.workspace.path / "reload.json"
    script = Path(str(reload_script.__file__))
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(folder), str(answer_file)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        raise IntegrityError(
            f"The published folder of {context.refs['model'].label()} does not load:\n{done.stderr[-2000:]}"
        )
    theirs = json.loads(answer_file.read_text(encoding="utf-8"))
    answer_file.unlink()
    model = load_model(folder)
    with torch.no_grad():
        ours = model(input_ids=torch.tensor([theirs["ids"]]), use_cache=False).logits[0, -1]
    difference = float((ours.float() - torch.tensor(theirs["logits"])).abs().max())
    if not math.isfinite(difference) or difference > config.max_logit_difference:
        raise IntegrityError(
            f"The published folder of {context.refs['model'].label()} gives other logits in a fresh process: largest "
            f"difference {difference:.3g}, allowed {config.max_logit_difference:.3g}. It is not registered."
        )
    report = {"passed": True, "prompt_tokens": len(theirs["ids"]), "reply_tokens": len(theirs["reply_ids"])}
    (context.output / "report.json").write_text(json.dumps(report, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    return StageResult(metrics={"prompt_tokens": float(len(theirs["ids"]))}, told={"max_logit_difference": difference})
