"""Do corrections correct? Every moment against the same model at the same cost without it, on the same prompts.

    moment            arm        compared with
    training time     after      before      greedy answers of the model that learned, and of the one that did not
    generation time   best       sampled     best of n against the first sampled one of the n: what choosing brings
                      best       voted       against the vote over the same answers: what the verifier brings
                      best       after       against the greedy answer
    post-hoc          revised    after       a refused draft is revised once, with the verifier's remark
                      revised    retried     a refused draft gets a fresh sample instead: same calls, same choice, no remark

Gold is read here and nowhere before: no arm's answer depends on it. A comparison says for *right* the paired
bootstrap interval, the transition table and the tokens generated on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genai_core.correction.candidates import verdict
from genai_core.correction.generation_time.best_of_n import Chosen
from genai_core.correction.generation_time.self_consistency import canonical, count_votes
from genai_core.correction.post_hoc.revise import Episode
from genai_core.correction.transitions import count_transitions
from genai_core.data.documents import Pair
from genai_core.evaluation.benchmarks.calls import Judges, judged_case
from genai_core.evaluation.compare import paired_bootstrap
from genai_core.generation.types import Completion

COMPARISONS = (
    ("training_time", "before", "after"),
    ("generation_time", "sampled", "best"),
    ("generation_time_over_vote", "voted", "best"),
    ("generation_time_over_greedy", "after", "best"),
    ("post_hoc", "after", "revised"),
    ("post_hoc_over_retry", "retried", "revised"),
)


@dataclass(frozen=True)
class Arm:
    """One way of answering all prompts: answers, tokens generated and model calls for each, and the verdicts."""

    answers: list[str]
    tokens: list[int]
    calls: list[int]
    valid: list[bool]
    right: list[bool]

    def to_json(self) -> dict[str, float]:
        """Return the arm's figures: shares of prompts, and means a prompt."""
        n = max(1, len(self.answers))
        return {
            "right": sum(self.right) / n,
            "valid": sum(self.valid) / n,
            "distinct": len({canonical(answer) for answer in self.answers}) / n,
            "generated_tokens": sum(self.tokens) / n,
            "calls": sum(self.calls) / n,
        }


@dataclass(frozen=True)
class Measurement:
    """All arms over the same prompts, and how they compare."""

    pairs: Sequence[Pair]
    arms: dict[str, Arm]
    stop_reasons: dict[str, int]
    pass_at_n: float
    draws: int
    seed: int

    def report(self) -> dict[str, Any]:
        """Return the report as a JSON value; without prompts there is nothing to compare."""
        comparisons = {}
        for moment, baseline, arm in COMPARISONS if self.pairs else ():
            ours, theirs = self.arms[arm], self.arms[baseline]
            interval = paired_bootstrap(_numbers(theirs.right), _numbers(ours.right), self.draws, self.seed)
            table = count_transitions(theirs.right, ours.right, theirs.tokens, ours.tokens)
            changed = sum(a.strip() != b.strip() for a, b in zip(theirs.answers, ours.answers, strict=True))
            comparisons[moment] = {
                "baseline": baseline,
                "arm": arm,
                "right": interval.to_json(),
                "is_gain": interval.low > 0,
                "transitions": table.to_json(),
                "changed": changed,
            }
        return {
            "prompts": len(self.pairs),
            "arms": {name: arm.to_json() for name, arm in self.arms.items()},
            "comparisons": comparisons,
            "pass_at_n": self.pass_at_n,
            "stop_reasons": self.stop_reasons,
        }

    def figures(self) -> dict[str, float]:
        """Return the key figures, by metric name."""
        report = self.report()
        figures = {"correction/prompts": float(report["prompts"])}
        for name, arm in report["arms"].items():
            figures |= {f"correction/{name}/{figure}": arm[figure] for figure in ("right", "valid", "generated_tokens")}
        for moment, comparison in report["comparisons"].items():
            figures |= {f"correction/{moment}/{end}": comparison["right"][end] for end in ("mean", "low", "high")}
        return figures

    def cases(self) -> list[dict[str, Any]]:
        """Return one row a prompt: every arm's verdicts and tokens."""
        return [
            {
                "suite": pair.task,
                "case_id": pair.pair_id,
                **{f"{name}_right": float(arm.right[index]) for name, arm in self.arms.items()},
                **{f"{name}_valid": float(arm.valid[index]) for name, arm in self.arms.items()},
                **{f"{name}_tokens": float(arm.tokens[index]) for name, arm in self.arms.items()},
            }
            for index, pair in enumerate(self.pairs)
        ]


def measure(
    pairs: Sequence[Pair],
    before: Sequence[Completion],
    after: Sequence[Completion],
    chosen: Sequence[Chosen],
    episodes: Sequence[Episode],
    verifier: Judges,
    draws: int,
    seed: int,
) -> Measurement:
    """Return the measurement of answers that are all written already.

    Args:
        pairs: the prompts with their gold.
        before: greedy answers of the model before it learned from corrections.
        after: greedy answers of the model that did; the drafts of `episodes`.
        chosen: the second model's best of n, with all n candidates.
        episodes: its revisions.
        verifier: judges every answer with and without gold.
        draws: bootstrap resamples.
        seed: of the bootstrap.
    """
    sampled = [choice.sampled.completion for choice in chosen]
    voted = [count_votes([candidate.completion for candidate in choice.candidates]) for choice in chosen]
    was_refused = [episode.n_revisions > 0 for episode in episodes]
    # chosen as a revision is, by the verdict and of equals the later: only what the second call is told differs
    retried = [
        max((choice.sampled, episode.drafts[0]), key=verdict).completion if refused else draft
        for choice, episode, draft, refused in zip(chosen, episodes, after, was_refused, strict=True)
    ]
    one = [1] * len(pairs)
    n = [len(choice.candidates) for choice in chosen]
    arms = {
        "before": ([c.text for c in before], [c.n_tokens for c in before], one),
        "after": ([c.text for c in after], [c.n_tokens for c in after], one),
        "sampled": ([c.text for c in sampled], [c.n_tokens for c in sampled], one),
        "voted": ([vote.answer.text for vote in voted], [vote.n_tokens for vote in voted], n),
        "best": ([choice.best.text for choice in chosen], [choice.n_tokens for choice in chosen], n),
        "revised": (
            [episode.final.text for episode in episodes],
            [episode.n_tokens for episode in episodes],
            [len(episode.drafts) for episode in episodes],
        ),
        "retried": (
            [c.text for c in retried],
            [d.n_tokens + (f.n_tokens if r else 0) for d, f, r in zip(after, sampled, was_refused, strict=True)],
            [2 if refused else 1 for refused in was_refused],
        ),
    }
    solved = [
        any(judged_case(pair, candidate.text, verifier)["right"] for candidate in choice.candidates)
        for pair, choice in zip(pairs, chosen, strict=True)
    ]
    reasons = sorted(episode.stop_reason for episode in episodes)
    return Measurement(
        pairs=pairs,
        arms={name: _judge(pairs, *written, verifier) for name, written in arms.items()},
        stop_reasons={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        pass_at_n=sum(solved) / max(1, len(solved)),
        draws=draws,
        seed=seed,
    )


def _judge(pairs: Sequence[Pair], answers: list[str], tokens: list[int], calls: list[int], verifier: Judges) -> Arm:
    cases = [judged_case(pair, answer, verifier) for pair, answer in zip(pairs, answers, strict=True)]
    return Arm(
        answers=answers,
        tokens=tokens,
        calls=calls,
        valid=[bool(case["valid"]) for case in cases],
        right=[bool(case["right"]) for case in cases],
    )


def _numbers(claims: Sequence[bool]) -> list[float]:
    return [float(claim) for claim in claims]
