"""A stage alone in a folder: found again when nothing has changed, resumed when it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig, QuotePairs, TextSource, TrainTokenizer
from genai_core.config.model import ScratchBase
from genai_core.config.stages import PretrainStage
from genai_core.config.training import TrainingConfig
from genai_core.stages import registry
from genai_core.stages.alone import prepare_alone, run_alone

BASE = ScratchBase(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, max_seq_len=32)
TRAINING = TrainingConfig(steps=3, seq_len=32, global_batch_tokens=64, checkpoint_every_steps=1)
ONE = ComputeConfig(threads=1, precision="float32", micro_batch_rows=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    text = folder / "text"
    text.mkdir()
    for number in range(40):
        words = [f"word{(number * step) % 97}" for step in range(1, 81)]
        sentences = [" ".join(words[at : at + 10]).capitalize() + "." for at in range(0, 80, 10)]
        (text / f"{number:02}.txt").write_text(" ".join(sentences))
    augmentation = AugmentationConfig(
        source=TextSource(path=str(text)), pairs=QuotePairs(), tokenizer=TrainTokenizer(vocab_size=300), seq_len=32
    )
    return prepare_alone(augmentation, folder / "made")


def test_a_stage_is_found_again_and_another_seed_is_another(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = corpus.parent.parent
    config = PretrainStage(base=BASE, training=TRAINING)
    first = run_alone("pretrain", config, {"corpus": corpus}, root, compute=ONE)
    assert first.metrics["steps"] == 3 and (first.output / "model.safetensors").exists()
    other = PretrainStage(base=BASE, training=TRAINING.model_copy(update={"seed": 1}))
    assert run_alone("pretrain", other, {"corpus": corpus}, root, compute=ONE).output != first.output

    def never(stage: registry.Stage) -> None:
        raise AssertionError(f"{stage.name} is made again")

    monkeypatch.setattr(registry.Stage, "load_body", never)
    again = run_alone("pretrain", config, {"corpus": corpus}, root, compute=ONE)
    assert again == first
