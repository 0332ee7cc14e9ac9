"""The `genai` command: one Typer application, one place where errors become exit codes.

Exit codes: 0 done; 1 failed; 2 the user's mistake; 3 finished, but the gate refused and the champion is unchanged;
130 interrupted (and resumable).

Commands import what they need when they run, so that `genai --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from genai_core.cli.arguments import (
    Debug,
    FlowName,
    Overrides,
    RayAddress,
    RecipeName,
    Refresh,
    StorageUri,
    TrackingUri,
)
from genai_core.cli.jobs_commands import jobs_app
from genai_core.cli.storage_commands import storage_app
from genai_core.launch.quiet import silence

app = typer.Typer(
    name="genai",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train generative language models on your own text: one recipe, one command, a registered model.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, show, write, check and explain recipes.")
models_app = typer.Typer(invoke_without_command=True, help="Registered models: list, show with lineage, roll back.")
app.add_typer(recipes_app, name="recipe")
app.add_typer(storage_app, name="storage")
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
bench_app = typer.Typer(no_args_is_help=True, help="Measure what the methods do, in small.")
app.add_typer(bench_app, name="bench")


@app.callback()
def root(debug: Debug = False) -> None:
    """Set what holds for every command."""
    silence()
    if debug:
        os.environ["GENAI_DEBUG"] = "1"


@app.command()
def run(
    recipe: RecipeName,
    set_: Overrides = [],  # noqa: B006
    report: Annotated[Path | None, typer.Option(help="Write what the end table shows as JSON.")] = None,
    storage: StorageUri = "",
    mlflow: TrackingUri = "",
    ray: RayAddress = "",
    refresh: Refresh = [],  # noqa: B006
    flow: FlowName = "lifecycle",
) -> None:
    """Run a recipe: every stage that was not published before, then registration and the gate."""
    from genai_core.cli.run import run_recipe

    raise typer.Exit(run_recipe(recipe, set_, report, storage, mlflow, ray, refresh, flow))


@recipes_app.command("list")
def recipe_list() -> None:
    """List the recipes that come with the package."""
    from genai_core.cli.recipes import show_list

    show_list()


@recipes_app.command("new")
def recipe_new(
    source: Annotated[str, typer.Option("--from", metavar="PATH", help="Your data: a file, a folder or a pattern.")],
    file: Annotated[Path | None, typer.Argument(help="YAML file to write; default: named after the data.")] = None,
    name: Annotated[str, typer.Option(help="Name of the recipe and the model; default: after the data.")] = "",
    minutes: Annotated[float, typer.Option(min=1.0, help="What a run may take on this machine, about.")] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE.")] = False,
) -> None:
    """Look at your data and write a recipe for it: format, fields, split, sizes and steps, each with its reason."""
    from genai_core.cli.new_recipe import write_recipe

    write_recipe(source, file, name, minutes, force)


@recipes_app.command("show")
def recipe_show(recipe: str, set_: Overrides = []) -> None:  # noqa: B006
    """Print a recipe with every default filled in, as YAML."""
    from genai_core.cli.recipes import show_recipe

    show_recipe(recipe, set_)


@recipes_app.command("check")
def recipe_check(
    recipe: str,
    set_: Overrides = [],  # noqa: B006
    storage: StorageUri = "",
    flow: FlowName = "lifecycle",
) -> None:
    """Check a recipe, resolve its data and model, tell what would be reused, and forecast the rest."""
    from genai_core.cli.recipes import check

    check(recipe, set_, storage, flow)


@recipes_app.command("schema")
def recipe_schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page to read: docs/recipes.md.")] = False,
) -> None:
    """Print the schema of a recipe, as JSON or Markdown: every key with its type, default and meaning."""
    from genai_core.cli.recipes import show_schema

    show_schema(markdown)


@models_app.callback()
def models(context: typer.Context, mlflow: TrackingUri = "") -> None:
    """List the registered models."""
    if context.invoked_subcommand is None:
        from genai_core.cli.models import list_models

        list_models(mlflow)


@models_app.command("list")
def models_list(mlflow: TrackingUri = "") -> None:
    """List the registered models."""
    from genai_core.cli.models import list_models

    list_models(mlflow)


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="NAME, NAME@alias or NAME/version.")],
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Show a model version with its lineage: back to data, config, commit and parents."""
    from genai_core.cli.models import show_model

    show_model(model, mlflow, storage)


@models_app.command("rollback")
def models_rollback(
    model: Annotated[str, typer.Argument(help="Name of the registered model.")], mlflow: TrackingUri = ""
) -> None:
    """Make the previous champion champion again."""
    from genai_core.cli.models import rollback

    rollback(model, mlflow)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="NAME[@alias], NAME/version, an artifact (name@version) or a folder.")],
    message: Annotated[str, typer.Option("--message", "-m", help="Say one thing and leave.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, help="0 = the most likely answer.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    history: Annotated[
        bool, typer.Option(help="Earlier turns go into the prompt, where the template has place.")
    ] = True,
    correct: Annotated[
        bool, typer.Option("--correct", help="Draw several answers, check or vote, revise once.")
    ] = False,
    samples: Annotated[int, typer.Option(min=2, help="Answers that --correct draws.")] = 4,
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Talk to a model; tokens appear as they are sampled, /help in the chat lists its commands."""
    from genai_core.cli.chat import chat_with

    chat_with(model, message, temperature, max_new_tokens, history, correct, samples, mlflow, storage)


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="NAME[@alias], NAME/version, an artifact (name@version) or a folder.")],
    file: Annotated[Path, typer.Argument(help="JSONL with a prompt field, or a text with a prompt a line.")],
    out: Annotated[
        Path | None, typer.Option(help="JSONL to write; default: beside FILE. Found again, it goes on.")
    ] = None,
    field: Annotated[str, typer.Option(help="Field of the prompt.")] = "prompt",
    samples: Annotated[int, typer.Option(min=1, help="Completions of each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 = the most likely answer.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Complete every prompt of a file; run again after a kill, it goes on where it was."""
    from genai_core.cli.generate import generate_file

    generate_file(model, file, out, field, samples, temperature, max_new_tokens, seed, mlflow, storage)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="NAME[@alias], NAME/version or an artifact (name@version).")],
    recipe: Annotated[str, typer.Option(help="Recipe whose corpus and evaluation are used.")] = "quickstart",
    set_: Overrides = [],  # noqa: B006
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Measure a model on a recipe's held-out data."""
    from genai_core.cli.evaluate import evaluate_model

    evaluate_model(model, recipe, set_, mlflow, storage)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="NAME, NAME@alias, NAME/version, an artifact (name@version) or a folder.")],
    b: Annotated[str, typer.Argument(help="The other one; differences are B minus A.")],
    prompts: Annotated[
        Path | None, typer.Option(help="JSONL with a prompt field, or a text with a prompt a line.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Prompts from A's held-out data; of --prompts all are asked.")
    ] = 6,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all of it as JSON, too.")] = None,
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Put two models side by side: figures, what differs in their making, answers."""
    from genai_core.cli.compare import compare_models

    compare_models(a, b, prompts, samples, max_new_tokens, json_file, mlflow, storage)


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="NAME, NAME@alias, NAME/version, an artifact (name@version) or a folder.")
    ],
    to: Annotated[str, typer.Option(help="hf: a folder for transformers. gguf: a file for llama.cpp.")],
    out: Annotated[Path, typer.Option(help="Folder to write; made if it is missing.")],
    dtype: Annotated[str, typer.Option(help="Numbers in the GGUF file: f32, f16 (default), bf16 or q8_0.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Write a model for transformers or llama.cpp; it is loaded again and compared, or nothing is written."""
    from genai_core.cli.export import export_model

    export_model(model, to, out, dtype, force, mlflow, storage)


@app.command()
def report(
    which: Annotated[str, typer.Argument(metavar="RUN", help="A report file, or the beginning of one's name.")] = "",
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: beside the report.")] = None,
    mlflow: TrackingUri = "",
    storage: StorageUri = "",
) -> None:
    """Write a page of a run, the newest if none is named: stages, curves, evidence, samples, lineage."""
    from genai_core.cli.report import show_report

    show_report(which, out, mlflow, storage)


@app.command()
def spread(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Reports, as `genai report` takes them.")],
    only: Annotated[
        list[str], typer.Option(help="Show figures like this: 'right', 'pretrain: *byte'; repeatable.")
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Put the figures of several runs of a recipe side by side: mean and 95 % interval over the runs."""
    from genai_core.cli.spread import show_spread

    show_spread(runs, only, out)


Host = Annotated[
    str, typer.Option(help="Address that Prefect and MLflow listen on; not loopback: with passwords only.")
]
PrefectPort = Annotated[int, typer.Option(help="Port of Prefect; taken or 0 = any free one.")]
MlflowPort = Annotated[int, typer.Option(help="Port of MLflow; taken or 0 = any free one.")]


@app.command()
def up(
    host: Host = "127.0.0.1",
    prefect_port: PrefectPort = 4200,
    mlflow_port: MlflowPort = 5000,
    ray_port: Annotated[int, typer.Option(help="Port of Ray's job server; taken or 0 = any free one.")] = 8265,
) -> None:
    """Serve the whole platform on this machine until Ctrl-C: Prefect, MLflow, a Ray head, a worker for the deployments."""
    from genai_core.cli.up import Ports, serve

    raise typer.Exit(serve(host, Ports(prefect_port, mlflow_port, ray_port)))


@app.command()
def ui(host: Host = "127.0.0.1", prefect_port: PrefectPort = 4200, mlflow_port: MlflowPort = 5000) -> None:
    """Serve the pages of Prefect and MLflow alone until Ctrl-C; a `genai run` beside it uses them."""
    from genai_core.cli.up import PAGES, Ports, serve

    raise typer.Exit(serve(host, Ports(prefect_port, mlflow_port), PAGES))


@app.command()
def deploy(
    recipe: RecipeName = "quickstart",
    set_: Overrides = [],  # noqa: B006
    cron: Annotated[list[str], typer.Option(metavar="FLOW=CRON", help="Schedule of a flow; repeatable.")] = [],  # noqa: B006
    timezone: Annotated[str, typer.Option(help="Time zone of --cron; default: UTC.")] = "",
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Switch the schedules; first off.")] = None,
    notify: Annotated[str, typer.Option(metavar="URL|BLOCK", help="Who is told of failed and refused runs.")] = "",
    pool: Annotated[str, typer.Option(help="Work pool; default: genai.")] = "",
    reset: Annotated[bool, typer.Option("--reset", help="Undo parameters that were changed in the page.")] = False,
) -> None:
    """Deploy every flow of a recipe on a Prefect server, with queue, schedules and automations; twice changes nothing."""
    from genai_core.cli.deploy import Choices, deploy

    deploy(recipe, set_, Choices(cron, timezone, active, notify, pool, reset))


@bench_app.command("objectives")
def bench_objectives(
    only: Annotated[list[str], typer.Option(help="One claim's name; repeatable. Without it, all.")] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every arm.")] = 3,
    work: Annotated[Path, typer.Option(help="Folder for models and figures; what is there is not made again.")] = Path(
        "bench-objectives"
    ),
    data: Annotated[Path | None, typer.Option(help="Folder of public data sets, for claims about them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="Of all steps; below 1 for a try.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
) -> None:
    """Train every method's arms on the same rows and say, with intervals, whether its paper's claim holds in small.

    combination: one model for masked and causal prediction (GPT-BERT). diffusion: its bound beside a causal
    likelihood. distillation: a student from a teacher's distributions. grit: one model that searches and writes.
    rat: calls from documents that are found, right ones and wrong ones (Gorilla). linkbert: pairs of linked texts.
    leace: a concept erased from the states. symbol_tuning: labels read off exemplars; needs --data.
    """
    from genai_core.cli.bench import bench_objectives

    bench_objectives(only, seeds, work, data, out, scale, threads)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    job: Annotated[
        bool, typer.Option("--job", help="Also run a small job on the Ray cluster: versions, store.")
    ] = False,
) -> None:
    """Look at this installation and its services; say what is wrong and what to do. Ends with 1 if something is."""
    from genai_core.cli.doctor import examine

    raise typer.Exit(examine(as_json, job))


def main() -> None:
    """Run the command; turn our errors into a message and an exit code."""
    from genai_core.errors import GenaiCoreError

    try:
        sys.exit(app(standalone_mode=False) or 0)  # click returns the code of typer.Exit here
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except GenaiCoreError as error:
        if os.environ.get("GENAI_DEBUG"):
            raise
        complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line
        if show is None:
            raise
        show()
        sys.exit(2)


def complain(message: str) -> None:
    """Print an error without a traceback."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False)
