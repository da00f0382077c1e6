"""What may stand in a recipe: no surprise of YAML, no unknown key, no secret; each mistake with its place."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.cli.main import build_cli
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.recipes.schema import Recipe, load_recipe
from distill.recipes.yaml_file import load_yaml

WHOLE = "prompts: p.jsonl\nout: o\ncollect: {teacher: babel}\n"


@pytest.fixture
def write(tmp_path):
    """Write a recipe."""

    def text(text: str | bytes):
        path = tmp_path / "r.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return text


# Long options that are no keys, and why.
LEFT_OUT = {
    "collect": {
        "append": "the store takes every answer",
        "shard": "a recipe is one job",
        "batch": "a batch is two commands, with a day between them",
        "batch-answers": "as above",
    },
    "train": {"allow": "`check` has it", "resume": "a recipe always resumes"},
    "compare": {
        "html": "a page is always made",
        "samples": "the page has them",
        "fail-unless-better": "it is `require: better`",
    },
}


@pytest.mark.parametrize("section", LEFT_OUT)
def test_keys_are_the_long_options_of_the_command(section):
    """They are made from the same fields; this tells what is left to one of the two."""
    options = {
        name.removeprefix("--").replace("-option", "-options").replace("ignore-column", "ignore-columns")
        for option in build_cli(PluginManager()).commands[section].params
        for name in option.opts
        if name.startswith("--")
    }
    annotation = Recipe.model_fields[section].annotation
    model = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields"))
    keys = {field.alias for field in model.model_fields.values()}
    assert options - {"json", "dry-run", "out"} - set(LEFT_OUT[section]) == keys - {"max-failed", "out", "require"}


def test_yaml_is_read_as_version_1_2(write):
    values = load_yaml(
        write("a: [no, yes, on, off, true, FALSE, null, ~, 012, 0o12, 0x1F, 1_000, 1e-4, .5, 12:30:45, 2020-01-01, <<]")
    ).values["a"]
    assert values == [
        *("no", "yes", "on", "off", True, False, None, None, 12, 10, 31, "1_000", 1e-4, 0.5, "12:30:45", "2020-01-01"),
        "<<",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompts: a\nprompts: b", ":2:1: 'prompts' is given twice"),
        ("a: &x {b: 1}\nc: *x", ":1:4: an alias"),
        ("a: !!python/object/apply:os.system [x]", ":1:4: unsupported tag"),
        ("a: 1\n---\nb: 2", ":2:1: another document begins here"),
        ("1: 2", ":1:1: a key must be a string"),
        ("[a]", "the top level must be a mapping"),
        ("", "the top level must be a mapping"),
        ("a: b: c", ":1:5: a second `key: value`"),
        ("a: [1", ":1:6: a `[` or `{` is not closed"),
        ("a:\n\t- b", ":2:1: a tab"),
        ("[" * 3000, "nested too deeply"),
        (b"a: \xff", "UTF-8"),
        ("a: \x07", "a character that YAML does not allow"),
        ("train:\n  epochs: 3\n   seed: 1", ":3:8: a second `key: value`"),
        ("train:\n  epochs: 3\n seed: 1", ":3:2: this line is not indented like those above"),
        ("prompts p\nout: o", ":2:4: a second"),
        ("a: 'x", ":1:6: a quoted text is not closed"),
        ("a: @x", ":1:4: a text cannot begin with this character"),
        ("a: " + "x" * (1 << 20), "bytes; a recipe has"),
        ("a: " + "9" * 5000, "is not a valid number"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_no_recipe_is_refused_with_its_place(write, text, said):
    with pytest.raises(UsageError) as caught:
        load_yaml(write(text))
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert str(write(text)) in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE + "train:\n  epoch: 3", ":5:3: unknown key of train: 'epoch'. did you mean 'epochs'?"),
        (WHOLE + "train: {batch_size: 3}", "did you mean 'batch-size'?"),
        (WHOLE + "train: {max-tokens: 3}", "it belongs under `collect`"),
        (WHOLE + "trian: {}", ":4:1: unknown key of a recipe: 'trian'. did you mean 'train'?"),
        (WHOLE + "train: {epochs: no}", ":4:9: train.epochs takes a number"),
        (WHOLE + "train: {epochs: true}", "train.epochs takes a number"),
        (WHOLE + "train: {epochs: .inf}", "train.epochs takes a finite number"),
        (WHOLE + "train: {epochs: 0}", "train.epochs should be greater than 0"),
        (WHOLE + "train: {seed: '1'}", "train.seed takes a whole number"),
        (WHOLE + "train: {lora: 'yes'}", "train.lora takes true or false"),
        (WHOLE + "train: {turns: first}", "train.turns should be 'all' or 'last'"),
        (WHOLE + "train: {student: 12}", "train.student must be a string; quote it"),
        (WHOLE + "train: {trainer-options: [a]}", "takes a mapping"),
        (WHOLE + "train: 3", "train takes a mapping"),
        (WHOLE + "check: {allow: 3}", "check.allow takes a list"),
        (WHOLE.replace("babel", "babel, max-failed: 5"), "takes a share such as 5%"),
        (WHOLE.replace("babel", "babel, max-failed: 101%"), "takes a share such as 5%"),
        ("prompts: p\nout: ''\ncollect: {teacher: x}", ":2:1: out is empty"),
        ("prompts: p\nout: o", "the recipe lacks `collect`"),
        (WHOLE + "train: {epochs: x, seed: y}", ":4:20: train.seed"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place(write, text, said):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(text))
    assert said in f"{caught.value.message}. {caught.value.hint}"


@pytest.mark.parametrize(
    "line",
    [
        "teacher-options: {api_key: SECRET}",
        "teacher-options: {extra: {authorization: SECRET}}",
        "teacher-options: {headers: ['Bearer SECRETSECRET']}",
        "base-url: http://me:SECRET@host/v1",
        "system: sk-proj-SECRETSECRETSECRET",
        "teacher: hf_SECRETSECRETSECRETSECRET",
        "x-password: SECRET",
    ],
)
def test_a_secret_is_refused_and_not_shown(write, line):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(f"prompts: p\nout: o\ncollect:\n  {line}\n"))
    assert "looks like a secret" in caught.value.message and ":4:" in caught.value.message
    assert "environment variable" in caught.value.hint
    assert "SECRET" not in f"{caught.value.message} {caught.value.hint}"


def test_names_of_tokens_are_no_secrets(write):
    options = "{end_token: '<|im_end|>', max_tokens: 3, api_key_env: MY_KEY}"
    recipe, _ = load_recipe(write(f"{WHOLE}train: {{formatter-options: {options}}}"))
    assert recipe.train.formatter_options == {"end_token": "<|im_end|>", "max_tokens": "3", "api_key_env": "MY_KEY"}


def test_options_become_the_words_of_the_command_line(write):
    options = "{a: true, b: 1e-4, c: null, d: [1, x], e: {k: no}, f: text}"
    recipe, _ = load_recipe(write(f"{WHOLE}train: {{trainer-options: {options}}}"))
    words = {"a": "true", "b": "0.0001", "c": "none", "d": '[1, "x"]', "e": '{"k": "no"}', "f": "text"}
    assert recipe.train.trainer_options == words


@given(st.text() | st.text(alphabet="ab:-[]{},'\"#&*!|>%@ \n\t01.~"))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused(write, text):
    path = write(text.encode("utf-8", "surrogatepass"))
    try:
        loaded = load_yaml(path)
    except UsageError as error:
        assert error.message.startswith(str(path))
    else:
        assert isinstance(loaded.values, dict)
