"""Registered models: versions by content, who is champion, and the way back.

A version carries the tags `genai.digest` and `genai.key` (of the published artifact), `genai.artifact` (its name),
`genai.ref` (its reference), `gate` and `genai.metrics`; the aliases `champion`, `challenger` (the newest that was
judged and is not champion) and `previous` point at versions. MLflow moves one alias atomically and has no compare-and-swap,
so whoever judges a version for the first time must hold the claim of the promotion; within one move the order is such that a
crash at any point can simply be followed by the same call.

    mlflow.artifacts.download_artifacts("models:/NAME@champion")    a folder that plain transformers loads
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genai_core.errors import ConfigError
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.card import REST, shortened, without_header
from genai_core.tracking.quiet import open_mlflow
from genai_core.tracking.runs import Tracker, clean_name, now_ms
from genai_core.tracking.secrets import masked

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
DIGEST, KEY, ARTIFACT, REF, METRICS = "genai.digest", "genai.key", "genai.artifact", "genai.ref", "genai.metrics"
BEFORE = "champion_before"  # tag: which version was champion when this one became it
ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model."""

    model_name: str
    version: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str
    """Run that trained it, '' if unknown."""
    digest: str
    artifact: ArtifactRef | None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Return `models:/NAME/VERSION`, as plain MLflow takes it."""
        return f"models:/{self.model_name}/{self.version}"

    @property
    def rolled_back(self) -> bool:
        """Return whether a person took this version back from being champion."""
        return self.tags.get(ROLLED_BACK) == "true"


@dataclass(frozen=True)
class Move:
    """What came of asking for another champion."""

    moved: bool
    champion: str
    """Version that is champion now, '' if there is none."""
    previous: str
    """Version that a rollback would bring back, '' if there is none."""
    reason: str
    """Why nothing moved; '' if it did."""


LONGEST_DESCRIPTION = 5000
"""Characters that a version's description may have: MLflow's column. Postgres refuses more, SQLite does not."""


def describe(card: str) -> str:
    """Return what MLflow's page shows of a card: without its YAML header, which would be text there, and no longer than may be."""
    return shortened(without_header(card), LONGEST_DESCRIPTION)


class Registry(Tracker):
    """The registry of one MLflow. Raises the errors of `Connection.call`, and ConfigError for what is not there."""

    def promote_version(
        self,
        model_name: str,
        model_dir: Path,
        run_id: str,
        artifact: ArtifactRef,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        card: str = "",
    ) -> ModelVersion:
        """Return the version that holds this artifact: the one that is there, else a new one. No alias is moved.

        Weights are copied file by file, never loaded. What is there already (same digest) gets the new tags and card
        but no second version and no second copy.

        Args:
            model_dir: what `save_pretrained` wrote: model and tokenizer files at its root.
            run_id: the run that trained it; '' or one that MLflow has forgotten: found again by its stage key.
            tags: such as gate=passed or gate=refused, stage_key, license.
            metrics: key figures of the evidence.
            card: README.md; also the version's description in MLflow's page.
        """
        if not (run_id and self.run_exists(run_id)):
            run_id = self.find_stage_run(artifact.key) or ""
        figures = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
        told = {
            **{clean_name(name): str(value) for name, value in masked(dict(tags or {})).items()},
            DIGEST: artifact.digest,
            KEY: artifact.key,
            ARTIFACT: artifact.label(),
            REF: json.dumps(masked(artifact), sort_keys=True),
            METRICS: json.dumps(figures, sort_keys=True),
        }
        version = self._find_version(model_name, artifact.digest)
        if version is None:
            model_id = self._log_model(model_name, model_dir, run_id, artifact, metrics=figures, card=card)
            version = self._create_version(model_name, artifact.digest, model_id, run_id, tags=told, card=card)
        else:
            self._tell_again(model_name, version, told, card)
        return self.describe_model(model_name, version)

    def has_alias(self, model_name: str, digest: str) -> bool:
        """Return whether a version with these contents is registered and has an alias."""
        version = self._find_version(model_name, digest)
        return version is not None and bool(self.describe_model(model_name, version).aliases)

    def move_champion(self, model_name: str, version: str, *, force: bool = False) -> Move:
        """Make a version champion and keep the one before as `previous`; return what came of it.

        Nothing moves if it is champion already, or if it was rolled back (unless `force`).
        """
        candidate = self.describe_model(model_name, version)
        now = self.champion(model_name)
        previous = self._aliased(model_name, PREVIOUS)
        if now is not None and now.version == candidate.version:
            return Move(False, now.version, previous or "", "it is champion already")
        if candidate.rolled_back and not force:
            return Move(
                False,
                now.version if now else "",
                previous or "",
                f"version {candidate.version} was rolled back; --force (promotion.force=true) promotes it again",
            )
        with self.call(f"move the champion of {model_name}"):
            if now is not None:
                self.client.set_model_version_tag(model_name, candidate.version, BEFORE, now.version)
                self.client.set_registered_model_alias(model_name, PREVIOUS, now.version)
            if CHALLENGER in candidate.aliases:  # first: a call that was cut behind the next line changes nothing again
                self.client.delete_registered_model_alias(model_name, CHALLENGER)
            self.client.set_registered_model_alias(model_name, CHAMPION, candidate.version)
            if candidate.rolled_back:
                self.client.delete_model_version_tag(model_name, candidate.version, ROLLED_BACK)
        return Move(True, candidate.version, now.version if now else (previous or ""), "")

    def name_challenger(self, model_name: str, version: str) -> None:
        """Call a version that was judged, and is not champion, the challenger; the one before is it no more.

        Not one that a person has taken back, nor the way back from the champion.
        """
        found = self.describe_model(model_name, version)
        if found.aliases or found.rolled_back:
            return
        with self.call(f"name the challenger of {model_name}"):
            self.client.set_registered_model_alias(model_name, CHALLENGER, version)

    def rollback(self, model_name: str) -> str:
        """Return the version that is champion again: the one before. The one taken back is not promoted without force.

        Raises ConfigError if there is no version to go back to.
        """
        now = self.champion(model_name)
        if now is None:
            raise ConfigError(f"Model {model_name!r} has no champion, so there is nothing to roll back.")
        # the tag, not the alias: it stays right when a crash cut an earlier rollback short
        target = self._standing_before(model_name, now)
        if target is None:
            raise ConfigError(
                f"Version {now.version} of {model_name!r} is its first champion: there is no version to go back to."
            )
        further = self._standing_before(model_name, target)
        with self.call(f"roll back {model_name}"):
            self.client.set_model_version_tag(model_name, now.version, ROLLED_BACK, "true")
            if further is not None:
                self.client.set_registered_model_alias(model_name, PREVIOUS, further.version)
            elif self._aliased(model_name, PREVIOUS) is not None:
                self.client.delete_registered_model_alias(model_name, PREVIOUS)
            self.client.set_registered_model_alias(model_name, CHAMPION, target.version)
        return target.version

    def champion(self, model_name: str) -> ModelVersion | None:
        """Return the champion of a model, None if there is none (or no such model)."""
        return self.find(model_name, CHAMPION)

    def list_models(self) -> list[ModelVersion]:
        """Return all versions of all models: models by name, newest version first."""
        with self.call("list models"):
            names = sorted(model.name for model in self.client.search_registered_models(max_results=1000))
        return [version for name in names for version in self.list_versions(name)]

    def list_versions(self, model_name: str) -> list[ModelVersion]:
        """Return the versions of a model, newest first."""
        with self.call(f"list versions of {model_name}"):
            found = self.client.search_model_versions(f"name='{model_name}'", max_results=1000)
        return [
            self.describe_model(model_name, str(version.version))
            for version in sorted(found, key=lambda version: -int(version.version))
        ]

    def describe_model(self, model_name: str, which: str = CHAMPION) -> ModelVersion:
        """Return a version by its alias or number. Raises ConfigError if there is none, naming those there are."""
        found = self.find(model_name, which)
        if found is None:
            known = self._what_there_is(model_name)
            raise ConfigError(f"There is no model {model_name}@{which} at {self.address}. {known}")
        return found

    def find(self, model_name: str, which: str = CHAMPION) -> ModelVersion | None:
        """Return a version by its alias or number, None if there is none."""
        open_mlflow()
        from mlflow.exceptions import MlflowException

        with self.call(f"read {model_name}@{which}"):
            try:
                if which.isdigit():
                    found = self.client.get_model_version(model_name, which)
                else:
                    found = self.client.get_model_version_by_alias(model_name, which)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                return None
        tags = dict(found.tags)
        return ModelVersion(
            model_name=model_name,
            version=str(found.version),
            aliases=tuple(sorted(found.aliases)),
            tags=tags,
            run_id=found.run_id or "",
            digest=tags.get(DIGEST, ""),
            artifact=ArtifactRef.model_validate_json(tags[REF]) if REF in tags else None,
            metrics=json.loads(tags.get(METRICS, "{}")),
        )

    def read_card(self, version: ModelVersion) -> str:
        """Return the card of a version, without its YAML header; '' if it has none."""
        place = f"{version.model_name}/{version.version}"
        with self.call(f"read the card of {place}"):
            card = str(self.client.get_model_version(version.model_name, version.version).description or "")
            if not card.endswith(REST):
                return card
            with tempfile.TemporaryDirectory(prefix="genai-card-") as folder:
                uri = f"models:/{place}/README.md"
                path = open_mlflow().artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=self.uri)
                return without_header(Path(path).read_text(encoding="utf-8"))

    def _what_there_is(self, model_name: str) -> str:
        with self.call("list models"):
            names = sorted(model.name for model in self.client.search_registered_models(max_results=1000))
            if model_name not in names:
                return f"Registered are: {', '.join(names)}." if names else "No model is registered yet."
            versions = self.client.search_model_versions(f"name='{model_name}'", max_results=1000)
            aliases = self.client.get_registered_model(model_name).aliases
        numbers = ", ".join(sorted((str(version.version) for version in versions), key=int))
        named = ", ".join(f"{alias} -> {version}" for alias, version in sorted(aliases.items())) or "none"
        return f"Versions: {numbers}; aliases: {named}."

    def _aliased(self, model_name: str, alias: str) -> str | None:
        open_mlflow()
        from mlflow.exceptions import MlflowException

        with self.call(f"read the aliases of {model_name}"):
            try:
                aliases = self.client.get_registered_model(model_name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        return str(aliases[alias]) if alias in aliases else None

    def _standing_before(self, model_name: str, version: ModelVersion) -> ModelVersion | None:
        """Return the last champion before a version that was not itself rolled back."""
        seen = {version.version}
        before = version.tags.get(BEFORE)
        while before and before not in seen:
            seen.add(before)
            found = self.describe_model(model_name, before)
            if not found.rolled_back:
                return found
            before = found.tags.get(BEFORE)
        return None

    def _find_version(self, model_name: str, digest: str) -> str | None:
        """Return the oldest version with these contents."""
        with self.call(f"search versions of {model_name}"):
            found = self.client.search_model_versions(
                f"name='{model_name}' and tags.`{DIGEST}`='{digest}'", max_results=1000
            )
        return min((str(version.version) for version in found), key=int, default=None)

    def _log_model(
        self,
        model_name: str,
        model_dir: Path,
        run_id: str,
        artifact: ArtifactRef,
        *,
        metrics: Mapping[str, float],
        card: str,
    ) -> str:
        """Return the id of the logged model with these contents; one that a crash left is used again or finished."""
        open_mlflow()
        from mlflow.entities import LoggedModelStatus, Metric

        name = re.sub(r"[^\w\-]", "-", model_name)
        with self.call(f"log model {name}"):
            standing = self.client.search_logged_models(
                [self.experiment_id], f"tags.`{DIGEST}` = '{artifact.digest}' AND name = '{name}'"
            )
            ready = next((model for model in standing if model.status == LoggedModelStatus.READY), None)
            model = (
                ready
                or next(iter(standing), None)
                or self.client.create_logged_model(
                    self.experiment_id,
                    name=name,
                    source_run_id=run_id or None,
                    model_type="transformers-folder",
                    tags={DIGEST: artifact.digest, KEY: artifact.key},
                    params={"artifact": artifact.label()},
                )
            )
            if not ready:
                self.client.log_model_artifacts(model.model_id, str(model_dir))
                self._log_card(model.model_id, card)
            if run_id and (self._link_to_run(run_id, model.model_id) or not ready):
                points = [
                    Metric(clean_name(key), x, now_ms(), 0, model_id=model.model_id) for key, x in metrics.items()
                ]
                self.client.log_batch(run_id, metrics=points)
            if not ready:
                self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def _link_to_run(self, run_id: str, model_id: str) -> bool:
        """Return whether the model was not linked to the run before: one that an earlier run left is, of another."""
        open_mlflow()
        from mlflow.entities import LoggedModelOutput

        outputs = self.client.get_run(run_id).outputs
        if model_id in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
            return False
        self.client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
        return True

    def _create_version(
        self, model_name: str, digest: str, model_id: str, run_id: str, *, tags: Mapping[str, str], card: str
    ) -> str:
        open_mlflow()
        from mlflow.exceptions import MlflowException

        with self.call(f"register {model_name}"):
            try:
                self.client.create_registered_model(model_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # MLflow's SQL registry reads the logged model through its default address, not through the client's; unset,
            # that would be a new mlflow.db in the working directory
            open_mlflow().set_tracking_uri(self.uri)
            # what fluent `register_model` does, less its lines on stderr
            made = self.client.create_model_version(
                name=model_name,
                source=f"models:/{model_id}",
                run_id=run_id or None,
                tags=dict(tags),
                description=describe(card) or None,
                model_id=model_id,
            )
            version = str(made.version)
            # searching and creating are two calls: of two runs that promote at once, the older version stays
            oldest = self._find_version(model_name, digest) or version
            if oldest != version:
                self.client.delete_model_version(model_name, version)
                return oldest
            link: dict[str, Any] = {"name": model_name, "version": version}
            self.client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps([link])})
        return version

    def _tell_again(self, model_name: str, version: str, tags: Mapping[str, str], card: str) -> None:
        with self.call(f"tag {model_name}/{version}"):
            found = self.client.get_model_version(model_name, version)
            for name, value in tags.items():
                if found.tags.get(name) != value:
                    self.client.set_model_version_tag(model_name, version, name, value)
            if card and describe(card) != found.description:
                self.client.update_model_version(model_name, version, describe(card))
                # MLflow keeps the id of the logged model in the source only
                self._log_card(str(found.source).removeprefix("models:/"), card)

    def _log_card(self, model_id: str, card: str) -> None:
        if not card:
            return
        with tempfile.TemporaryDirectory(prefix="genai-card-") as folder:
            path = Path(folder) / "README.md"
            path.write_text(card, encoding="utf-8")
            self.client.log_model_artifact(model_id, str(path))
