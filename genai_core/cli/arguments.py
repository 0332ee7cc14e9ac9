"""Arguments and options that several commands have, each with one help."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="Name of a recipe (`genai recipe list`) or a YAML file.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; repeatable.")]
StorageUri = Annotated[
    str, typer.Option("--storage", metavar="URI", help="Artifact store: a folder or s3://bucket/prefix.")
]
TrackingUri = Annotated[str, typer.Option("--mlflow", metavar="URI", help="MLflow server or database.")]
RayAddress = Annotated[
    str, typer.Option("--ray", metavar="ADDRESS", help="Job server of a Ray cluster; default: a local Ray.")
]
Refresh = Annotated[list[str], typer.Option("--refresh", metavar="STAGE", help="Compute a stage again; repeatable.")]
FlowName = Annotated[
    str,
    typer.Option(
        "--flow",
        metavar="NAME",
        help="augmentation, pretraining, finetuning, recursion, correction, evaluation; erasure; comparison.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
