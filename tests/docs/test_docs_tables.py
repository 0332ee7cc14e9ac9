"""What the pages tell of variables, stages and exit codes is what the code has; nothing is left out, nothing stale."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from doc_pages import ROOT

from genai_core.config.load import load_recipe
from genai_core.config.settings import Settings, read_settings
from genai_core.stages.registry import STAGES

OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_the_operations_page_tells_every_variable_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or str(field.default) in {"", "."} else f"`{field.default}`"
        assert f"| `GENAI_{name.upper()}` | {default} | {field.description} |" in OPERATIONS
    told = set(re.findall(r"GENAI_[A-Z0-9_]+[A-Z0-9]", OPERATIONS))
    known = {f"GENAI_{name.upper()}" for name in Settings.model_fields}
    assert told - known == {"GENAI_PROJECT", "GENAI_DEBUG", "GENAI_S3", "GENAI_MIRROR_S3"}, "a variable that is none"


def test_the_operations_page_tells_every_stage_with_its_version() -> None:
    table = OPERATIONS.partition("| stage | version |")[2]
    told = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|$", table, re.MULTILINE)
    assert dict(told) == {name: str(stage.version) for name, stage in STAGES.items()}


def test_every_exit_code_is_told() -> None:
    from genai_core.cli import main

    codes = re.findall(r"^\| (\d+) \|", OPERATIONS, re.MULTILINE)
    assert main.__doc__
    assert codes == re.findall(r"(?:Exit codes: |; |\n)(\d+) ", main.__doc__)


def test_the_picture_is_whole_and_names_every_stage_of_a_run(tmp_path: Path) -> None:
    from flows.plan import plan

    picture = ElementTree.parse(ROOT / "docs/flow.svg").getroot()
    words = " ".join(element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}text"))
    recipe = load_recipe("minute", ["recursion.generations=1"])
    titles = {row.name for row in plan(recipe, read_settings(home=tmp_path), [])} | {"promote"}
    assert len(titles) > 10
    assert titles <= set(re.findall(r"[a-z]+(?:-[a-z0-9]+)*", words))
