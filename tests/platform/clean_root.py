"""The steps of a Dockerfile in a clean Debian root, where there is no engine to build its image: debootstrap and chroot.

What the base image brings beside Debian (`python:3.11-slim-bookworm`: Python 3.11) is installed from Debian. Packages come
from where this machine's pip has them from: its settings, and the local folders that they name, are there in the root too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = "python3,python3-pip,python3-venv,python-is-python3,ca-certificates,passwd"
LONGEST_SECONDS = 1800


@dataclass
class Stage:
    """What a stage of the file has said so far."""

    user: str = "root"
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)

    def copy(self) -> Stage:
        """Return a stage that begins as this one ends."""
        return Stage(self.user, self.folder, dict(self.environment))


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile, continued lines joined, as name and text."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.strip().partition(" ")
            yield name, rest.strip()


def missing() -> str:
    """Return why no root can be made here, '' if it can."""
    if not shutil.which("debootstrap"):
        return "no debootstrap: apt-get install debootstrap"
    return "" if os.geteuid() == 0 else "only root may change its root"


class CleanRoot:
    """A Debian root on which a Dockerfile's steps are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stage = Stage()

    def bootstrap(self) -> None:
        """Install Debian with Python; what pip needs to find its packages comes from this machine."""
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_SECONDS)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            shutil.copyfile(name, f"{self.folder}{name}")

    def build(self, dockerfile: Path, context: Path, target: str) -> None:
        """Run the steps of the stages that lead to a target. Fails with what a step said."""
        stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        for name, text in instructions(dockerfile):
            if name == "FROM":
                image, _, own = text.partition(" AS ")
                stages[own] = (image, [])
                continue
            stages[own][1].append((name, text))
        line = [target]
        while stages[line[0]][0] in stages:
            line.insert(0, stages[line[0]][0])
        assert stages[line[0]][0].startswith("python:3.11-slim-bookworm"), "the root is Debian 12 with its Python"
        for one in line:
            self.stage = self.stage.copy()
            for name, text in stages[one][1]:
                self._step(name, text, context)

    def _step(self, name: str, text: str, context: Path) -> None:
        if name == "RUN":
            done = self.run(["sh", "-c", text])
            assert done.returncode == 0, f"RUN {text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        elif name == "COPY":
            *names, target = [word for word in shlex.split(text) if not word.startswith("--")]
            owner = re.search(r"--chown=(\w+)", text)
            place = self.inside(target)
            for one in names:
                source = context / one
                if source.is_dir():
                    shutil.copytree(
                        source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                    )
                else:
                    shutil.copy(source, place)
            if owner:
                self.run(["chown", "-R", owner[1], target], user="root")
        elif name == "ENV":
            self.stage.environment.update(dict(word.split("=", 1) for word in shlex.split(text)))
        elif name == "ARG":
            key, _, value = text.partition("=")
            self.stage.arguments[key] = shlex.split(value)[0] if shlex.split(value) else ""
        elif name == "WORKDIR":
            self.stage.folder = text
            self.inside(text).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            self.stage.user = text
        elif name == "CMD":
            self.stage.command = list(json.loads(text))
        else:
            raise AssertionError(f"{name} is not known here")

    def inside(self, path: str) -> Path:
        """Return where a path of the image lies on this machine."""
        return self.folder / (Path(self.stage.folder) / path).as_posix().lstrip("/")

    def command(self, arguments: list[str], user: str = "") -> list[str]:
        """Return the command that runs another in the root, as the stage's user."""
        script = f"cd {shlex.quote(self.stage.folder)} && exec {shlex.join(arguments)}"
        return ["chroot", f"--userspec={user or self.stage.user}", str(self.folder), "sh", "-c", script]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of the image, and what this machine's pip wants."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        home = "/root" if self.stage.user == "root" else f"/home/{self.stage.user}"
        pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        # Debian keeps others out of its own Python; the image's Python is not Debian's
        pip |= {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
        return {
            "PATH": path,
            "HOME": home,
            "LANG": "C.UTF-8",
            **pip,
            **self.stage.arguments,
            **self.stage.environment,
            **(more or {}),
        }

    def run(
        self, arguments: list[str], user: str = "", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return how a command in the root ended."""
        return subprocess.run(
            self.command(arguments, user),
            env=self.environment(more),
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
        )

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Give the root its kernel file systems, and what this machine's pip is told of."""
        mounts = [("/proc", True), ("/dev", True), ("/sys", True), *((path, False) for path in places_of_pip())]
        done: list[Path] = []
        try:
            for source, _ in mounts:
                target = self.folder / source.lstrip("/")
                if Path(source).is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
                    continue
                target.mkdir(parents=True, exist_ok=True)
                subprocess.run(["mount", "--rbind", source, str(target)], check=True)
                subprocess.run(["mount", "--make-rslave", str(target)], check=True)
                done.append(target)
            yield
        finally:
            for target in reversed(done):
                subprocess.run(["umount", "--recursive", "--lazy", str(target)], check=False)


def places_of_pip() -> list[str]:
    """Return pip's own settings files of this machine, every file that they and PIP_* name, and the folder around every folder.

    An index in a folder names files beside it.
    """
    files = [Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"]
    there = [path for path in files if path.is_file()]
    said = " ".join(
        [*(path.read_text() for path in there), *(v for k, v in os.environ.items() if k.startswith("PIP_"))]
    )
    named = {Path(match) for match in re.findall(r"(?:file://)?(/[^\s:]+)", said) if Path(match).exists()}
    around = {path.parent if path.is_dir() and path.parent != Path("/") else path for path in named}
    every = {*there, *around}
    return sorted(str(path) for path in every if not any(other in path.parents for other in every))
