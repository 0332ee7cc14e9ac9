"""`genai chat`: in a real terminal (a pty) tokens stream and Ctrl-C stops an answer; in a pipe, one answer a line."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from genai_core.cli.chat import Chat
from genai_core.config.generation import SamplingConfig
from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import load_tokenizer, train_tokenizer
from genai_core.errors import ConfigError
from genai_core.feedback.verify import Verifier
from genai_core.generation.conversation import Conversation
from genai_core.generation.engine import GenerationEngine
from genai_core.models.load import init_scratch, load_model, save_model

WORDS = "open the file and read every line of it, then close it and say how many words there are in it"
CALL = "textwrap.shorten(text, width)\nCollapse the text.\n\nWrite the call with text = 'blue' and width = 20."
SECONDS = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that never ends an answer by itself: no end token ever has the largest logit."""
    folder = tmp_path_factory.mktemp("talker") / "model"
    tokenizer = train_tokenizer([WORDS, WORDS.upper()] * 4, 320, 4096)
    tiny = ScratchBase(n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, max_seq_len=4096, tie_embeddings=True)
    made = init_scratch(tiny, tokenizer)
    with torch.no_grad():
        made.get_input_embeddings().weight[tokenizer.all_special_ids] = 0
    save_model(made, tokenizer, folder)
    return folder


class Terminal:
    """`genai` in a pseudo terminal."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {**os.environ, "GENAI_HOME": str(folder / "home"), "TERM": "xterm", "HF_HUB_OFFLINE": "1"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job, and all below it, ignores it
            os.execve(sys.executable, [sys.executable, "-m", "genai_core.cli", "chat", *arguments], environment)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt_prompt(self) -> None:
        """Press Ctrl-C once the prompt waits for keys.

        CPython's readline does not see a signal that comes between its prompt and its select() before the next key.
        """
        asleep = 0
        while asleep < 5:
            time.sleep(0.02)
            stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text()
            asleep = asleep + 1 if stat.rpartition(")")[2].split()[0] == "S" else 0
        self.type("\x03")

    def read(self, wanted: str) -> str:
        """Return what appears up to and including a pattern."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(wanted, self.seen, re.DOTALL)) is None:
            assert time.monotonic() < deadline, f"no {wanted!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert re.search(wanted, self.seen, re.DOTALL), f"ended without {wanted!r}: {self.seen!r}"
        head, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return head

    def wait(self) -> int:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    os.read(self.fd, 1 << 16)
                except OSError:
                    time.sleep(0.05)
        raise AssertionError("genai chat goes on")


def test_a_conversation_in_a_terminal(model: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path, str(model), "--max-new-tokens", "3000") as terminal:
        terminal.read("/help lists the commands.*> ")
        terminal.type("open the file\n")
        terminal.read(r"open the file\r\n.{40,}")  # the answer is being written ...
        terminal.type("\x03")  # ... and is stopped
        terminal.read("Stopped.*> ")
        terminal.type("/save first.json\n")
        terminal.read(r"1 answers in first\.json.*> ")
        (asked, answered) = json.loads((tmp_path / "first.json").read_text())["messages"]
        assert asked == {"role": "user", "content": "open the file"}
        n_tokens = len(load_tokenizer(model)(answered["content"])["input_ids"])
        assert answered["role"] == "assistant" and 10 < n_tokens < 2500, "a part of the answer"
        terminal.type("/save first.json\n")
        terminal.read(r"error: first\.json was not written: File exists.*> ")
        terminal.type("/nonsense\n")
        terminal.read(r"There is no command /nonsense.*> ")
        terminal.type("/help\n")
        terminal.read("/temperature T.*> ")
        terminal.type("/retry\n")
        terminal.read(r"At temperature 0 the answer would be the same.*> ")
        terminal.type("read \\\n")
        terminal.read(r"\. ")
        terminal.type("every line\n")
        # more than the terminal's and readline's echo of the line, which may come twice: tokens are there
        terminal.read(r"every line\r\n.{200,}")
        terminal.type("\x03")
        terminal.read("Stopped.*> ")
        terminal.type("/system be brief\n")
        terminal.read("The system text is set.*> ")
        terminal.type("/save all.json\n")
        terminal.read(r"2 answers in all\.json.*> ")
        said = json.loads((tmp_path / "all.json").read_text())["messages"]
        assert [one["role"] for one in said] == ["system", "user", "assistant", "user", "assistant"]
        assert said[3]["content"] == "read \nevery line"
        terminal.interrupt_prompt()
        terminal.read("Ctrl-C again ends.*> ")
        terminal.interrupt_prompt()
        assert terminal.wait() == 0


def test_ctrl_d_ends_and_lines_are_edited(model: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path, str(model), "--max-new-tokens", "4") as terminal:
        terminal.read("> ")
        terminal.type("clase it" + 5 * "\x1b[D" + "\x7fo\n")  # five to the left, rub out, o
        terminal.read(r"\(cut off after 4 tokens\).*> ")
        terminal.type("/save edited.json\n")
        terminal.read(r"1 answers in edited\.json.*> ")
        assert json.loads((tmp_path / "edited.json").read_text())["messages"][0]["content"] == "close it"
        terminal.type("\x04")
        assert terminal.wait() == 0


def run(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GENAI_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "genai_core.cli", "chat", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_a_pipe_gets_one_answer_a_line_and_nothing_else(model: Path, tmp_path: Path) -> None:
    few = SamplingConfig(temperature=0, max_new_tokens=60)
    done = run(tmp_path, str(model), "--max-new-tokens", "60", text="open the file\n\nread it\nopen the file\n/help\n")
    lines = done.stdout.split("\n")
    alone = [answer_of(model, few, question) for question in ("open the file", "read it", "open the file", "/help")]
    assert done.stdout == "".join(f"{answer}\n" for answer in alone), "no history, no wrapping, no command in a pipe"
    assert len(lines[0]) > 80 and done.stderr == ""


def answer_of(model: Path, sampling: SamplingConfig, question: str) -> str:
    from genai_core.generation.types import Request

    engine = GenerationEngine(load_model(model), load_tokenizer(model))
    return engine.generate([Request("chat-0", question)], sampling)[0].text


def test_one_message_corrected_says_how_beside_the_answer(model: Path, tmp_path: Path) -> None:
    done = run(tmp_path, str(model), "-m", "open the file", "--max-new-tokens", "5", "--correct", "--samples", "3")
    assert done.stdout.count("\n") == 1 and done.stdout.strip()
    told = " ".join(done.stderr.split())
    assert told.startswith("3 candidates drawn, ") and "nothing in the question can be checked by a machine" in told
    assert told.endswith("(15 tokens generated; the answer alone has 5)")


@pytest.fixture
def chat(model: Path) -> Chat:
    engine = GenerationEngine(load_model(model), load_tokenizer(model))
    conversation = Conversation(engine.tokenizer, 4096, reserve=8)
    return Chat("tiny", engine, conversation, SamplingConfig(temperature=0, max_new_tokens=8), None, 4)


def test_history_undo_retry_and_reset(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.answer("open the file")
    first = capsys.readouterr().out
    assert first == chat.conversation.exchanges[0][1] + "\n"
    chat.answer("read it")
    assert [question for question, _ in chat.conversation.exchanges] == ["open the file", "read it"]
    chat.obey("/undo")
    assert len(chat.conversation.exchanges) == 1
    chat.obey("/temperature 1.5")
    chat.obey("/retry")
    ((question, again),) = chat.conversation.exchanges
    assert question == "open the file" and again + "\n" != first
    chat.obey("/reset")
    assert chat.conversation.exchanges == []
    with pytest.raises(ConfigError, match="nothing to undo"):
        chat.obey("/undo")
    for wrong in ("-1", "warm", "nan", ""):
        with pytest.raises(ConfigError, match="give a number from 0 on"):
            chat.obey(f"/temperature {wrong}")


def test_a_call_is_checked_by_what_its_prompt_says(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = [["text", "POSITIONAL_OR_KEYWORD", False], ["width", "POSITIONAL_OR_KEYWORD", False]]
    chat.verifier = Verifier({"textwrap.shorten": parameters})
    chat.answer(CALL)
    told = capsys.readouterr()
    assert told.out.count("\n") >= 1
    assert "4 candidates drawn, 0 pass the check (a call that binds, with the values asked for)" in told.err
    assert "The best was refused: The answer " in told.err and "Revised once: refused again" in told.err
    assert "(40 tokens generated; the answer alone has 8)" in told.err, "four candidates and a revision"
