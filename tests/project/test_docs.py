"""The documentation is generated, or run."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from docs_pages import PAGES, ROOT, Block, Session, answer, blocks, distill_lines, fences, read, unexplained

README = read("README.md")
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OTHERS_COMMANDS = {"babel-prompts", "ledger"}  # of packages in plugins/
OTHERS_OPTIONS = {"--nproc-per-node", "--gguf", "--logdir"}


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """A folder with a tiny random student whose tokenizer and chat template are like SmolLM2's."""
    from distill.testing import byte_bpe, save_student, tiny_llama

    marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    tokenizer = byte_bpe({**marks, "unk_token": "<|endoftext|>"}, template=SMOLLM2)
    return save_student(tiny_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture(scope="session")
def server():
    from distill.testing import FaultyServer

    with FaultyServer(answer) as server:
        yield server


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_commands_of_a_page_do_what_it_says(page, smollm2, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_PLUGINS", "")  # the built-in ones, and a model called smollm2
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-" + "0" * 40)
    session = Session(tmp_path, smollm2, server.url)
    for block in blocks(page):
        session.run(block)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_run_or_says_why_not(page):
    assert not unexplained(page)


def all_options(command) -> set[str]:
    import click

    found = {"--help", "-h"}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists(page):
    """Each `distill` line in a block of shell: the command, and its options."""
    from readme import manager

    from distill.cli.main import build_cli

    cli = build_cli(manager())
    for script in fences(page, "sh"):
        for words in distill_lines(script):
            command, known = cli, all_options(cli)
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
                known = all_options(command)
            own = words[0] if words else ""
            assert command is not cli or own in OTHERS_COMMANDS or not own, f"{page}: distill {own}"
            if command is not cli:
                used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-zA-Z][-a-z]*(=.*)?", word)}
                assert used <= known, f"{page}: distill {command.name}: {used - known}"


@pytest.mark.parametrize("page", PAGES)
def test_every_option_in_the_text_exists(page):
    from readme import manager

    from distill.cli.main import build_cli

    known, commands = set(), [build_cli(manager())]
    while commands:
        command = commands.pop()
        known |= all_options(command)
        commands += getattr(command, "commands", {}).values()
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.S | re.M)
    used = set(re.findall(r"(?<![\w-])--[a-z][-a-z]+", " ".join(re.findall(r"`([^`\n]+)`", text))))
    assert used <= known | OTHERS_OPTIONS, used - known


def test_every_command_is_on_a_page_of_its_own_job():
    """In a line to type, not only in the generated help."""
    from distill.cli.main import COMMANDS

    typed = {words[0] for page in PAGES for script in fences(page, "sh") for words in distill_lines(script) if words}
    assert {command.name for command in COMMANDS} <= typed | {"quickstart"}


API = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "distill" / "api").glob("*.py"))]


def test_the_generated_parts_are_as_generated():
    words = [sys.executable, "-m", "cogapp", "--check", "-I", str(ROOT / "tests/support"), *PAGES, *API]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make docs`\n{done.stdout}{done.stderr}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    heads = [head.lower() for head in re.findall(r"^#+ (.+)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)]+)\)|(?:src|srcset|href)=\"(?!https?://)([^\"]+)\"", read(page))
    for link in ("".join(pair) for pair in links):
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent.joinpath(file) if file else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_in_the_index():
    index = read("docs/README.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"]({page.removeprefix('docs/')})" in index, page


def test_the_plugin_on_the_page_works(smollm2, tmp_path, monkeypatch):
    """README's labeler; the other plugin that a page shows is run with the page's commands."""
    source = next(block for block in fences("README.md", "python") if "register_labelers" in block)
    (tmp_path / "short.py").write_text(source)
    row = {"messages": [{"role": "user", "content": "dog?"}, {"role": "assistant", "content": "perro"}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_PLUGINS", "")
    session = Session(tmp_path, smollm2)
    words = "chats.jsonl --student smollm2 --labeler short"
    session.run(Block("tested", f"distill --plugin short.py show {words}\ndistill --plugin short.py check {words}"))
    session.run(
        Block("said", "⟦perro<|im_end|>⟧\nNo error: every trained answer reads back as the assistant wrote it.")
    )


def test_every_command_has_help_and_every_option_a_word():
    import click

    from distill.cli.main import COMMANDS

    for command in COMMANDS:
        assert command.help, command.name
        assert not command.get_short_help_str(60).endswith("..."), f"{command.name}: a `short_help` that is cut"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.name}"


@pytest.mark.parametrize("name", ["--labeler", "--formatter", "--trainer"])
def test_every_builtin_is_in_the_help(manager, name):
    from distill.cli.main import COMMANDS

    kind = name.strip("-")
    train = next(command for command in COMMANDS if command.name == "train")
    text = next(parameter.help for parameter in train.params if name in parameter.opts)
    for known in manager.registries[kind].names():
        assert known in text
