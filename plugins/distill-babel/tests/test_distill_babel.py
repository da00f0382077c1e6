"""What the teacher understands, and that it answers every prompt it makes exactly as CLDR does."""

from __future__ import annotations

import json

import pytest
from babel import Locale
from click.testing import CliRunner
from distill_babel import PSEUDO, Babel, babel_prompts, prompts, register_teachers

import distill
from distill import Message, Request, TeacherError, UsageError
from distill.testing import check_teacher


@pytest.fixture(scope="module")
def teacher():
    return Babel()


def ask(teacher, *messages):
    return teacher.ask(
        Request([message if isinstance(message, Message) else Message("user", message) for message in messages])
    )


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What is the Spanish name of Germany? Answer with the name only.", "Alemania"),
        ("what is the SPANISH name of  germany?", "Alemania"),
        ("What is the Spanish name for Germany ?", "Alemania"),
        ('How do you say "Germany" in Spanish?', "Alemania"),
        ("How do you say ‘Germany’ in Spanish? Answer with the name only.", "Alemania"),
        ("What is Germany called in Spanish?", "Alemania"),
        ("What is the name of Germany in Spanish?", "Alemania"),
        ("What is the Spanish name of the Federal Republic of Germany?", "Alemania"),
        ("What is the French name of the Netherlands?", "Pays-Bas"),
        ("What is the German name of Cote d'Ivoire?", "Côte d’Ivoire"),
        ("What is the German name of Ivory Coast?", "Côte d’Ivoire"),
        ("What is the German name of Bosnia and Herzegovina?", "Bosnien und Herzegowina"),
        ("What is the German name of Saint Lucia?", "St. Lucia"),
        ("What is the German name of Burma?", "Myanmar"),
        ("What is the Spanish name of the Republic of Korea?", "Corea del Sur"),
        ("What is the Spanish name of the Democratic People's Republic of Korea?", "Corea del Norte"),
        ("What is the Spanish name of the People's Republic of China?", "China"),
        ("What is the Spanish name of the Republic of China?", "Taiwán"),
        ("What is the Spanish name of the Dominican Republic?", "República Dominicana"),
        ("What is the Spanish name of the British Indian Ocean Territory?", "Territorio Británico del Océano Índico"),
        ("How do you say Germany in Brazilian Portuguese?", "Alemanha"),
        ("How do you say Germany in Traditional Chinese?", "德國"),
        ("How do you say Germany in Norwegian?", "Tyskland"),
        ("How do you say Türkiye in English?", "Türkiye"),
    ],
)
def test_answers(teacher, question, name):
    answer = ask(teacher, question)
    assert (answer.message.role, answer.message.content, answer.finish_reason) == ("assistant", name, "stop")
    assert answer.model.startswith("babel-")


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("What is the capital of Germany?", "does not understand"),
        ("", "does not understand"),
        ("What is the Spanish name of Germany? And the French one?", "does not understand"),
        ("x" * 10_000, "does not understand"),
        ("What is the Spanish name of Atlantis?", "no country 'Atlantis'"),
        ("What is the Spanish name of Korea?", "no country 'Korea'"),
        ("What is the Spanish name of the European Union?", "no country"),
        ("What is the Elvish name of Germany?", "no language 'Elvish'"),
        ("What is the Navajo name of Germany?", "no name of Germany in Navajo"),
    ],
)
def test_anything_else_is_an_error_that_asking_again_does_not_mend(teacher, question, says):
    with pytest.raises(TeacherError, match=says) as caught:
        ask(teacher, question)
    assert not caught.value.retryable and not caught.value.fatal
    assert len(caught.value.message) < 200


def test_it_keeps_the_contract_of_teachers(teacher):
    check_teacher(teacher, questions=[row["prompt"] for row in prompts("es", limit=3)])


def test_only_the_last_user_message_counts(teacher):
    first, second = "What is the Spanish name of Germany?", "What is the Spanish name of Spain?"
    answer = ask(teacher, Message("system", "Be brief."), first, Message("assistant", "Alemania"), second)
    assert answer.message.content == "España"
    with pytest.raises(TeacherError):
        ask(teacher, Message("system", first))


@pytest.mark.parametrize("language", ["es", "de", "en", "ja", "ar", "pt_BR", "zh_Hant", "sw", "cy"])
def test_every_prompt_is_answered_as_cldr_does(teacher, language):
    rows = prompts(language)
    assert len(rows) > 200
    for row in rows:
        territory = row["metadata"]["territory"]
        assert ask(teacher, row["prompt"]).message.content == Locale.parse(language).territories[territory]


def test_prompts_are_of_real_countries():
    rows = prompts("es")
    assert {"id": "es-DE", "prompt": 'How do you say "Germany" in Spanish? Answer with the name only.',
            "metadata": {"territory": "DE", "language": "es"}} in rows  # fmt: skip
    codes = [row["metadata"]["territory"] for row in rows]
    assert codes == sorted(set(codes))
    assert not PSEUDO & set(codes)
    assert all(len(code) == 2 and code.isalpha() for code in codes)


def test_prompts_in_other_orders():
    rows = prompts("es")
    shuffled = prompts("es", seed=7)
    assert shuffled != rows and sorted(shuffled, key=lambda row: row["id"]) == rows
    assert prompts("es", limit=5, seed=7) == shuffled[:5] != prompts("es", limit=5, seed=8)
    assert prompts("Spanish") == rows
    assert prompts("pt-BR") == prompts("pt_BR") == prompts("brazilian portuguese")
    assert prompts("ga")[0]["metadata"]["language"] == "ga"  # a code goes before a name: "Ga" is another language


def test_unknown_language():
    with pytest.raises(UsageError, match="no language 'xx'"):
        prompts("xx")


def test_command(tmp_path):
    result = CliRunner().invoke(babel_prompts, ["--language", "es", "--limit", "3"])
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == prompts("es", limit=3)
    assert result.stderr == "3 prompts\n"
    file = tmp_path / "prompts.jsonl"
    result = CliRunner().invoke(babel_prompts, ["--language", "ja", "--seed", "1", "--out", str(file)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == prompts("ja", seed=1)


def test_registered_as_babel():
    (spec,) = register_teachers()
    assert spec.name == "babel"
    assert isinstance(spec.build(spec.options(), None), distill.Teacher)
    with pytest.raises(UsageError, match="no model 'es'"):
        spec.build(spec.options(), "es")
