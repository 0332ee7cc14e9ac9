"""`genai chat`: say something to a model."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from genai_core.cli.locate import locate_folder
from genai_core.cli.options import settings_of
from genai_core.config.generation import SamplingConfig


def chat_with(model: str, message: str, temperature: float, max_new_tokens: int, mlflow: str, storage: str) -> None:
    """Answer one message, or every line of standard input until its end."""
    folder = locate_folder(model, settings_of(storage, mlflow))
    from genai_core.data.tokenizer import load_tokenizer
    from genai_core.generation.engine import GenerationEngine
    from genai_core.generation.types import Request
    from genai_core.models.load import load_model

    console = Console(highlight=False)
    engine = GenerationEngine(load_model(folder), load_tokenizer(folder))
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens)

    def answer(text: str, turn: int) -> None:
        completion = engine.generate([Request(row_id=f"chat-{turn}", prompt=text)], sampling)[0]
        console.print(completion.text, markup=False)

    if message:
        answer(message, 0)
        return
    if console.is_terminal:
        console.print(Text("Each line is one question; Ctrl-D ends.", style="dim"))
    turn = 0
    while True:
        try:
            line = console.input("[bold]> [/]" if console.is_terminal else "")
        except EOFError:
            return
        if line.strip():
            answer(line, turn)
            turn += 1
