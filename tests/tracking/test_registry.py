"""The registry: one version per content, a champion with a way back, a folder that plain transformers loads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from genai_core.errors import ConfigError, TransientError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.card import model_card
from genai_core.tracking.lineage import Node
from genai_core.tracking.registry import ModelVersion, Registry

Ref = Callable[..., ArtifactRef]
NAME = "pydocs"


@pytest.fixture
def registry(uri: str, tmp_path: Path) -> Registry:
    return Registry(uri, "genai", tmp_path / "mlartifacts")


@pytest.fixture
def promote(registry: Registry, tmp_path: Path, ref: Ref) -> Callable[..., ModelVersion]:
    def put(name: str, **more: object) -> ModelVersion:
        folder = tmp_path / "published" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(f'{{"name": "{name}"}}')
        (folder / "model.safetensors").write_bytes(name.encode() * 100)
        artifact = ref(name, kind=ArtifactKind.MODEL)
        run_id = registry.find_stage_run(artifact.key) or registry.stage_run(artifact.key, name)
        registry.finish(run_id)
        return registry.promote_version(NAME, folder, run_id, artifact, **more)  # type: ignore[arg-type]

    return put


def test_registering_twice_makes_one_version(
    registry: Registry, promote: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    first = promote("a", tags={"gate": "refused"}, metrics={"bpb": 1.5, "bad": float("nan")}, card="# A\n")
    again = promote("a", tags={"gate": "passed"}, metrics={"bpb": 1.5}, card="# A, again\n")
    other = promote("b")
    assert (first.version, again.version, other.version) == ("1", "1", "2")
    assert (first.tags["gate"], again.tags["gate"]) == ("refused", "passed")
    assert again.metrics == {"bpb": 1.5}
    assert again.artifact is not None
    assert again.artifact.label() == again.tags["genai.artifact"]
    assert again.run_id == registry.find_stage_run(again.artifact.key)
    found = registry.client.get_model_version(NAME, "1")
    assert found.description == "# A, again\n"
    run = registry.client.get_run(again.run_id)
    model_id = found.source.removeprefix("models:/")
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    readme = next((tmp_path / "mlartifacts").glob(f"models/{model_id}/artifacts/README.md"))
    assert readme.read_text() == "# A, again\n"
    assert registry.client.get_logged_model(model_id).metrics[0].value == 1.5
    assert len(registry.client.search_logged_models([registry.experiment_id])) == 2
    assert [version.version for version in registry.list_models()] == ["2", "1"]


def test_a_model_whose_run_was_deleted_belongs_to_the_run_that_made_it_again(
    registry: Registry, promote: Callable[..., ModelVersion]
) -> None:
    """Logged models outlive the runs and the registered models that MLflow's page deletes."""
    first = promote("a", metrics={"bpb": 1.5})
    registry.client.delete_run(first.run_id)
    registry.client.delete_registered_model(NAME)
    again = promote("a", metrics={"bpb": 1.5})
    assert again.run_id != first.run_id
    run = registry.client.get_run(again.run_id)
    assert run.data.metrics == {"bpb": 1.5}
    assert len(run.outputs.model_outputs) == 1
    assert len(registry.client.search_logged_models([registry.experiment_id])) == 1


def test_a_card_longer_than_a_description_is_cut_there_and_read_whole(
    registry: Registry, promote: Callable[..., ModelVersion]
) -> None:
    """MLflow's column has 5,000 characters, of which SQLite knows nothing; Postgres refuses the 5,001st."""
    body = "# A\n" + "".join(f"line {number} of a long lineage\n" for number in range(400))
    version = promote("a", card=f"---\nlicense: mit\n---\n\n{body}")
    shown = registry.client.get_model_version(NAME, "1").description
    assert 4900 < len(shown) <= 5000
    assert shown.startswith("# A\nline 0") and "README.md" in shown.splitlines()[-1]
    assert registry.read_card(version) == body


def test_a_registration_cut_short_is_finished_not_doubled(
    registry: Registry, promote: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("finalize_logged_model", "create_model_version"):
        with monkeypatch.context() as patched:

            def lost(*arguments: object, **more: object) -> None:
                raise OSError("connection lost")

            patched.setattr(registry.client, step, lost)
            with pytest.raises(TransientError, match="connection lost"):
                promote("a", card="# A\n")
    version = promote("a", card="# A\n")
    assert version.version == "1"
    models = registry.client.search_logged_models([registry.experiment_id])
    assert [str(model.status) for model in models] == ["READY"]
    assert len(registry.client.get_run(version.run_id).outputs.model_outputs) == 1


def test_of_two_that_promote_at_once_one_version_stays(
    registry: Registry, promote: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promote("a")
    search, looked = registry._find_version, []

    def look_too_early(*key: str) -> str | None:
        looked.append(key)
        return search(*key) if len(looked) > 1 else None  # the other run registers just after the first look

    monkeypatch.setattr(registry, "_find_version", look_too_early)
    assert promote("a").version == first.version == "1"
    assert [version.version for version in registry.list_versions(NAME)] == ["1"]


def test_champion_moves_and_comes_back(registry: Registry, promote: Callable[..., ModelVersion]) -> None:
    assert registry.champion(NAME) is None
    for name in "abc":
        promote(name)
    with pytest.raises(ConfigError, match="has no champion"):
        registry.rollback(NAME)
    moves = [registry.move_champion(NAME, version) for version in ("1", "2", "2", "3")]
    assert [(move.moved, move.champion, move.previous) for move in moves] == [
        (True, "1", ""),
        (True, "2", "1"),
        (False, "2", "1"),
        (True, "3", "2"),
    ]
    assert moves[2].reason == "it is champion already"
    assert registry.describe_model(NAME, "previous").version == "2"

    assert registry.rollback(NAME) == "2"
    assert registry.describe_model(NAME, "3").rolled_back
    assert registry.describe_model(NAME, "previous").version == "1"
    refused = registry.move_champion(NAME, "3")
    assert (refused.moved, refused.champion) == (False, "2")
    assert "version 3 was rolled back; --force" in refused.reason
    assert registry.rollback(NAME) == "1"
    assert registry.find(NAME, "previous") is None
    with pytest.raises(ConfigError, match="no version to go back to"):
        registry.rollback(NAME)

    assert registry.move_champion(NAME, "3", force=True).moved
    assert not registry.describe_model(NAME, "3").rolled_back
    assert registry.rollback(NAME) == "1"  # 2 was rolled back too and is passed over


def test_the_newest_that_was_judged_and_is_not_champion_is_challenger(
    registry: Registry, promote: Callable[..., ModelVersion]
) -> None:
    for name in "abc":
        promote(name)
    registry.move_champion(NAME, "1")
    registry.name_challenger(NAME, "1")
    assert registry.describe_model(NAME, "1").aliases == ("champion",)
    registry.name_challenger(NAME, "2")
    registry.name_challenger(NAME, "3")
    assert registry.describe_model(NAME, "challenger").version == "3"
    assert registry.describe_model(NAME, "2").aliases == ()
    registry.move_champion(NAME, "3")
    assert registry.find(NAME, "challenger") is None
    registry.rollback(NAME)
    registry.name_challenger(NAME, "3")
    assert registry.find(NAME, "challenger") is None, "a person took it back"


def test_a_rollback_or_move_cut_short_is_simply_repeated(
    registry: Registry, promote: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        promote(name)
    registry.move_champion(NAME, "1")
    set_alias = registry.client.set_registered_model_alias

    def die_at_champion(name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise OSError("killed here")
        set_alias(name, alias, version)

    def cut_short(act: Callable[[], object]) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(registry.client, "set_registered_model_alias", die_at_champion)
            with pytest.raises(TransientError, match="killed here"):
                act()

    cut_short(lambda: registry.move_champion(NAME, "2"))
    assert registry.move_champion(NAME, "2").previous == "1"
    assert registry.move_champion(NAME, "3").previous == "2"
    cut_short(lambda: registry.rollback(NAME))
    assert registry.rollback(NAME) == "2"
    assert registry.describe_model(NAME, "previous").version == "1"
    assert not registry.describe_model(NAME, "2").rolled_back


def test_what_is_not_there_is_told_with_what_is(registry: Registry, promote: Callable[..., ModelVersion]) -> None:
    with pytest.raises(ConfigError, match=r"There is no model pydocs@champion at sqlite.*No model is registered yet"):
        registry.describe_model(NAME)
    promote("a")
    registry.move_champion(NAME, "1")
    for which in ("7", "challenger"):
        with pytest.raises(ConfigError, match=rf"pydocs@{which} .*Versions: 1; aliases: champion -> 1\."):
            registry.describe_model(NAME, which)
    with pytest.raises(ConfigError, match="Registered are: pydocs"):
        registry.describe_model("other")


def test_a_model_whose_run_mlflow_forgot_is_registered_all_the_same(
    registry: Registry, tmp_path: Path, ref: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    version = registry.promote_version(NAME, tmp_path / "m", "0" * 32, ref("m", kind=ArtifactKind.MODEL))
    assert (version.version, version.run_id) == ("1", "")
    assert list(cwd.iterdir()) == []  # MLflow's default address would have made a database here


def test_plain_mlflow_and_plain_transformers_load_it(
    registry: Registry, tmp_path: Path, ref: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very code of the card, on a tiny Llama: nothing of ours in it."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(["<eos>", "<unk>", "...", "user", "assistant", ":"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}assistant :"
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=128, eos_token_id=0, **shape)
    model = LlamaForCausalLM(config)
    published = tmp_path / "published"
    model.save_pretrained(published)
    tokenizer.save_pretrained(published)

    artifact = ref("tiny", kind=ArtifactKind.MODEL)
    card = model_card(
        model_name=NAME,
        lineage=Node(artifact),
        evidence=[],
        figures={},
        gate_passed=True,
        gate_reasons=["all fine"],
        sealed_openings=1,
    )
    registry.promote_version(NAME, published, "", artifact, card=card)
    registry.move_champion(NAME, "1")
    names: dict[str, object] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], names)
    folder = Path(str(names["folder"]))
    assert {path.name for path in published.iterdir()} | {"README.md"} == {path.name for path in folder.iterdir()}
    assert (folder / "README.md").read_text() == card
    loaded = names["model"]
    assert isinstance(loaded, LlamaForCausalLM)
    ids = torch.tensor([[2, 3, 4]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
