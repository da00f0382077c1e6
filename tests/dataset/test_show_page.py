"""`show`, and its page: the very tokens and labels of the trainer's first batch, and nothing that could act."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from html_page import Page
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import make_formatter
from distill.cli.main import main
from distill.dataset.collate import pad_batch
from distill.dataset.prepare import prepare
from distill.dataset.preview import Place, Preview, show
from distill.dataset.preview_page import PageSummary, write_preview
from distill.encode.tokenizer import prepare_tokenizer
from distill.models.load import load_tokenizer
from distill.testing.tokenizers import TOKENIZERS
from distill.training import TrainSettings, train
from distill.transcripts.reader import read_transcripts
from distill.types import Message, Source, Transcript

HOSTILE = (
    "</span></pre></summary><script>alert(1)</script></style><img src=x onerror=alert(1)> \" onclick='x' &lt;&#0; "
    "{{ 7*7 }} {% raw %} <!-- ]]> \x1b[31m \x00 \x07 \u202e\u2066 \u200b\u00a0\u2028 \ue000 \r\t 日本 👩‍👧 e\u0301"
)

POLICY = '<meta http-equiv="x">'  # a notebook has its own


class ShowPage(Page):
    """With the tokens of its rows."""

    def __init__(self, text: str):
        self.rows = []
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag == "pre":
            self.rows.append([])
        if tag == "span" and "pre" in self.open:
            found = re.fullmatch(r"token (\d+): id ([\d ]+), label ([-\d ]+)\n(.*)", dict(attrs)["title"])
            self.rows[-1].append({**dict(zip(("at", "ids", "labels", "who"), found.groups(), strict=True)), "text": ""})

    def handle_data(self, data):
        super().handle_data(data)
        if "span" in self.open and "pre" in self.open:
            self.rows[-1][-1]["text"] += data

    def tokens(self, n: int) -> tuple[list[int], list[int]]:
        """The ids and labels of a row."""
        ids = " ".join(piece["ids"] for piece in self.rows[n])
        labels = " ".join(piece["labels"] for piece in self.rows[n])
        return [int(id) for id in ids.split()], [int(label) for label in labels.split()]


@pytest.fixture(scope="module")
def encoder(bloom):
    return prepare_tokenizer(load_tokenizer(str(bloom)), make_formatter("chat-template"), "chat-template")


def page_of(transcripts, encoder, manager, folder, labeler="masked"):
    """Write a page, and read it."""
    labels, target = manager.labelers.build(labeler, {}, encoder), folder / "page.html"
    prepared = prepare(transcripts, encoder, labels)
    summary = PageSummary(
        rows=prepared.rows,
        lengths=prepared.examples.lengths.tolist(),
        trained=prepared.examples.trained.tolist(),
        reasons=Counter(skipped.reason for skipped in prepared.skipped),
    )
    write_preview(show(transcripts, encoder, labels, labeler), summary, target, {"data": HOSTILE + "\ud83d"})
    return ShowPage(target.read_text(encoding="utf-8"))


def chat(*said: str, id: str = "id") -> Transcript:
    return Transcript(id, tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said)))


@pytest.mark.parametrize("trainer", ["hf", "trl"])
@pytest.mark.parametrize("labeler", ["copy", "masked", "trl"])
def test_the_first_batch_is_what_was_shown(manager, bloom, article, tmp_path, monkeypatch, capsys, labeler, trainer):
    """What the model itself is called with, token by token; the Trainer shuffles, so rows are matched as a set."""
    from distill.training import student as run

    batches = []

    def keep(module, args, kwargs) -> None:
        if module.training:  # else it is the probe of the supervised-only head
            batches.append(kwargs)

    def load(ref, load_model=run.load_model):
        model = load_model(ref)
        model.register_forward_pre_hook(keep, with_kwargs=True)
        return model

    monkeypatch.setattr(run, "load_model", load)
    settings = TrainSettings(str(bloom), (article,), tmp_path / "run", labeler=labeler, trainer=trainer, epochs=1)
    train(settings, manager)
    batch = batches[0]
    assert len(batch["input_ids"]) == 5  # all rows are in the first batch
    trained_on = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        assert mask[:length].all() and set(labels[length:].tolist()) <= {-100}
        trained_on.append((ids[:length].tolist(), labels[:length].tolist()))

    words = ["show", str(article), "--student", str(bloom), "--labeler", labeler]
    assert main([*words, "--json", "--all"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shown = [(row["token_ids"], row["labels"]) for row in rows]
    assert sorted(shown) == sorted(trained_on)
    assert main([*words, "--html", str(tmp_path / "page.html")]) == 0
    page = ShowPage((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [page.tokens(n) for n in range(5)] == shown


def test_the_page_can_do_nothing(encoder, manager, tmp_path):
    rows = [chat(HOSTILE, HOSTILE, id=HOSTILE), Transcript(HOSTILE, (Message("user", HOSTILE),))]
    page = page_of(rows, encoder, manager, tmp_path)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "base" not in page.tags
    assert "style" not in page.attributes
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text and "http:" not in text
    assert all(char.isprintable() or char == "\n" for char in text), "a character that cannot be seen"
    for escape in (
        r"\ud83d",
        r"\x1b",
        r"\x00",
        r"\u202e",
        r"\u2066",
        r"\u200b",
        r"\xa0",
        r"\u2028",
        r"\ue000",
        r"\r",
        r"\t",
    ):
        assert escape in page.text
    assert "{{ 7*7 }} {% raw %} <!-- ]]>" in page.text and "<script>alert(1)</script>" in page.text
    assert "日本" in page.text  # several tokens make one character


def test_who_wrote_each_token_stands_beside_it(encoder, manager, tmp_path):
    page = page_of([chat("dog?", "perro", "cat?", "gato")], encoder, manager, tmp_path)
    said = {}
    for piece in page.rows[0]:
        said[piece["who"]] = said.get(piece["who"], "") + piece["text"]
        assert (piece["labels"] != "-100") == piece["who"].startswith("assistant"), piece
    assert said["user, message 0"].strip("↵\n") == "dog?" and said["user, message 2"].strip("↵\n") == "cat?"
    assert said["assistant, message 1"] == "perro" and said["assistant, message 3"] == "gato"
    assert said["assistant, message 1, end of turn"] == "<|im_end|>"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("labeler", ["copy", "masked"])
def test_pages_of_all_tokenizers(manager, tmp_path, name, labeler):
    """Rows split by answer and byte pieces included: ids, labels and roles stand on the page as they were trained."""
    encoder = prepare_tokenizer(TOKENIZERS[name](), make_formatter("chat-template"), "chat-template")
    chats = [chat("How do you say dog?", "perro é 日本", "And in French?", "chien")]
    rows = list(show(chats, encoder, manager.labelers.build(labeler, {}, encoder), labeler))
    page = page_of(chats, encoder, manager, tmp_path, labeler)
    assert [page.tokens(n) for n in range(len(rows))] == [(row.token_ids, row.labels) for row in rows]
    for row in rows:
        found = row.places
        assert {place.role for place in found} >= {"user", "assistant"} and Place() in found
        if labeler == "masked":
            written = [label != -100 for label in row.labels]
            last = max(place.message for place in found if place.role == "assistant")
            assert all(trained for trained, place in zip(written, found, strict=True) if place.message == last)
    assert "do you say" in "".join(rows[0].tokens).lower()  # the spaces are there


def test_places_are_unknown_where_the_collator_changes_the_tokens(encoder, manager):
    labeler = manager.labelers.build("masked", {}, encoder)

    class Other:
        def label(self, encoded):
            return labeler.label(encoded)

        def collator(self, pad_token_id):
            return lambda rows: pad_batch([{**row, "input_ids": [7, *row["input_ids"][1:]]} for row in rows], 0)

    row = next(show([chat("q", "a")], encoder, Other(), "other"))
    assert row.token_ids[0] == 7 and row.places == [Place()] * len(row.token_ids)


def test_rows_show_themselves_in_a_notebook(encoder, manager):
    chats = [chat("dog?", f"perro {HOSTILE}", id=HOSTILE), chat("cat?", "")]
    shown = Preview(show(chats, encoder, manager.labelers.build("masked", {}, encoder), "masked"))
    page = ShowPage(POLICY + shown._repr_html_())
    assert [page.tokens(0)] == [(shown[0].token_ids, shown[0].labels)] and "the answer is empty" in page.text
    assert set(page.tags) <= {"div", "style", "details", "summary", "pre", "bdi", "span", "i", "p", "meta"}
    assert ShowPage(POLICY + shown[0]._repr_html_()).rows == page.rows
    assert list(shown.to_pandas()["trained"]) == [shown[0].trained, 0]
    frame = shown[0].to_pandas()
    assert frame["trained"].sum() == shown[0].trained and set(frame[frame["trained"]]["role"]) == {"assistant"}


def test_counts_are_of_all_rows_and_rows_left_out_are_said(bloom, tmp_path, capsys):
    data, target = tmp_path / "data.jsonl", tmp_path / "page.html"
    rows = [{"prompt": "q " * n, "completion": "a"} for n in range(1, 61)] + [{"prompt": "q", "completion": ""}] * 3
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["show", str(data), "--student", str(bloom), "--html", str(target)]
    for more, shown in (([], 50), (["-n", "2"], 2), (["--all"], 60)):
        assert main([*words, *more]) == 0
        page = ShowPage(target.read_text(encoding="utf-8"))
        assert len(page.rows) == shown
        assert (f"The first {shown} of 63 rows; the counts are of all." in page.text) == (shown < 60)
        assert "message 1: the answer is empty" in page.text
        said = capsys.readouterr()
        assert "examples60" in "".join(page.text.split()) and "rowsskipped3" in "".join(page.text.split())
        assert said.out == "" and "3 of all would be skipped" in said.err


def test_only_pages_are_replaced(bloom, article, tmp_path, capsys):
    words = ["show", str(article), "--student", str(bloom), "--html"]
    before = article.read_text()
    assert main([*words, str(article)]) == 2 and article.read_text() == before
    assert "refusing to overwrite" in capsys.readouterr().err
    assert main([*words, str(tmp_path)]) == 1 and main([*words, str(tmp_path / "no" / "page.html")]) == 2
    assert main([*words, str(tmp_path / "page.html")]) == main([*words, str(tmp_path / "page.html")]) == 0
    assert main([*words, str(tmp_path / "page.html"), "--json"]) == 2


def test_an_empty_file_is_said_to_be_empty(bloom, tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("\n")
    words = ["show", str(tmp_path / "empty.jsonl"), "--student", str(bloom)]
    for more in ([], ["--html", str(tmp_path / "page.html")]):
        assert main([*words, *more]) == 1
        assert "empty.jsonl is empty" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_an_empty_page_is_a_page(encoder, manager, tmp_path):
    assert page_of([], encoder, manager, tmp_path).rows == []
    assert page_of([Transcript("x", (Message("user", "q"),))], encoder, manager, tmp_path).rows == []


@settings(max_examples=40, deadline=None)
@given(question=st.text(max_size=30), answer=st.text(max_size=30))
def test_any_text_makes_a_page_that_holds_together(encoder, manager, tmp_path_factory, question, answer):
    transcript = Transcript("t", (Message("user", question), Message("assistant", answer)), source=Source("f", 1))
    try:
        question.encode(), answer.encode()
    except UnicodeEncodeError:
        return  # the readers refuse halves of surrogate pairs
    folder = tmp_path_factory.mktemp("page")
    page = page_of([transcript], encoder, manager, folder)
    rows = list(show([transcript], encoder, manager.labelers.build("masked", {}, encoder), "masked"))
    assert [page.tokens(n) for n in range(len(page.rows))] == [(r.token_ids, r.labels) for r in rows if not r.reason]


def test_transcripts_of_a_file_are_shown_with_their_place(bloom, article, capsys):
    assert main(["show", str(article), "--student", str(bloom), "-n", "1"]) == 0
    assert f"row 1  {next(iter(read_transcripts(article))).id}" in capsys.readouterr().out
