"""`genai export`: a model as a folder for transformers or a file for llama.cpp; what does not read back is not written.

Written beside the target, loaded again in a fresh process by plain transformers, compared, and only then moved there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from genai_core.cli.heldout import heldout_pairs, heldout_texts, open_corpus
from genai_core.cli.locate import locate_version, open_artifacts
from genai_core.cli.options import settings_of
from genai_core.config.settings import Settings
from genai_core.errors import ConfigError, DiskFullError, IntegrityError, ModelError
from genai_core.storage.artifact import ArtifactRef

if TYPE_CHECKING:
    from genai_core.tracking.card import ModelKind
    from genai_core.tracking.licences import Licence

PROMPTS = 8
TEXTS = 50
TOLERANCE = 1e-4
"""Largest difference between the logits read back and those of the numbers that were written; float32 on both sides."""

KEPT = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Files of a model folder that are exported; what else lies there (adapters, checkpoints, notes) is not."""

QUESTIONS = (
    "What does textwrap.shorten do?",
    "Write a call that opens a file for reading.",
    "Name three uses of a dictionary, and say when a list is better.",
    "Say in one sentence what closes a file.",
)
HARD_TEXTS = (
    "x = [1, 23,  456]\n    return  7\n\n\n8",
    "tabs\t\tand  two spaces, 3.14e-10, v2.0.1, 0x1F",
    "don't we'll I'M they've 'tis",
    "naïve Ärger übermäßig, ½ Ⅷ ２３, 日本語のテスト 12, emoji 🙂🙂 👩‍💻",
    " leading and trailing \n",
    "\u00a0no-break\u2003em space\r\nline",
    "def f(a, *, b=None):\n    '''Doc.'''\n    return a[1:-1]  # \\n",
)


@dataclass(frozen=True)
class Source:
    """What is exported."""

    title: str
    name: str
    folder: Path
    ref: ArtifactRef | None = None
    card: str = ""
    """As registered; '' if it is not."""

    prompts: Sequence[str] = QUESTIONS
    texts: Sequence[str] = field(default=HARD_TEXTS)


def export_model(model: str, to: str, out: Path, dtype: str, force: bool, mlflow: str, storage: str) -> None:
    """Write a model, read it back, compare, and say what was written and how far it is from the original."""
    from genai_core.models.write_gguf import BYTES, DTYPES

    if to not in ("hf", "gguf"):
        raise ConfigError(f"--to {to} is not a format: hf (a folder for transformers) or gguf (a file for llama.cpp).")
    if dtype and to == "hf":
        raise ConfigError(f"--dtype {dtype} goes with --to gguf; --to hf keeps the weights as they are. Leave it out.")
    dtype = dtype or "f16"
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype} is not written; there are {', '.join(DTYPES)}.")
    check_target(out, force)
    settings = settings_of(storage, mlflow)
    source = open_source(model, settings)
    if out.absolute().resolve() == source.folder.resolve():
        raise ConfigError(f"--out {out} is the model itself. Choose another folder.")
    if to == "gguf":
        refuse_diffusion(source)
    loaded, tokenizer = load_source(source.folder, encoders=to == "hf")
    numbers = sum(weight.numel() for weight in loaded.parameters())
    need = int(numbers * (BYTES[dtype] if to == "gguf" else loaded.dtype.itemsize) * 1.1)
    free = shutil.disk_usage(out.absolute().parent).free
    if free < need:
        raise DiskFullError(
            f"{out.absolute().parent} has {size(free)} free; about {size(need)} are written. Free some, or choose another --out."
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{source.title}: {type(loaded).__name__}, {numbers:,} parameters")
    source = fitting(source, loaded, tokenizer)
    licences = recorded_licences(source.ref, settings) if source.ref else []
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as place:
        draft = Path(place)
        if to == "hf":
            notes = write_folder(source, loaded, tokenizer, draft)
        else:
            notes = write_file(source, loaded, tokenizer, draft, dtype, licences)
        file = next((path.name for path in draft.glob("*.gguf")), "")
        (draft / "README.md").write_text(
            card_of(source, file, licences, settings, kind_of(source.folder, loaded)), encoding="utf-8"
        )
        written = sorted(path for path in draft.iterdir() if path.is_file())
        out.mkdir(exist_ok=True)
        for path in written:
            path.replace(out / path.name)
    longest = max(len(str(out / path.name)) for path in written)
    for path in written:
        console.print(f"  {out / path.name!s:<{longest}}  {size((out / path.name).stat().st_size):>9}")
    for note in notes:
        console.print(f"  {note}")


def check_target(out: Path, force: bool) -> None:
    """Raise ConfigError where nothing may or can be written."""
    if out.is_file():
        raise ConfigError(f"--out {out} is a file. Name a folder; it is made if it is missing.")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}. Make it, or choose another.")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConfigError(
            f"--out {out} is not empty. Choose another folder, or --force: files of the same names are replaced, others stay."
        )


def open_source(model: str, settings: Settings) -> Source:
    """Return the model and real prompts for it. Raises ModelError or ConfigError where there is none."""
    path = Path(model)
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ModelError(f"{model} is a folder without config.json: not a model written by save_pretrained.")
        return Source(title=str(path), name=path.absolute().name, folder=path)
    ref, version = locate_version(model, settings)
    store = open_artifacts(settings)
    card = ""
    if version is not None:
        from genai_core.tracking.registry import Registry

        card = Registry(settings.tracking_uri).read_card(version)
    corpus = open_corpus(ref, store)
    named = f"{version.model_name} version {version.version}, artifact " if version else ""
    return Source(
        title=named + ref.label(),
        name=version.model_name if version else ref.name,
        folder=store.fetch(ref),
        ref=ref,
        card=card,
        prompts=[pair.prompt for pair in heldout_pairs(corpus, PROMPTS)] if corpus else QUESTIONS,
        texts=[*HARD_TEXTS, *heldout_texts(corpus, TEXTS)] if corpus else HARD_TEXTS,
    )


def refuse_diffusion(source: Source) -> None:
    """Raise ModelError for a model that fills in masks: a GGUF file cannot say so, and llama.cpp would go from left to right."""
    from genai_core.models.diffusion_folder import FILE, read_writer

    if read_writer(source.folder) is not None:
        raise ModelError(
            f"{source.title} writes by diffusion ({FILE}): llama.cpp would go from left to right, and make nonsense of it. "
            "Use --to hf, which keeps the file, or `genai generate` and `genai chat`, which fill in masks."
        )


def load_source(folder: Path, *, encoders: bool) -> tuple[Any, Any]:
    """Return model and tokenizer of a folder; an adapter is merged into the base that it names.

    Args:
        folder: of the model.
        encoders: whether an encoder will do; it needs its masked-language-modelling head.

    Raises:
        ModelError: an adapter names no base that is here, or something does not load, or it is an encoder that will not do.
    """
    from genai_core.data.tokenizer import load_tokenizer
    from genai_core.models.adapters import load_merged
    from genai_core.models.families import load_any
    from genai_core.models.load import check_vocabulary, load_model

    if (folder / "config.json").is_file():
        loaded, family = load_any(folder) if encoders else (load_model(folder), "causal")
        if family == "encoder":
            raise ModelError(
                f"{folder} is an encoder without a head: it says nothing of tokens that could be compared. Its folder is one of "
                "transformers as it is; copy it."
            )
        tokenizer = load_tokenizer(folder)
    else:
        loaded, base = load_merged(folder)
        tokenizer = load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else base)
    check_vocabulary(loaded, tokenizer)
    return loaded, tokenizer


def fitting(source: Source, model: Any, tokenizer: Any) -> Source:
    """Return the source with every prompt cut to what the model holds."""
    from genai_core.generation.prompts import longest_row

    longest = longest_row(model.config)
    if longest is None:
        return source
    room = max(1, longest - 24)  # the template's own tokens, and the few of an answer
    cut = [
        tokenizer.decode(tokenizer(prompt, add_special_tokens=False)["input_ids"][:room]) for prompt in source.prompts
    ]
    return replace(source, prompts=cut)


def write_folder(source: Source, model: Any, tokenizer: Any, draft: Path) -> list[str]:
    """Write a folder for transformers; return what the check found. Raises IntegrityError where it reads back otherwise."""
    from genai_core.models.load import save_model
    from genai_core.models.round_trip import compare_logits, reload_fresh

    if any(source.folder.glob("*.safetensors")) and (source.folder / "config.json").is_file():
        for path in sorted({path for pattern in KEPT for path in source.folder.glob(pattern) if path.is_file()}):
            shutil.copyfile(path, draft / path.name)
    else:
        save_model(model, tokenizer, draft)
    what = f"The folder of {source.title}"
    reloaded = reload_fresh(draft, what, source.prompts, source.texts)
    found = compare_logits(model, reloaded)
    if found.largest > TOLERANCE:
        raise IntegrityError(
            f"{what} gives other logits when it is loaded again: largest difference {found.largest:.3g}, allowed "
            f"{TOLERANCE:g}. Nothing was written."
        )
    refuse_other_tokens(what, source.texts, encode_texts(tokenizer, source.texts), reloaded.text_ids)
    return [
        f"read back by transformers in a fresh process: {told(source, found.positions)}",
        f"logits: largest difference {found.largest:.3g} (allowed {TOLERANCE:g}); tokens: the same",
    ]


def write_file(
    source: Source, model: Any, tokenizer: Any, draft: Path, dtype: str, licences: Sequence[Licence]
) -> list[str]:
    """Write a GGUF file; return what the check found. Raises IntegrityError where it reads back otherwise."""
    from genai_core.models.gguf_tokenizer import differing, pre_tokenizer_name, read_as_llama_cpp
    from genai_core.models.licences import read_licence
    from genai_core.models.round_trip import compare_logits, reload_fresh
    from genai_core.models.write_gguf import BLOCK, round_weights, write_gguf
    from genai_core.tracking.licences import joint_licence

    file = draft / f"{source.name}-{dtype}.gguf"
    license_id = joint_licence(licences)[0] if licences else read_licence(str(source.folder))
    wider = write_gguf(model, tokenizer, file, dtype, name=source.name, license_id=license_id)
    what = f"{file.name} of {source.title}"
    reloaded = reload_fresh(draft, what, source.prompts, source.texts, file.name)
    apart = compare_logits(model, reloaded)
    round_weights(model, dtype)
    exact = compare_logits(model, reloaded)
    if exact.largest > TOLERANCE:
        raise IntegrityError(
            f"{what} gives other logits when transformers loads it: {exact.largest:.3g} from those of the numbers that "
            f"were written, allowed {TOLERANCE:g}. Nothing was written."
        )
    ours = encode_texts(tokenizer, source.texts)
    reader = read_as_llama_cpp(file)
    theirs = [reader.encode(text, add_special_tokens=False).ids for text in source.texts]
    refuse_other_tokens(what, source.texts, ours, theirs)
    pre = pre_tokenizer_name(tokenizer)
    notes = [
        f"read back by transformers in a fresh process: {told(source, apart.positions)}",
        f"logits: largest difference {exact.largest:.3g} to the numbers written (allowed {TOLERANCE:g})",
    ]
    if dtype != "f32":
        notes.append(
            f"        {apart.largest:.3g} to the model's own: {dtype} rounds; same first choice at {apart.same_choice:.1%}"
        )
    if wider:
        notes.append(f"        {len(wider)} matrices are f16: rows that are no multiple of {BLOCK} do not fit q8_0")
    notes.append(f"tokens: the same under llama.cpp's rules for {pre!r}")
    if other := differing(source.texts, ours, reloaded.text_ids):
        notes += [
            f"        transformers' reader of GGUF lacks these rules: other tokens in {len(other)} of {len(ours)} texts",
            "        (white space before digits); for transformers use --to hf",
        ]
    return notes


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, without what a tokenizer puts around it."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def refuse_other_tokens(what: str, texts: Sequence[str], ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Raise IntegrityError if a text gets other ids than it should."""
    from genai_core.models.gguf_tokenizer import differing

    other = differing(texts, ours, theirs)
    if other:
        raise IntegrityError(
            f"{what} cuts {len(other)} of {len(texts)} texts into other tokens than the model was trained on; the first "
            f"begins {other[0][:60]!r}. Nothing was written."
        )


def recorded_licences(ref: ArtifactRef, settings: Settings) -> list[Licence]:
    """Return the licences of what a model was made of, as its lineage and the base's own card state them."""
    from genai_core.models.licences import read_licence
    from genai_core.tracking.licences import licences_of
    from genai_core.tracking.lineage import lineage

    origin = lineage(open_artifacts(settings).manifest, ref)
    found = licences_of(origin)
    places = {node.ref.digest: node.ref.uri for node in origin.walk()}
    stated = {one.digest: one.text or read_licence(places[one.digest]) for one in found if one.role != "data"}
    return licences_of(origin, stated)


def kind_of(folder: Path, model: Any) -> ModelKind:
    """Return what the card says of how a model is loaded and used."""
    from genai_core.models.diffusion_folder import read_writer
    from genai_core.models.encoders import is_encoder
    from genai_core.tracking.card import CAUSAL, DIFFUSION, ENCODER

    if is_encoder(model):
        return ENCODER
    return CAUSAL if read_writer(folder) is None else DIFFUSION


def card_of(source: Source, file: str, licences: Sequence[Licence], settings: Settings, kind: ModelKind) -> str:
    """Return the model card: what is registered or recorded of the model; of a plain folder its own card, if it has one.

    Args:
        source: the model.
        file: name of the GGUF file; '' for a folder.
        licences: of what it was made of.
        settings: where its lineage is recorded.
        kind: how it is loaded and used.
    """
    from genai_core.tracking.card import exported_card, with_loading
    from genai_core.tracking.lineage import lineage

    own = source.folder / "README.md"
    if source.ref is None and own.is_file():
        return with_loading(own.read_text(encoding="utf-8"), file, kind)
    origin = lineage(open_artifacts(settings).manifest, source.ref) if source.ref else None
    return exported_card(
        name=source.name, file=file, licences=licences, lineage=origin, registered=source.card, kind=kind
    )


def told(source: Source, positions: int) -> str:
    """Return what was compared."""
    kind = "held-out prompts" if source.prompts and source.prompts[0] not in QUESTIONS else "prompts"
    return f"{len(source.prompts)} {kind}, {positions:,} positions, {len(source.texts)} texts"


def size(count: int) -> str:
    """Return a number of bytes as people write it."""
    for unit, most in (("B", 1e3), ("kB", 1e6), ("MB", 1e9)):
        if count < most:
            return f"{count / (most / 1e3):.3g} {unit}" if unit != "B" else f"{count} B"
    return f"{count / 1e9:.3g} GB"
