"""`genai chat`: a conversation with a model in the terminal; in a pipe, one answer for each line.

first Ctrl-C    stops the answer        what was said of it stays
second, Ctrl-D  ends
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from genai_core.cli.heldout import open_corpus
from genai_core.cli.locate import locate_folder, locate_ref, open_artifacts
from genai_core.cli.options import settings_of
from genai_core.config.generation import SamplingConfig
from genai_core.config.lifecycle import CorrectionConfig
from genai_core.config.settings import Settings
from genai_core.errors import ConfigError, GenaiCoreError

if TYPE_CHECKING:
    from genai_core.correction.answering import Corrected
    from genai_core.feedback.verify import Verifier
    from genai_core.generation.conversation import Conversation
    from genai_core.generation.diffusion_engine import DiffusionEngine
    from genai_core.generation.engine import GenerationEngine
    from genai_core.generation.types import Completion, Request

CHECKS = {"python_call": "a call that binds, with the values asked for", "quote": "a whole sentence of the passage"}


def chat_with(
    model: str,
    message: str,
    temperature: float,
    max_new_tokens: int,
    history: bool,
    correct: bool,
    samples: int,
    mlflow: str,
    storage: str,
) -> None:
    """Answer one message, or every line of standard input until its end."""
    settings = settings_of(storage, mlflow)
    folder = locate_folder(model, settings)
    from genai_core.data.tokenizer import load_tokenizer
    from genai_core.generation.conversation import Conversation
    from genai_core.generation.diffusion_engine import open_engine
    from genai_core.generation.prompts import longest_row
    from genai_core.models.load import load_model

    engine = open_engine(load_model(folder), load_tokenizer(folder), folder)
    longest = longest_row(engine.model.config)
    is_typed = not message and sys.stdin.isatty() and sys.stdout.isatty()
    chat = Chat(
        model,
        engine,
        Conversation(
            engine.tokenizer,
            longest,
            reserve=min(max_new_tokens, (longest or 2 * max_new_tokens) // 2),
            remembers=history and is_typed,  # the lines of a file do not know of each other
        ),
        SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens),
        find_verifier(model, settings) if correct else None,
        samples,
    )
    if message:
        chat.answer(message)
    elif is_typed:
        talk(chat, wants_history=history)
    else:
        for line in sys.stdin:
            if line.strip():
                chat.answer(line.rstrip("\n"))


def find_verifier(model: str, settings: Settings) -> Verifier:
    """Return the verifier of the corpus that a model was trained on; for a folder, one that knows no corpus."""
    from genai_core.feedback.verify import Verifier, open_verifier

    if Path(model).is_dir():
        return Verifier()
    corpus = open_corpus(locate_ref(model, settings), open_artifacts(settings))
    return Verifier() if corpus is None else open_verifier(corpus)  # a garbage collection may have taken the corpus


def talk(chat: Chat, *, wants_history: bool) -> None:
    """Read and answer what a person types until it is enough."""
    with suppress(ImportError):
        import readline  # noqa: F401  (input() edits lines with it)
    chat.say("Each line is a question; one that ends with \\ goes on. /help lists the commands, Ctrl-D ends.")
    if wants_history and not chat.conversation.remembers:
        chat.say("The model's chat template holds one question at a time: it will not know what was said before.")
    was_interrupted = False
    while True:
        try:
            line = read_lines()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            if was_interrupted:
                return
            was_interrupted = True
            chat.say("Ctrl-C again ends.")
            continue
        was_interrupted = False
        try:
            if line.startswith("/"):
                chat.obey(line)
            elif line.strip():
                chat.answer(line)
        except KeyboardInterrupt:
            was_interrupted = True
            chat.say("Stopped. Ctrl-C again ends.")
        except GenaiCoreError as error:
            chat.say(f"error: {error}")


def read_lines() -> str:
    """Return a line that was typed, and those that a backslash at its end says belong to it."""
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(". "))
    return "\n".join(lines)


class Chat:
    """A model, what was said, and how it is sampled. Answers go to standard output, everything else to standard error."""

    def __init__(
        self,
        name: str,
        engine: GenerationEngine | DiffusionEngine,
        conversation: Conversation,
        sampling: SamplingConfig,
        verifier: Verifier | None,
        samples: int,
    ) -> None:
        """Keep all that; with a verifier every answer is corrected, out of so many samples."""
        self.name = name
        self.engine = engine
        self.conversation = conversation
        self.sampling = sampling
        self.verifier = verifier
        self.samples = samples
        self._remarks = Console(stderr=True, highlight=False, soft_wrap=True)
        self._asked = 0
        self._told_dropped = False

    def say(self, remark: str) -> None:
        """Show a remark that is not the model's."""
        self._remarks.print(Text(remark, style="dim"))

    def answer(self, question: str) -> None:
        """Answer a question on standard output."""
        request = self.conversation.ask(f"chat-{self._asked}", question)
        self._asked += 1
        if self.conversation.first and not self._told_dropped:
            self._told_dropped = True
            self.say("The model's context is full: from now on the oldest turns are left out of the prompt.")
        if self.verifier is not None:
            self.conversation.add(question, self._correct(question, request, self.verifier))
        else:
            self._stream(question, request)

    def _stream(self, question: str, request: Request) -> None:
        from genai_core.generation.stream import TextStream

        stream = TextStream(self.engine.tokenizer)
        try:
            completion = self.engine.generate([request], self.sampling, lambda _, token: write(stream.push(token)))[0]
            write(stream.finish(completion.text))
        except KeyboardInterrupt:
            write("\n")
            if stream.text:
                self.conversation.add(question, stream.text)
            raise
        self.conversation.add(question, completion.text)  # at once: a Ctrl-C that comes late must not lose it
        write("\n")
        if completion.finish_reason == "length" and sys.stdout.isatty():
            self.say(f"(cut off after {completion.n_tokens} tokens)")

    def _correct(self, question: str, request: Request, verifier: Verifier) -> str:
        from dataclasses import replace

        from genai_core.correction.answering import answer_corrected
        from genai_core.data.documents import Pair
        from genai_core.generation.driver import drive
        from genai_core.generation.prompts import encode_request

        kind = verifier.check_of(question)
        pair = Pair(request.row_id, "chat", "", "", question, "", {"kind": kind})
        longest = self.conversation.longest

        def fits(asked: Request) -> bool:
            return longest is None or len(encode_request(self.engine.tokenizer, asked)) < longest

        def complete(asked: list[Request]) -> list[Completion]:
            heat = self.sampling.temperature or CorrectionConfig().sampling.temperature
            update = {"temperature": 0.0 if asked[0].draft else heat}
            turned = [replace(one, turns=request.turns) for one in asked]
            return self.engine.generate(turned, self.sampling.model_copy(update=update))

        corrected = drive([answer_corrected(pair, self.samples, verifier if kind else None, fits)], complete)[0]
        self.say(describe(corrected, kind))
        write(corrected.answer.text + "\n")
        self.say(f"({corrected.n_tokens} tokens generated; the answer alone has {corrected.answer.n_tokens})")
        return corrected.answer.text

    def obey(self, line: str) -> None:
        """Do what a line that begins with / asks for. Raises ConfigError if it cannot be done."""
        name, _, rest = line[1:].partition(" ")
        command = COMMANDS.get(name)
        if command is None:
            raise ConfigError(f"There is no command /{name}; /help lists them. A question may begin with a space.")
        command[2](self, rest.strip())

    def reset(self, _: str) -> None:
        """Forget what was said."""
        self.conversation.reset()
        self._told_dropped = False

    def undo(self, _: str) -> None:
        """Forget the last question and its answer."""
        if not self.conversation.undo():
            raise ConfigError("There is nothing to undo.")

    def retry(self, _: str) -> None:
        """Answer the last question again."""
        if self.sampling.temperature == 0 and self.verifier is None:
            raise ConfigError("At temperature 0 the answer would be the same; /temperature 0.8 lets it vary.")
        question = self.conversation.undo()
        if not question:
            raise ConfigError("There is nothing to try again.")
        self.answer(question)

    def save(self, file: str) -> None:
        """Write what was said as JSON; a file that is there is left alone."""
        if not file:
            raise ConfigError("Name the file: /save talk.json")
        said = {"model": self.name, "messages": self.conversation.messages()}
        try:
            with open(file, "x", encoding="utf-8") as handle:
                json.dump(said, handle, ensure_ascii=False, indent=1)
                handle.write("\n")
        except OSError as error:
            raise ConfigError(f"{file} was not written: {error.strerror}. Choose another name.") from None
        self.say(f"{len(self.conversation.exchanges)} answers in {file}")

    def set_system(self, text: str) -> None:
        """Put a text before the conversation, or take it away."""
        if text and not self.conversation.takes_system:
            raise ConfigError("The model's chat template has no place for a system text.")
        self.conversation.system = text
        self.say("The system text is set." if text else "There is no system text now.")

    def set_temperature(self, text: str) -> None:
        """Set the temperature."""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"/temperature {text}: give a number from 0 on; it is {self.sampling.temperature:g} now.")
        self.sampling = self.sampling.model_copy(update={"temperature": value})

    def help(self, _: str) -> None:
        """List the commands."""
        for name, (argument, what, _do) in COMMANDS.items():
            self.say(f"  {f'/{name} {argument}':<16} {what}")
        self.say("  Ctrl-C           stops an answer; a second one, or Ctrl-D, ends")


COMMANDS: dict[str, tuple[str, str, Callable[[Chat, str], Any]]] = {
    "reset": ("", "forget what was said", Chat.reset),
    "undo": ("", "forget the last question and its answer", Chat.undo),
    "retry": ("", "answer the last question again, with other noise", Chat.retry),
    "save": ("FILE", "write what was said as JSON", Chat.save),
    "system": ("TEXT", "put a text before the conversation; without TEXT take it away", Chat.set_system),
    "temperature": ("T", "0 = the most likely answer", Chat.set_temperature),
    "help": ("", "this list", Chat.help),
}


def describe(corrected: Corrected, kind: str) -> str:
    """Return what correction did, in a sentence or two."""
    drawn = f"{corrected.candidates} candidates drawn"
    if not kind:
        why = "nothing in the question can be checked by a machine"
        if corrected.how == "likeliest":
            return f"{drawn}, all different; {why}: the likeliest a token is taken."
        return f"{drawn}, {corrected.agreed} give this answer; {why}: the most frequent is taken."
    said = f"{drawn}, {corrected.agreed} pass the check ({CHECKS[kind]})."
    if corrected.agreed:
        return said
    end = "accepted" if corrected.how == "verified" else "refused again"
    then = f" Revised once: {end}." if corrected.revised else ""
    return f"{said} The best was refused: {corrected.remark}{then}"


def write(text: str) -> None:
    """Write a piece of an answer at once; to a terminal without the control characters that would steer it."""
    if sys.stdout.isatty():
        text = "".join(one for one in text if one in "\n\t" or unicodedata.category(one) != "Cc")
    sys.stdout.write(text)
    sys.stdout.flush()
