"""Typical mistakes: what is typed, the exit code, and what is answered: one error, with a hint where there is one."""

from __future__ import annotations

import json
import shlex

import pytest

from distill.cli.main import main

MISTAKES = [
    ("trian answers.jsonl --out x", 2, "distill has no command 'trian'", "did you mean train?"),
    ("traim", 2, "distill has no command 'traim'", "did you mean train?"),
    ("help trian", 2, "distill has no command 'trian'", "did you mean train?"),
    ("plugins chekc masked", 2, "distill plugins has no command 'chekc'", "did you mean check?"),
    ("train answers.jsonl --out c\udcff", 2, "the argument 'c\\udcff' is not valid UTF-8", "rename the file"),
    ("train answers.jsonl", 2, "distill train needs --out", "--out RUN: The run folder to create."),
    ("train", 2, "distill train needs DATA…", "see `distill train --help`"),
    ("train answers.jsonl --out x --lr 1e-4", 2, "distill train has no option --lr", "did you mean --learning-rate?"),
    (
        "train answers.jsonl --out x --learning_rate 1e-4",
        2,
        "distill train has no option --learning_rate",
        "did you mean --learning-rate?",
    ),
    (
        "train answers.jsonl --out x --num-epochs 3",
        2,
        "distill train has no option --num-epochs",
        "did you mean --epochs?",
    ),
    (
        "train answers.jsonl --out x --model student",
        2,
        "distill train has no option --model",
        "did you mean --student?",
    ),
    ("train answers.jsonl --output-dir x", 2, "distill train has no option --output-dir", "did you mean --out?"),
    (
        "train answers.jsonl --out x --student student --lora-r 8",
        2,
        "distill train has no option --lora-r",
        "did you mean --lora-rank?",
    ),
    (
        "train answers.jsonl --out x --student student --lora-rank 8",
        2,
        "--lora-rank goes with --lora",
        "add --lora, or leave --lora-rank out",
    ),
    (
        "train answers.jsonl --out x --student student --batch-size 8 --batch-tokens 512",
        2,
        "--batch-tokens and --batch-size exclude each other",
        "give one of them",
    ),
    ("train answers.jsonl --out x --student student --epochs 0", 2, "epochs is 0; it must be above 0", None),
    (
        "train answers.jsonl --out x --student student --epochs three",
        2,
        "--epochs must be a number, not 'three'",
        "see `distill train --help`",
    ),
    ("train answers.jsonl --out x --student student --batch-size 0", 2, "batch-size is 0; it must be at least 1", None),
    (
        "train answers.jsonl --out x --student student --lora --lora-dropout 1",
        2,
        "lora-dropout is 1; it must be below 1",
        None,
    ),
    (
        "train answers.jsonl --out x --student student --learning-rate -1",
        2,
        "learning-rate is -1; it must be at least 0",
        None,
    ),
    (
        "train answers.jsonl --out x --student student --overlong dropp",
        2,
        "--overlong cannot be 'dropp'",
        "did you mean 'drop'?",
    ),
    (
        "train answers.jsonl --out x --student student --turns first",
        2,
        "--turns cannot be 'first'",
        "it is one of: all, last",
    ),
    (
        "train answers.jsonl --out x --student student --from sharegtp",
        2,
        "unknown data format 'sharegtp'",
        "did you mean 'sharegpt'?",
    ),
    (
        "train answers.jsonl --out x --student student --labeler maskd",
        2,
        "unknown labeler 'maskd'",
        "did you mean 'masked'?",
    ),
    (
        "train answers.jsonl --out x --student student --formatter chatml",
        2,
        "unknown formatter 'chatml'",
        "did you mean 'chat-template'?",
    ),
    ("train answers.jsonl --out x --student student --trainer sft", 2, "unknown trainer 'sft'", "known: hf, trl."),
    ("train answers.jsonl --out x --student student -T lr=1e-4", 2, "trainer 'hf': lr is set by --learning-rate", None),
    ("train answers.jsonl --out x --student student -T epochs=3", 2, "trainer 'hf': epochs is set by --epochs", None),
    (
        "train answers.jsonl --out x --student student -T warmup_stepps=3",
        2,
        "unknown option of trainer 'hf': 'warmup_stepps'",
        "did you mean 'warmup_steps'?",
    ),
    (
        "train answers.jsonl --out x --student student -T warmup_steps",
        2,
        "-T 'warmup_steps' is not key=value",
        "write -T warmup_steps=VALUE",
    ),
    (
        "train answers.jsonl --out x --student student -L reasonin=true",
        2,
        "unknown option of labeler 'masked': 'reasonin'",
        "did you mean 'reasoning'?",
    ),
    (
        "train answers.jsonl --out x --student student --allow leakige",
        2,
        "unknown finding 'leakige'",
        "did you mean 'leakage'?",
    ),
    (
        "train answers.jsonl --out x --student student --hold-out half",
        2,
        "--hold-out must be a percentage or a count, not 'half'",
        "give a percentage of the conversations, e.g. 10%,",
    ),
    (
        "train answers.jsonl --out x --student student --hold-out 100%",
        2,
        "--hold-out 100% would leave nothing on one side",
        "give more than 0% and less than 100%",
    ),
    (
        "train answer.jsonl --out x --student student",
        1,
        "answer.jsonl: No such file or directory",
        "did you mean 'answers.jsonl'?",
    ),
    ("train answers.jsonl --out x --student studnet", 2, "no model 'studnet' here", "did you mean 'student'?"),
    (
        "train answers.jsonl --out x --student ./studnt",
        2,
        "no model at './studnt': no such file or folder",
        "did you mean 'student'?",
    ),
    (
        "train answers.jsonl --out x --student gpt5",
        1,
        "model 'gpt5': not on this machine, and HF_HUB_OFFLINE keeps from",
        "check the name, or give a model folder; a private",
    ),
    ("train answers.jsonl --out answers.jsonl --student student", 2, "answers.jsonl is a file", "--out names a folder"),
    (
        "train answers.jsonl --out x --student student --resume --qlora",
        1,
        "--qlora needs a GPU that bitsandbytes can use; there is none here",
        "use --lora",
    ),
    (
        "collect prompts.txt --out x.jsonl",
        2,
        "distill collect needs --teacher",
        "--teacher NAME[:MODEL]: The teacher to use, e.g.",
    ),
    (
        "collect prompts.txt --teacher openai:gpt-5-mini",
        2,
        "distill collect needs --out",
        "--out FILE: The JSONL file of transcripts; rows",
    ),
    (
        "collect prompts.txt --teacher gpt-4.1-mini --out x.jsonl",
        2,
        "unknown teacher 'gpt-4.1-mini'",
        "did you mean 'openai:gpt-4.1-mini'?",
    ),
    (
        "collect prompts.txt --teacher claude-sonnet-5 --out x.jsonl",
        2,
        "unknown teacher 'claude-sonnet-5'",
        "did you mean 'anthropic:claude-sonnet-5'?",
    ),
    (
        "collect prompts.txt --teacher student --out x.jsonl",
        2,
        "unknown teacher 'student'",
        "did you mean 'transformers:student'?",
    ),
    (
        "collect prompts.txt --teacher answers.jsonl --out x.jsonl",
        2,
        "unknown teacher 'answers.jsonl'",
        "did you mean 'replay:answers.jsonl'?",
    ),
    (
        "collect prompts.txt --teacher opnai:gpt-5-mini --out x.jsonl",
        2,
        "unknown teacher 'opnai'",
        "did you mean 'openai'?",
    ),
    (
        "collect prompts.txt --teacher openai:gpt-5-mini --out x.jsonl",
        2,
        "no key: the environment variable OPENAI_API_KEY is not set",
        "export OPENAI_API_KEY=…, or give --base-url",
    ),
    (
        "collect promts.txt --teacher replay:answers.jsonl --out x.jsonl",
        1,
        "promts.txt: No such file or directory",
        "did you mean 'prompts.txt'?",
    ),
    (
        "collect prompts.txt --teacher replay:answer.jsonl --out x.jsonl",
        1,
        "answer.jsonl: No such file or directory",
        "did you mean 'answers.jsonl'?",
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out nowhere/x.jsonl",
        1,
        "nowhere/x.jsonl: No such file or directory",
        "there is no folder 'nowhere': make it first, or",
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out prompts.txt",
        2,
        "--out prompts.txt is the prompt file",
        "give another file to write to",
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out x.jsonl --temperature 9",
        2,
        "temperature is 9; it must be at most 2",
        None,
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out x.jsonl --samples 0",
        2,
        "samples is 0; it must be at least 1",
        None,
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out x.jsonl --workers 4",
        2,
        "distill collect has no option --workers",
        "did you mean --concurrency?",
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out x.jsonl --max-new-tokens 4",
        2,
        "distill collect has no option --max-new-tokens",
        "did you mean --max-tokens?",
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out x.jsonl --price cheap",
        2,
        "price 'cheap' is not IN/OUT",
        "write dollars per million tokens, e.g. 0.25/2",
    ),
    (
        "collect prompts.txt --teacher replay:answers.jsonl --out x.jsonl --base-url http://x/v1",
        2,
        "teacher 'replay' has no --base-url",
        "leave it out",
    ),
    (
        "collect prompts.txt --teacher openai:m --out x.jsonl --base-url localhost:8000",
        2,
        "base URL 'localhost:8000' is not one",
        "write it like http://localhost:8000/v1",
    ),
    (
        "collect prompts.txt --teacher openai:m --out x.jsonl -T base_url",
        2,
        "-T 'base_url' is not key=value",
        "write -T base_url=VALUE",
    ),
    (
        "collect prompts.txt more.txt --teacher replay:answers.jsonl --out x.jsonl",
        2,
        "Got unexpected extra argument (more.txt)",
        "a text with spaces needs quotes; see `distill",
    ),
    ("generate spansh hi", 2, "no model 'spansh' here", "did you mean 'spanish'?"),
    ("generate studen hi", 2, "no model 'studen' here", "did you mean 'student'?"),
    ("generate student", 2, "distill generate needs PROMPT…", "see `distill generate --help`"),
    ('generate student " "', 2, "a prompt is empty", None),
    ("generate student hi --answer perro", 2, "--answer goes with --trace", "add --trace"),
    (
        "generate student hi --temperature hot",
        2,
        "--temperature must be a number, not 'hot'",
        "see `distill generate --help`",
    ),
    ("compare spansh", 2, "'spansh' is not a run folder", "did you mean 'spanish'?"),
    ("compare student", 2, "'student' is not a run folder", "give the folder that `distill train --out` made"),
    (
        "compare spanish --teacher-option a=1",
        2,
        "--teacher-option goes with --teacher",
        "add --teacher NAME, or leave the option out",
    ),
    ("export spansh --to gguf --out y", 2, "'spansh' is not a run folder", "did you mean 'spanish'?"),
    ("export spanish --to gguff --out y", 2, "unknown exporter 'gguff'", "did you mean 'gguf'?"),
    ("convert answers.jsonl y.jsonl --to shargpt", 2, "unknown data format 'shargpt'", "did you mean 'sharegpt'?"),
    (
        "convert answers.jsonl answers.jsonl --to openai",
        2,
        "answers.jsonl exists already",
        "give another file, or --force to replace it",
    ),
    (
        "check answers.jsonl --student student --agianst answers.jsonl",
        2,
        "distill check has no option --agianst",
        "did you mean --against?",
    ),
    (
        "show answers.jsonl --student student --html page.html --json",
        2,
        "--html and --json cannot be combined",
        "choose one",
    ),
    (
        "run recipe.yaml",
        2,
        "recipe.yaml:6:10: a second `key: value` where there can be only one",
        "indent the lines of a section alike, and quote a",
    ),
    ("run recipe.yml", 2, "recipe.yml: No such file or directory", "did you mean 'recipe.yaml'?"),
    ("plugins new shout --kind fromatter", 2, "--kind cannot be 'fromatter'", "did you mean 'formatter'?"),
    ("plugins check maskd", 2, "unknown plugin, or name of one, 'maskd'", "did you mean 'masked'?"),
    ("chat student --teacher-option a=1", 2, "--base-url and --teacher-option go with --teacher", "add --teacher NAME"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bloom):
    """A folder with a model, a run, prompts, transcripts and a recipe."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "student").symlink_to(bloom)
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (folder / "answers.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "prompts.txt").write_text("Hello?\n")
    (folder / "spanish").mkdir()
    (folder / "spanish" / "run.json").write_text("{}")
    recipe = "prompts: prompts.txt\nout: out\ncollect: {teacher: replay:answers.jsonl}\n"
    (folder / "recipe.yaml").write_text(recipe + "train:\n  student: student\n   epochs: 1\n")
    return folder


def there(folder):
    """All files, but for the one that `collect` opens before it asks."""
    return sorted(path for path in folder.rglob("*") if not path.name.startswith("x.jsonl"))


@pytest.mark.parametrize(("words", "code", "error", "hint"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_typical_mistake(words, code, error, hint, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISTILL_PLUGINS", "")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    before = there(folder)
    assert main(shlex.split(words)) == code
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[0].startswith("Error: ") and error in lines[0]
    assert len(lines) == (1 if hint is None else 2) and (hint is None or hint in lines[1])
    assert there(folder) == before, "a mistake leaves nothing behind"


def test_there_are_sixty():
    assert len(MISTAKES) >= 60
