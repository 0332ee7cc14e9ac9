"""The claims there are, in the order of the table."""

from __future__ import annotations

from genai_core.claims import combination, diffusion, distillation, grit, leace, linkbert, rat, symbol_tuning
from genai_core.claims.base import Claim

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        combination.CLAIM,
        diffusion.CLAIM,
        distillation.CLAIM,
        grit.CLAIM,
        rat.CLAIM,
        linkbert.CLAIM,
        leace.CLAIM,
        symbol_tuning.CLAIM,
    )
}
