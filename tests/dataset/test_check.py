"""`distill check`, and `train`, which refuses what the label check finds wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from html_page import Page

from distill.cli.main import main
from distill.dataset.check import check as check_data
from distill.dataset.pipeline import make_pipeline
from distill.dataset.settings import DataSettings

GOOD = [{"role": "user", "content": "How do you say dog?"}, {"role": "assistant", "content": "perro"}]


@pytest.fixture
def write(tmp_path):
    def made(*rows, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        shaped = [row if isinstance(row, dict) else {"messages": row} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in shaped), encoding="utf-8")
        return path

    return made


def check(capsys, *words) -> tuple[int, dict]:
    code = main(["check", *map(str, words), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out)


def codes(report: dict) -> dict[str, int]:
    return {finding["code"]: finding["count"] for finding in report["findings"]}


def test_good_data_have_no_finding(bloom, write, capsys):
    code, report = check(capsys, write(GOOD), "--student", bloom)
    assert code == 0 and report["ok"] and report["findings"] == []
    assert (report["rows"], report["trained_rows"], report["skipped_rows"], report["examples"]) == (1, 1, 0, 1)
    assert 0 < report["trained_tokens"] < report["tokens"] == report["longest"]


def test_the_report_shows_itself_in_a_notebook(bloom, write, manager):
    pipeline = make_pipeline(DataSettings(str(bloom)), manager)
    report = check_data(write(GOOD, [GOOD[0], {"role": "assistant", "content": ""}], name="<b>.jsonl"), pipeline)
    frame = report.to_pandas()
    assert list(frame["code"]) == ["empty-answer"] and frame["row"][0].endswith("<b>.jsonl:2")
    html = report._repr_html_()
    assert "2 rows: 1 are trained" in html and "empty-answer" in html and "&lt;b&gt;" in html and "<b>.j" not in html
    assert list(check_data([{"messages": GOOD}], pipeline).to_pandas().columns) == list(frame.columns)


def test_answers_that_repeat_others_are_counted_and_the_most_frequent_shown(bloom, write, capsys, tmp_path):
    answers = ["perro", "gato", " perro\n", "perro", "gato ", "Perro", "<script>x</script>", "<script>x</script>"]
    asked = [{"role": "user", "content": f"word {n}?"} for n in range(len(answers))]
    path = write(*([one, {"role": "assistant", "content": text}] for one, text in zip(asked, answers, strict=True)))
    _, report = check(capsys, path, "--student", bloom)
    assert (report["answers"], report["repeated_answers"]) == (8, 4) and report["findings"] == []
    main(["check", str(path), "--student", str(bloom)])
    assert "4 of 8 answers (50 %) repeat another word for word" in capsys.readouterr().out
    assert main(["show", str(path), "--student", str(bloom), "--html", str(tmp_path / "page.html")]) == 0
    text = Page((tmp_path / "page.html").read_text()).text
    assert "4 of 8 answers (50%)" in text and text.index("3 ×") < text.index("2 ×")
    before, _, _ = text.partition("Lengths")
    assert "perro data.jsonl:1" in before.replace(str(tmp_path) + "/", "") and "Perro" not in before


def test_strange_data_are_told_row_by_row(bloom, write, capsys):
    answer = {"role": "assistant", "content": "yes"}
    ask = {"role": "user", "content": "other?"}
    path = write(
        GOOD,
        GOOD,
        [ask, {"role": "assistant", "content": " "}],
        {"messages": [ask, answer], "metadata": {"finish_reason": "length"}},
        [ask],
        [ask, {"role": "assistant", "content": None, "refusal": "I will not"}],
        [ask, {"role": "assistant", "content": "no", "weight": 0}],
        [ask, ask, answer],
        [ask, answer, {"role": "system", "content": "late"}, ask, answer],
        [*GOOD, ask],
    )
    code, report = check(capsys, path, "--student", bloom)
    assert code == 0 and report["ok"]
    assert codes(report) == {
        "no-answer": 1,
        "weight-0": 1,
        "empty-answer": 1,
        "refused-answer": 1,
        "cut-answer": 1,
        "role-order": 2,
        "ends-on-user": 2,
        "duplicate": 1,
    }
    rows = {finding["code"]: finding["rows"][0]["row"].rpartition(":")[2] for finding in report["findings"]}
    assert rows["duplicate"] == "2" and rows["empty-answer"] == "3" and rows["refused-answer"] == "6"
    assert report["rows"] == 10 == report["trained_rows"] + report["skipped_rows"]


def test_a_leak_is_an_error(bloom, write, capsys):
    held_out = write([{"role": "user", "content": "how do  you say DOG?"}, GOOD[1]], name="held.jsonl")
    code, report = check(capsys, write(GOOD), "--student", bloom, "--against", held_out)
    assert code == 1 and not report["ok"] and codes(report) == {"leakage": 1}
    assert report["findings"][0]["rows"] == [{"row": f"{held_out.parent}/data.jsonl:1", "detail": f"as {held_out}:1"}]
    other = write([{"role": "user", "content": "Cat?"}, GOOD[1]], name="other.jsonl")
    assert check(capsys, write(GOOD), "--student", bloom, "--against", other)[0] == 0


def test_long_rows_are_an_error(bloom, write, capsys):
    code, report = check(capsys, write(GOOD), "--student", bloom, "--max-length", "5")
    assert code == 1 and codes(report) == {"overlong": 1}


def test_nothing_to_train_is_an_error(bloom, write, capsys):
    code, report = check(capsys, write(GOOD[:1]), "--student", bloom)
    assert code == 1 and codes(report) == {"nothing-to-train": 1, "no-answer": 1, "ends-on-user": 1}


def test_what_a_person_reads(bloom, write, capsys):
    words = ["check", str(write(GOOD)), "--student", str(bloom), "--labeler", "trl", "-L", "end_of_turn=false"]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "1 row: 1 trained as 1 example, 0 not" in out
    assert "error: end-not-trained × 1" in out and "data.jsonl:1: message 1" in out and "→ use --labeler masked" in out
    assert main([*words, "--allow", "end-not-trained"]) == 0
    assert "error, allowed: end-not-trained" in capsys.readouterr().out


def test_hostile_text_in_a_finding_is_inert(bloom, write, capsys):
    row = {"messages": [GOOD[0], {"role": "assistant", "content": ""}], "id": "\x1b[31mred"}
    assert main(["check", str(write(row)), "--student", str(bloom)]) == 1
    assert "\x1b[31m" not in capsys.readouterr().out


def test_train_refuses_what_the_label_check_finds_wrong(bloom, write, tmp_path, capsys):
    words = ["train", str(write(GOOD)), "--student", str(bloom), "--out", str(tmp_path / "run"), "--dry-run"]
    words += ["--labeler", "trl", "-L", "end_of_turn=false"]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "Error: 1 × end-not-trained" in err and "--allow end-not-trained" in err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--allow", "end-not-trained"]) == 0


def test_what_a_labeler_is_for_is_allowed(bloom, write, tmp_path, capsys):
    plugin = tmp_path / "half.py"
    source = """
import distill

class Half:
    def label(self, encoded):
        last = max(encoded.turn)
        return [-100 if n == encoded.turn.index(last) or not wrote else token
                for n, (token, wrote) in enumerate(zip(encoded.input_ids, encoded.assistant_mask))]

@distill.hookimpl
def register_labelers():
    return [distill.LabelerSpec("half", "", lambda options, encoder: Half()ALLOWS)]
"""
    words = ["check", str(write(GOOD)), "--student", str(bloom), "--labeler", "half"]
    for allows, code, said in (("", 1, "error: partial-answer"), (", allows=['partial-answer']", 0, "error, allowed")):
        plugin.write_text(source.replace("ALLOWS", allows))
        assert main(["--plugin", str(plugin), *words]) == code
        assert said in capsys.readouterr().out


def test_an_unknown_finding_cannot_be_allowed(bloom, write, tmp_path, capsys):
    for words in (["check"], ["train", "--out", str(tmp_path / "run")]):
        assert main([*words, str(write(GOOD)), "--student", str(bloom), "--allow", "leak"]) == 2
        assert "unknown finding 'leak'" in capsys.readouterr().err
