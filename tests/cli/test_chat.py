"""`homegrown chat`: what is typed, who answers, and Ctrl-C; in memory, against a real server, and on a real terminal."""

import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from oracle import make_adapters
from serving import Server
from terminal import OnTerminal
from tiny import random_model, tiny_config

from cli import commands
from cli.chatting.backends import Ended, Sampling, TooLong
from cli.chatting.conversation import Conversation, Message
from cli.chatting.session import HELP, Session, checked_setting
from cli.chatting.terminal import Terminal
from cli.screen import harmless
from model.errors import HomegrownError

KEY = "a-secret-for-the-test"


class Answers:
    """A backend that says what was asked in capitals, or does what it is told to."""

    def __init__(self) -> None:
        self.model, self.asked = "parrot", list[list[Message]]()
        self.then: Callable[[], None] = lambda: None

    def names(self) -> list[str]:
        return ["parrot", "crow"]

    def use(self, name: str) -> None:
        if name not in self.names():
            raise HomegrownError(f"no {name}")
        self.model = name

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str | Ended]:
        self.asked.append(list(messages))
        yield "\n" + str(messages[-1]["content"])[:2].upper()
        self.then()
        yield str(messages[-1]["content"])[2:].upper()
        yield Ended("stop", 5, 2)

    def close(self) -> None: ...


class Typed:
    """A terminal at which these lines are typed."""

    def __init__(self, lines: Sequence[str], *, interactive: bool = True) -> None:
        self.interactive, self._lines = interactive, iter(lines)
        self.notes, self.shown = list[str](), ""

    def read(self) -> str | None:
        return next(self._lines, None)

    def note(self, text: str, *, problem: bool = False) -> None:
        self.notes.append(("! " if problem else "") + text)

    def show(self, text: str) -> None:
        self.shown += text


def talk(
    *lines: str, answers: Answers | None = None, interactive: bool = True, conversation: Conversation | None = None
) -> tuple[Typed, Conversation, Answers]:
    """A session of these lines, and what it leaves."""
    typed, answers, conversation = (
        Typed(lines, interactive=interactive),
        answers or Answers(),
        conversation or Conversation(),
    )
    Session(answers, typed, conversation, Sampling()).run()  # type: ignore[arg-type]
    return typed, conversation, answers


def said(conversation: Conversation) -> list[str | None]:
    return [message["content"] for message in conversation.messages]


def test_a_conversation_goes_back_and_forth() -> None:
    typed, conversation, answers = talk("/system Be brief.", "hello", "", "  bye ", "/quit", "never read")
    assert said(conversation) == ["Be brief.", "hello", "HELLO", "bye", "BYE"]
    assert typed.shown == "HELLO\nBYE\n"
    assert [message["content"] for message in answers.asked[1]] == ["Be brief.", "hello", "HELLO", "bye"]
    assert talk("/system a", "/system none")[1].system is None


def test_retry_takes_the_last_answer_back() -> None:
    typed, conversation, answers = talk("one", "two", "/retry", "/set temperature 0", "/retry")
    assert said(conversation) == ["one", "ONE", "two", "TWO"]
    assert len(answers.asked) == 4
    assert answers.asked[1] == answers.asked[2]
    assert any("the same again" in note for note in typed.notes)
    assert "! /retry: nothing has been asked yet" in talk("/retry")[0].notes


def test_what_fails_stays_out_and_can_be_asked_again() -> None:
    answers = Answers()

    def fail_once() -> None:
        answers.then = lambda: None
        raise TooLong("The conversation is too long.")

    answers.then = fail_once
    typed, conversation, _ = talk("hello", "/retry", answers=answers)
    assert any(note.startswith("! The conversation is too long. /forget") for note in typed.notes)
    assert said(conversation) == ["hello", "HELLO"]
    answers.then = fail_once
    with pytest.raises(HomegrownError, match="too long"):  # a script is to know
        talk("hello", "never", answers=answers, interactive=False)


def test_ctrl_c_stops_the_answer_alone() -> None:
    answers = Answers()

    def interrupt_twice() -> None:
        answers.then = lambda: None
        os.kill(os.getpid(), 2)
        time.sleep(0.01)

    answers.then = interrupt_twice
    typed, conversation, _ = talk("hello", "more", answers=answers)
    assert said(conversation) == ["hello", "HE", "more", "MORE"]
    assert "(stopped)" in typed.notes
    answers.then = interrupt_twice
    with pytest.raises(KeyboardInterrupt):
        talk("hello", "never", answers=answers, interactive=False)


def test_forget_and_new_make_room() -> None:
    assert said(talk("a", "b", "c", "/forget 2")[1]) == ["c", "C"]
    assert said(talk("a", "/system s", "/new")[1]) == ["s"]
    assert "! /forget: x is no number of exchanges" in talk("/forget x")[0].notes


def test_models_and_settings_are_shown_and_set() -> None:
    typed, _, answers = talk(
        "/model", "/model crow", "/model owl", "/set", "/set seed 7", "/set seed none", "/set top_p 9"
    )
    assert typed.notes[1:3] == ["* parrot", "  crow"]
    assert answers.model == "crow"
    assert "! no owl" in typed.notes
    assert [note for note in typed.notes if note.startswith("seed")] == [
        "seed: the default",
        "seed: 7",
        "seed: the default",
    ]
    assert any(note.startswith("! top_p must be") for note in typed.notes)
    for name, text in (("max_tokens", "0"), ("max_tokens", "x"), ("temperature", "hot"), ("seed", "1.5")):
        with pytest.raises(HomegrownError, match=name):
            checked_setting(Sampling(), name, text)


def test_help_tells_every_command_and_an_unknown_one_is_told() -> None:
    notes = talk("/help", "/dance")[0].notes
    assert all(any(note.startswith(name) for note in notes) for name in HELP)
    assert any("there is no /dance" in note for note in notes)


def test_save_and_load(tmp_path: Path) -> None:
    file, page = tmp_path / "new" / "talk.json", tmp_path / "talk.md"
    talk("/system s", "hello", f"/save {file}", f"/save {page}", "more", f"/save {file}")
    assert [m["content"] for m in json.loads(file.read_text())["messages"]] == ["s", "hello", "HELLO", "more", "MORE"]
    assert "**Assistant:**\n\nHELLO" in page.read_text()
    typed, conversation, _ = talk(
        f"/load {file}", "on", f"/save {file}", f"/save {page}", f"/save -f {page}", "/save /proc/x"
    )
    assert said(conversation)[-2:] == ["on", "ON"]
    refused = [note for note in typed.notes if note.startswith("!")]
    assert len(refused) == 2
    assert f"{page} is already there" in refused[0]
    assert "/proc/x can't be written" in refused[1]
    assert "ON" in page.read_text()


@pytest.mark.parametrize(("content", "why"), [
    ("nonsense", "not JSON"),
    ('{"messages": 3}', "a list of messages"),
    ('[{"role": "user"}]', r"messages\[0\]: must have a role"),
    ('[{"role": "assistant", "content": "a"}]', r"messages\[0\].role: must be user"),
    ('[{"role": "user", "content": "a"}]', "the last question has no answer"),
    (r'[{"role": "system", "content": "\ud83d"}]', r"messages\[0\].content: has half a surrogate pair"),
])  # fmt: skip
def test_a_file_that_is_no_conversation_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "talk.json").write_text(content)
    with pytest.raises(HomegrownError, match=why):
        Conversation.load(tmp_path / "talk.json")


def test_what_was_said_is_for_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        talk("hello", f"/save {tmp_path / 'a.json'}", f"/save {tmp_path / 'a.md'}")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {"a.json": 0o600, "a.md": 0o600}


def test_words_are_completed(tmp_path: Path) -> None:
    (tmp_path / "talk.json").touch()
    session = Session(Answers(), Typed([]), Conversation(), Sampling())  # type: ignore[arg-type]
    assert session.completions("/mo") == ["/model "]
    assert session.completions("/model c") == ["crow"]
    assert session.completions("/set t") == ["temperature ", "top_p "]
    assert session.completions(f"/load {tmp_path}/ta") == [f"{tmp_path}/talk.json"]
    assert session.completions("hello") == session.completions("/load /no/such/place") == []


def test_a_terminal_gets_no_control_characters() -> None:
    assert harmless("a\x1b[2Jb\tc\nd\x9b\x07é\u2028") == "a[2Jb\tc\ndé\u2028"


def test_a_servers_words_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(None, lambda _: []).note("model \x1b]0;title\x07: refused \x9b2J", problem=True)
    assert capsys.readouterr().err == "model ]0;title: refused 2J\n"


def test_a_history_is_kept_or_not(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["chat", "--history", str(tmp_path / "h"), "--no-history"])
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr


def test_a_model_in_this_process_answers_what_is_piped_in(tiny_llama_dir: Path, tiny_gpt2_dir: Path) -> None:
    arguments = ["chat", "--model", str(tiny_llama_dir), "--temperature", "0", "--threads", "1", "--max-tokens", "6"]
    lines = f"Hello\n/retry\n/model {tiny_gpt2_dir}\n/model\nHello\n"
    done = CliRunner().invoke(commands, arguments, input=lines, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    first, again, *other = done.stdout.splitlines()
    assert first == again
    assert other
    assert f"* {tiny_gpt2_dir.name}" in done.stderr
    with pytest.raises(TooLong, match=r"/new begins"):
        CliRunner().invoke(commands, arguments, input="word " * 200, catch_exceptions=False)


def test_the_adapter_that_was_tuned_to_answer_answers(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """As `homegrown generate --chat` has it; and a classifier is no partner."""
    trunk, made = shutil.copytree(tiny_llama_dir, tmp_path / "trunk"), make_adapters(tiny_llama_dir, tmp_path)
    for name, path in {"helper": made["one"], "mood": made["mood"]}.items():
        shutil.copytree(path, trunk / "adapters" / name)
    (trunk / "adapters" / "helper" / "chat_template.jinja").write_text(
        "{% for m in messages %}({{ m.content }}){% endfor %}"
    )
    common = ["--model", str(trunk), "--temperature", "0", "--threads", "1", "--max-tokens", "6"]
    told = CliRunner().invoke(commands, ["generate", "Hello", "--chat", *common], catch_exceptions=False)
    done = CliRunner().invoke(commands, ["chat", *common], input="Hello\n/model\n/model trunk\n/model\n")
    assert done.stdout.strip() == told.stdout.strip() != ""
    assert [line for line in done.stderr.splitlines() if line.startswith("*")] == ["* helper", "* trunk"]
    refused = CliRunner().invoke(commands, ["chat", *common, "--adapter", "mood"])
    assert "mood: is a classifier, which can't talk" in str(refused.exception)


@pytest.fixture(scope="module")
def server(tiny_llama_dir: Path) -> Iterator[Server]:
    server = Server({"model": str(tiny_llama_dir), "api_key": KEY, "max_slots": 2}).wait_ready()
    yield server
    server.stop(9)


@pytest.mark.slow
def test_a_server_answers_too(server: Server, tiny_llama_dir: Path) -> None:
    url = "http://{}:{}".format(*server.address)

    def chat(*arguments: str, lines: str = "Hello\n") -> tuple[str, str]:
        """What it prints, or the error it ends with."""
        common = ["chat", "--temperature", "0", "--max-tokens", "6"]
        done = CliRunner().invoke(commands, [*common, *arguments], input=lines)
        return done.stdout, "" if done.exception is None else str(done.exception)

    asked = chat("--url", f"{url}/v1/", "--api-key", KEY, lines="Hello\n/retry\n/model\n")
    own = chat("--model", str(tiny_llama_dir), "--threads", "1")
    assert asked[0] == 2 * own[0]
    assert asked[1] == own[1] == ""
    assert "wants a key; give one by --api-key or HOMEGROWN_API_KEY" in chat("--url", url)[1]
    assert "the key that was given is wrong" in chat("--url", url, "--api-key", "another")[1]
    assert "has no model 'other' that generates; it has" in chat("--url", url, "--api-key", KEY, "--model", "other")[1]
    assert "/forget takes the oldest" in chat("--url", url, "--api-key", KEY, lines="word " * 200)[1]
    assert "is the server running?" in chat("--url", "http://127.0.0.1:9", "--api-key", KEY)[1]
    assert "no address of a server" in chat("--url", "localhost:8000")[1]
    assert CliRunner().invoke(commands, ["chat", "--url", url, "--quantize", "int8"]).exit_code == 2
    server.wait_idle()


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that goes on and on: greedy, a random one never comes to an end."""
    from model.checkpoint import save_model
    from model.tokenizer import Tokenizer

    directory = tmp_path_factory.mktemp("models") / "talkative"
    save_model(random_model(tiny_config("llama", context_length=32768, eos_token_ids=())), directory)
    Tokenizer.gpt2().save(directory)
    return directory


@pytest.fixture(params=["here", "on a server"])
def place(request: pytest.FixtureRequest, talkative: Path) -> Iterator[tuple[Server | None, list[str]]]:
    """Where the talkative model runs, and how that is said."""
    if request.param == "here":
        yield None, ["--model", str(talkative), "--threads", "1"]
        return
    server = Server({"model": str(talkative), "max_slots": 1}).wait_ready()
    yield server, ["--url", "http://{}:{}".format(*server.address)]
    server.stop(9)


@pytest.mark.slow
def test_on_a_terminal(place: tuple[Server | None, list[str]], tmp_path: Path) -> None:
    """A person's session: history, completion, and Ctrl-C with the model as with the line; then 0."""
    server, options = place
    screen = OnTerminal("chat", *options, "--temperature", "0", XDG_STATE_HOME=str(tmp_path))
    try:
        screen.expect("> ")
        for _ in range(2):
            screen.type("Hello\r")
            screen.expect("Hello\n")
            time.sleep(0.5)
            screen.type("\x03\x03")
            screen.expect("(stopped)")
            screen.expect("> ")
            if server is not None:
                server.wait_idle()
        screen.type("/set max_tokens 5\r")
        screen.expect("max_tokens: 5")
        screen.expect("> ")
        screen.type("/new\r")
        screen.expect("> ")
        screen.type("Hello\r")
        screen.expect("(cut by max_tokens, 5 tokens")
        screen.expect("> ")
        time.sleep(0.5)  # Python's readline misses a signal that comes while it begins to wait
        screen.type("half a line\x03")
        screen.expect("leaves)")
        screen.expect("> ")
        screen.type("/mod\t\r")
        screen.expect("* talkative")
        screen.expect("> ")
        screen.type("\x04")
        assert screen.wait() == 0
    finally:
        screen.close()
    assert "Traceback" not in screen.screen
    history = tmp_path / "homegrown" / "chat_history"
    assert history.read_text().splitlines()[:3] == ["Hello", "Hello", "/set max_tokens 5"]
    assert history.stat().st_mode & 0o777 == 0o600
