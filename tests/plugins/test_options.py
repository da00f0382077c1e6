"""`key=value` words become a plugin's options, or an error that says which key, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_packages import PLUGINS

from distill import NoOptions, TeacherSpec, TrainerSpec, UsageError, make_plugin_manager
from distill.options import OptionHelp, describe_options, make_options, parse_pairs


@dataclass(frozen=True)
class Options:
    """One of each."""

    text: str = ""
    number: int = 0
    rate: float = 0.0
    flag: bool = False
    limit: int | None = 3
    mode: Literal["fast", "exact"] = "fast"
    items: list[int] = field(default_factory=list)
    pair: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


SPEC = TeacherSpec("t", "for a test", build=lambda options, model: None, options=Options)


def make(**values):
    return make_options(SPEC, values, "teacher")


def test_pairs():
    assert parse_pairs(["a=1", "b=x=y", "c="], "-T") == {"a": "1", "b": "x=y", "c": ""}
    assert parse_pairs([], "-T") == {}


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["a"], "-T 'a' is not key=value"),
        (["=1"], "-T '=1' is not key=value"),
        ([""], "-T '' is not key=value"),
        (["a=1", "a=1"], "-T a=… is given twice"),
    ],
)
def test_bad_pairs(pairs, says):
    with pytest.raises(UsageError) as caught:
        parse_pairs(pairs, "-T")
    assert (caught.value.message, caught.value.exit_code) == (says, 2)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "5", "5"),
        ("text", "none", "none"),
        ("number", "-5", -5),
        ("rate", "1e-5", 1e-5),
        ("flag", "true", True),
        ("flag", "No", False),
        ("flag", "1", True),
        ("limit", "7", 7),
        ("limit", "none", None),
        ("mode", "exact", "exact"),
        ("items", "[1, 2]", [1, 2]),
        ("pair", '["a", "b"]', ("a", "b")),
        ("headers", '{"a": "b"}', {"a": "b"}),
    ],
)
def test_text_becomes_the_fields_type(key, text, value):
    assert getattr(make(**{key: text}), key) == value


@pytest.mark.parametrize("value", [7, None, 1.5, True, ["x"], {"a": 1}])
def test_other_values_stay_as_they_are(value):
    assert make(text=value).text is value


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("number", "5.5", "teacher 't': option number takes int, not '5.5'"),
        ("number", "", "teacher 't': option number takes int, not ''"),
        ("rate", "fast", "teacher 't': option rate takes float, not 'fast'"),
        ("flag", "maybe", "teacher 't': option flag takes bool, not 'maybe'"),
        ("limit", "many", "teacher 't': option limit takes int, not 'many'"),
        ("items", "1", "teacher 't': option items takes list, not '1'"),
        ("items", "[1", "teacher 't': option items takes list, not '[1'"),
        ("headers", "[]", "teacher 't': option headers takes dict, not '[]'"),
    ],
)
def test_values_that_do_not_fit(key, text, says):
    with pytest.raises(UsageError) as caught:
        make(**{key: text})
    assert caught.value.message == says


def test_a_choice_that_does_not_exist():
    with pytest.raises(UsageError, match="option mode") as caught:
        make(mode="exakt")
    assert caught.value.hint == "did you mean 'exact'? known: exact, fast."


def test_unknown_key():
    with pytest.raises(UsageError, match="unknown option of teacher 't': 'nubmer'") as caught:
        make(nubmer="5")
    assert caught.value.hint.startswith("did you mean 'number'? known: flag, headers, ")
    with pytest.raises(UsageError) as caught:
        make_options(TeacherSpec("t", "", build=print, options=NoOptions), {"x": "1"}, "teacher")
    assert caught.value.hint == "none is known."


def test_missing_key_and_the_plugins_own_check():
    @dataclass
    class Strict:
        port: int

        def __post_init__(self):
            if self.port < 1:
                raise ValueError("port must be positive")

    spec = TrainerSpec("s", "", build=print, options=Strict)
    with pytest.raises(UsageError, match="trainer 's' needs the option port"):
        make_options(spec, {}, "trainer")
    with pytest.raises(UsageError, match="trainer 's': port must be positive"):
        make_options(spec, {"port": "0"}, "trainer")
    assert make_options(spec, {"port": "1"}, "trainer").port == 1


def test_a_plugin_may_take_any_key():
    spec = TrainerSpec("hf", "", build=print, options=dict)
    values = {"warmup_steps": "3", "optim": "adamw_torch", "bf16": "true", "betas": "[0.9, 0.95]", "seed": 7}
    assert make_options(spec, values, "trainer") == {
        "warmup_steps": 3,
        "optim": "adamw_torch",
        "bf16": True,
        "betas": [0.9, 0.95],
        "seed": 7,
    }


@given(st.dictionaries(st.sampled_from([*Options.__dataclass_fields__, "other"]), st.text()))
def test_any_text_gives_options_or_a_usage_error(values):
    try:
        assert isinstance(make(**values), Options)
    except UsageError as error:
        assert "\n" not in error.message or any("\n" in text for text in values.values())


def test_every_option_of_every_shipped_plugin_has_a_meaning():
    files = [str(path) for path in sorted(PLUGINS.glob("*/*.py"))]
    manager = make_plugin_manager(files, environ={"DISTILL_PLUGINS": ""})
    assert not [record.error for record in manager.records if record.error] and len(files) > 10
    without, count = [], 0
    for kind, registry in manager.registries.items():
        for spec in registry:
            options = describe_options(getattr(spec, "options", NoOptions))
            count += len(options)
            without += [f"{kind} {spec.name}: {option.name}" for option in options if not option.meaning]
    assert count > 40 and not without


def test_an_option_is_described_from_its_dataclass():
    @dataclass
    class Described:
        """Attributes:
        size: how large it is,
            in bytes.
        words, more: what is left out.

        Another paragraph: it is no option.
        """

        size: int | None = None
        words: tuple[str, ...] = ("a", "ä")
        more: bool | Literal["some"] = False

    assert describe_options(Described) == [
        OptionHelp("size", "number", None, "how large it is, in bytes."),
        OptionHelp("words", "JSON", '["a", "ä"]', "what is left out."),
        OptionHelp("more", "true|false|some", "false", "what is left out."),
    ]
