"""A teacher for distill that knows the names of countries: it looks them up in CLDR, through Babel.

It costs nothing, answers at once and is always right, so it serves for trying distill out, and for measuring how much
of a teacher's knowledge a student has taken up.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import IO, Any

import click

import distill

# Codes that CLDR names but that are no country or territory.
PSEUDO = {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}

# The quotes keep a name's tokens as they are at the start of an answer; a student copies them more easily so.
PROMPT = 'How do you say "{country}" in {language}? Answer with the name only.'

QUESTIONS = [
    re.compile(pattern + r"\s*\?(?: answer with the name only\.?)?", re.IGNORECASE)
    for pattern in (
        "what is the (?P<language>[^?]{1,80}?) name (?:of|for) (?P<country>[^?]{1,80}?)",
        "what is the name of (?P<country>[^?]{1,80}) in (?P<language>[^?]{1,80}?)",
        "what is (?P<country>[^?]{1,80}) called in (?P<language>[^?]{1,80}?)",
        "how do you say (?P<country>[^?]{1,80}) in (?P<language>[^?]{1,80}?)",
    )
]

UNDERSTANDS = 'ask "What is the Spanish name of Germany?" or "How do you say Germany in Spanish?", with English names'

# Common English names that CLDR's are not.
OTHER_COUNTRY_NAMES = {
    "Cabo Verde": "CV",
    "Czech Republic": "CZ",
    "Democratic People's Republic of Korea": "KP",
    "Democratic Republic of the Congo": "CD",
    "East Timor": "TL",
    "Federated States of Micronesia": "FM",
    "Ivory Coast": "CI",
    "Macau": "MO",
    "Palestine": "PS",
    "Republic of China": "TW",
    "Republic of Korea": "KR",
    "Republic of the Congo": "CG",
    "Russian Federation": "RU",
    "Swaziland": "SZ",
    "Turkey": "TR",
    "UK": "GB",
    "United States of America": "US",
    "USA": "US",
}
OTHER_LANGUAGE_NAMES = {"Bengali": "bn", "Farsi": "fa", "Mandarin": "zh", "Mandarin Chinese": "zh"}

_STATE = re.compile(r"^(?:\w+ ){0,3}?(?:republic|kingdom|commonwealth|principality|sultanate|duchy) of (?:the )?")


class Babel:
    """Answers questions for the name of a country in a language."""

    def __init__(self) -> None:
        import babel

        self._model = f"babel-{babel.__version__}"
        self._countries = _country_index()
        self._languages = _index(_languages(), OTHER_LANGUAGE_NAMES)

    def ask(self, request: distill.Request) -> distill.Answer:
        """Answer the last user message of the request.

        Raises:
            TeacherError: it is none of the questions this teacher understands, or CLDR has no such name.
        """
        question = next((message.content for message in reversed(request.messages) if message.role == "user"), None)
        country, language = _parse(question or "")
        code = self._countries.get(_fold(country)) or self._countries.get(_STATE.sub("", _fold(country), count=1))
        if code is None:
            raise distill.TeacherError(f"CLDR knows no country {country!r}", "give its English name, such as Germany")
        locale = self._languages.get(_fold(language))
        if locale is None:
            raise distill.TeacherError(f"CLDR knows no language {language!r}", "give its English name, such as Spanish")
        name = _names(locale).get(code)
        if name is None:
            raise distill.TeacherError(f"CLDR has no name of {country} in {language}")
        return distill.Answer(distill.Message("assistant", name), finish_reason="stop", model=self._model)


def prompts(language: str, limit: int | None = None, seed: int | None = None) -> list[dict[str, Any]]:
    """Make one prompt for each country that has a name in a language.

    Args:
        language: a CLDR code (`es`, `pt_BR`) or an English name (`Spanish`).
        limit: the most prompts to make.
        seed: shuffle with it; None keeps them in the order of their territory codes.

    Returns:
        Rows of a prompt file: `id`, `prompt` and `metadata` with `territory` and `language`.

    Raises:
        UsageError: CLDR has no such language.
    """
    languages = _languages()
    code = language.replace("-", "_")
    if code not in languages:
        code = _index(languages, OTHER_LANGUAGE_NAMES).get(_fold(language), "")
    if not code:
        raise distill.UsageError(
            f"CLDR knows no language {language!r}", "give its code, such as es, or its English name"
        )
    names = _names(code)
    rows = [
        {
            "id": f"{code}-{territory}",
            "prompt": PROMPT.format(language=languages[code], country=country),
            "metadata": {"territory": territory, "language": code},
        }
        for territory, country in _countries().items()
        if territory in names
    ]
    if seed is not None:
        random.Random(seed).shuffle(rows)
    return rows[:limit]


@click.command("babel-prompts", short_help="Write prompts for the names of countries.")
@click.option("--language", required=True, help="A CLDR code (es, pt_BR) or an English name.")
@click.option("--limit", type=click.IntRange(min=1), help="Make at most N prompts.")
@click.option("--seed", type=int, help="Shuffle the prompts with this seed.")
@click.option(
    "--out",
    type=click.File("w", encoding="utf-8", atomic=True),
    default="-",
    help="Where to write them; default standard output.",
)
def babel_prompts(language: str, limit: int | None, seed: int | None, out: IO[str]) -> None:
    """Write prompts that ask for the names of all countries in a language, for the teacher `babel`."""
    rows = prompts(language, limit, seed)
    for row in rows:
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
    click.echo(f"{len(rows)} prompts", err=True)


def _parse(question: str) -> tuple[str, str]:
    """Country and language as the question names them."""
    question = " ".join(question.split())
    for pattern in QUESTIONS:
        if match := pattern.fullmatch(question):
            return match["country"], match["language"]
    short = question if len(question) <= 80 else question[:79] + "…"
    example = PROMPT.format(language="Spanish", country="Germany")
    raise distill.TeacherError(f"babel does not understand {short!r}; it answers {example!r}", UNDERSTANDS)


def _names(code: str) -> Mapping[str, str]:
    """Territory code → name, in a language."""
    from babel import Locale

    return Locale.parse(code).territories


def _countries() -> dict[str, str]:
    """Territory code → English name of all countries and territories."""
    names = _names("en")
    return {code: names[code] for code in sorted(names) if len(code) == 2 and code.isalpha() and code not in PSEUDO}


def _languages() -> dict[str, str]:
    """Language code → English name of all languages that Babel has data for."""
    from babel import Locale, localedata

    return {code: name for code, name in sorted(Locale("en").languages.items()) if localedata.exists(code)}


def _country_index() -> dict[str, str]:
    """Folded English name → territory code, with the parts of names like `Myanmar (Burma)`."""
    countries = _countries()
    parts = {part: code for code, name in countries.items() for part in _parts(name)}
    return _index(countries, parts | OTHER_COUNTRY_NAMES)


def _parts(name: str) -> Iterable[str]:
    if match := re.fullmatch(r"(.+) \((.+)\)|(.+) SAR China", name):
        return [part for part in match.groups() if part]
    return []


def _index(names: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Folded name → code; CLDR's own names go before the others."""
    return {_fold(name): code for name, code in others.items()} | {_fold(name): code for code, name in names.items()}


def _fold(name: str) -> str:
    """Level what people write differently: case, accents, punctuation, quotes, `&`, `St.`, `the`."""
    plain = unicodedata.normalize("NFKD", name.replace("&", " and ")).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    words = ["saint" if word == "st" else word for word in re.findall(r"[^\W_]+", plain)]
    return " ".join(words[1:] if words[:1] == ["the"] else words)


@distill.hookimpl
def register_teachers() -> list[distill.TeacherSpec]:
    """Offer `--teacher babel`."""
    return [distill.TeacherSpec("babel", "names of countries in all languages of CLDR, exactly", build=_build)]


def _build(options: distill.NoOptions, model: str | None) -> Babel:
    if model is not None:
        raise distill.UsageError(f"teacher babel has no model {model!r}", "write `--teacher babel`")
    return Babel()


@distill.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `distill babel-prompts`."""
    cli.add_command(babel_prompts)
