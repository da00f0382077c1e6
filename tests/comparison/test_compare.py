"""`distill compare` from a run folder to a verdict, on tiny students."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from chat_rows import write_chats
from html_page import Page

from distill import Answer, Message, NoOptions, TeacherError, UsageError
from distill.cli.main import main
from distill.collection import NamedTeacher
from distill.comparison import CompareSettings, compare, compare_runs
from distill.comparison.training_data import read_training_data
from distill.runs.run import Run, open_run
from distill.transcripts.reader import read_transcripts

QUICK = {"max_tokens": 12, "batch_size": 4}


def figures(comparison, who: str) -> dict[str, float]:
    """One model's figures, without intervals."""
    found = next(one for one in comparison.standings if one.who == who).figures
    return {name: figure.value for name, figure in found.items()}


def test_a_student_that_copies_the_teacher_wins(copycat, chats, bloom, manager):
    told = []
    found = compare(copycat, [chats], manager, CompareSettings(**QUICK), on_progress=lambda *news: told.append(news))
    assert found.verdict == "better" and "more likely" in found.reasons[0]
    assert (found.conversations, found.questions, found.skipped) == (5, 6, [])
    student, base = figures(found, "student"), figures(found, "base")
    assert student["exact_match"] == student["chrf"] == student["agreement"] == student["stop_rate"] == 100
    assert student["perplexity"] < 2 < base["perplexity"] and base["exact_match"] == 0
    assert {"bits_per_byte", "tokens_per_second"} & set(student) == {"tokens_per_second"}
    second = next(sample for sample in found.samples if sample.turn == 1)
    assert second.reference == "oiseau" and second.answers["student"].exact and second.source.endswith(":4")
    assert second.messages[1].content == "pájaro"  # the teacher's own turn is what was said before
    assert any("begin with a prompt that the student was trained on" in text for text in found.warnings)
    assert any("The end-of-turn marker is one of them" in text for text in found.warnings)
    assert not found.settings["end_of_turn_counted"]
    assert ("base reads", 6, 6) in told and ("student answers", 6, 6) in told


def test_a_student_that_is_its_base_makes_no_difference(idle, chats, capsys):
    words = ["compare", str(idle), "--data", str(chats), "--max-tokens", "8", "--json"]
    assert main([*words, "--fail-unless-better"]) == 3
    capsys.readouterr()
    assert main(words) == 0, "no difference is no failure"
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "no difference"
    for one in found["differences"]:
        assert (one["change"]["value"], one["outcome"]) == (0, "no difference"), one["metric"]
    for sample in found["samples"]:
        assert sample["answers"]["base"] == sample["answers"]["student"]


def test_a_student_that_never_learned_to_stop_is_broken(endless, chats, capsys):
    assert main(["compare", str(endless), "--data", str(chats), "--max-tokens", "12"]) == 0
    out = capsys.readouterr().out
    assert "The student is broken." in out and "It does not stop: it ended 0 of 6 answers" in out
    assert "oiseau" in out  # it says the right thing, and goes on


def test_the_base_may_be_another_model_of_other_tokens(copycat, chats, tmp_path, manager):
    from distill.testing import byte_bpe, save_student, tiny_llama

    tokenizer = byte_bpe({"eos_token": "<|endoftext|>"})
    other = save_student(tiny_llama(tokenizer, rows=len(tokenizer) + 8), tokenizer, tmp_path / "llama")
    long = write_chats(tmp_path / "long.jsonl", [[("user", "long " * 200), ("assistant", "x")]])
    found = compare(copycat, [chats, long], manager, CompareSettings(base=str(other), **QUICK))
    (skipped,) = found.skipped
    assert "more than the base takes (512)" in skipped["reason"] and skipped["source"] == f"{long}:1"
    compared = [one.metric for one in found.differences]
    assert "bits_per_byte" in compared and not {"perplexity", "agreement"} & set(compared)
    assert any("different tokenizers" in text for text in found.warnings)
    assert found.verdict == "better"


class Teacher:
    """Answers as it did before, but for one question; one it does not answer."""

    def __init__(self):
        self.asked = []

    def ask(self, request):
        self.asked.append(request)
        question = request.messages[-1].content
        if "cat" in question:
            raise TeacherError("no cats here")
        words = {"dog": "perro", "horse": "yegua", "bird": "pájaro", "French": "oiseau", "fish": "pez"}
        return Answer(Message("assistant", next(word for key, word in words.items() if key in question)))


def test_the_teacher_is_asked_anew_once(copycat, chats, tmp_path, manager):
    run = tmp_path / "run"
    shutil.copytree(copycat, run)
    teacher = Teacher()
    named = NamedTeacher("scripted", None, "the test", NoOptions(), lambda: teacher)
    found = compare(run, [chats], manager, CompareSettings(teacher=named, judge=named, **QUICK))
    ceiling = figures(found, "teacher")
    assert ceiling["exact_match"] == pytest.approx(80) and ceiling["stop_rate"] == 100
    assert not {"perplexity", "tokens_per_second"} & set(ceiling)
    assert "teacher" not in found.samples[1].answers and found.samples[2].answers["teacher"].text == "yegua"
    assert any("did not answer 1 of 6 questions: no cats here" in text for text in found.warnings)
    assert found.judged is not None and found.judged.failed == 6  # it does not know the one word
    assert len([one for one in teacher.asked if one.messages[0].role == "user"]) == 6
    assert (run / "comparison" / "teacher.jsonl").is_file() and (run / "comparison" / "judge.jsonl").is_file()
    compare(run, [chats], manager, CompareSettings(teacher=named, **QUICK))
    asked = [one.messages[-1].content for one in teacher.asked if one.messages[0].role == "user"]
    assert len(asked) == 7 and "cat" in asked[-1]  # only what it has not answered


TASK = [
    {"role": "system", "content": "You translate animals into Spanish. Answer with one word."},
    {"role": "user", "content": "How do you say cow?"},
    {"role": "assistant", "content": "vaca"},
]


def prompted(chats, path, count=5):
    """The chats, the first of them with a prompt that only the teacher saw."""
    rows = [json.loads(line) for line in Path(chats).read_text().splitlines()]
    for row in rows[:count]:
        row["metadata"] = {"teacher_messages": TASK}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_base_is_asked_with_the_prompt_of_the_teacher(copycat, idle, chats, tmp_path, manager, capsys):
    run, data = tmp_path / "run", prompted(chats, tmp_path / "held.jsonl", 4)
    shutil.copytree(copycat, run)
    teacher, page = Teacher(), tmp_path / "page.html"
    named = NamedTeacher("scripted", None, "the test", NoOptions(), lambda: teacher)
    found = compare(run, [data], manager, CompareSettings(prompted_base=True, teacher=named, **QUICK))
    assert [one.who for one in found.standings] == ["base", "prompted_base", "student", "teacher"]
    base, prompt, student = (figures(found, who) for who in ("base", "prompted_base", "student"))
    assert prompt["perplexity"] != base["perplexity"] and prompt["prompt_tokens"] > 2 * base["prompt_tokens"]
    assert student["prompt_tokens"] == base["prompt_tokens"] and "prompt_tokens" not in figures(found, "teacher")
    assert found.prompted.verdict == "better" and found.prompted.without_prompt == 1
    assert found.prompted.fewer_prompt_tokens == 100 * (1 - student["prompt_tokens"] / prompt["prompt_tokens"])
    changes = {one.metric: one for one in found.prompted.differences}
    assert changes["exact_match"].change.value == 100 and changes["prompt_tokens"].outcome == "better"
    assert any("1 of 6 questions have no prompt" in text for text in found.warnings)
    assert all("vaca" not in str(one.messages) for one in found.samples), "the student is asked without it"
    first = next(one for one in teacher.asked if "dog" in one.messages[-1].content)
    assert [one.content for one in first.messages[:3]] == [one["content"] for one in TASK], "as it was asked"

    words = ["compare", str(run), "--data", str(data), "--max-tokens", "4", "--prompted-base"]
    assert main([*words, "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "student − prompted base" in shown and "% fewer prompt tokens" in shown and "  prompted base " in shown
    assert found.prompted.headline.partition(";")[2] in Page(page.read_text()).text
    assert main(["compare", str(run), str(idle), *words[2:], "--html", str(page)]) == 0
    assert "% fewer prompt tokens" in capsys.readouterr().out and "prompted base: " in Page(page.read_text()).text


def test_a_base_is_asked_with_a_prompt_only_where_there_is_one(copycat, chats, tmp_path, manager):
    with pytest.raises(UsageError, match="has a prompt that only the teacher saw"):
        compare(copycat, [chats], manager, CompareSettings(prompted_base=True))
    broken = prompted(chats, tmp_path / "broken.jsonl")
    broken.write_text(broken.read_text().replace('"role": "system"', '"role": "king"', 1))
    found = compare(copycat, [broken], manager, CompareSettings(prompted_base=True, **QUICK))
    (skipped,) = found.skipped
    assert "`teacher_messages` of the metadata: message 0 has the unknown role 'king'" in skipped["reason"]


def test_a_judge_that_is_not_there_costs_nothing_but_its_judgement(copycat, chats, tmp_path, manager):
    run = tmp_path / "run"
    shutil.copytree(copycat, run)

    class Down:
        def ask(self, request):
            raise TeacherError("wrong key", fatal=True)

    named = NamedTeacher("down", None, "the test", NoOptions(), Down)
    found = compare(run, [chats], manager, CompareSettings(judge=named, **QUICK))
    assert found.verdict == "better" and found.judged is None
    assert any("othing was judged" in text and "wrong key" in text for text in found.warnings)


def test_what_cannot_be_used_is_named(copycat, tmp_path, manager):
    chats = [
        [("user", "Hi"), ("assistant", "hello")],
        [("user", "nobody answers")],
        [("user", "Hi"), ("assistant", " "), ("user", "So?"), ("assistant", "yes")],
        [("user", "one more"), ("assistant", "x")],
    ]
    data = write_chats(tmp_path / "held.jsonl", chats)
    cut = {"prompt": "x", "completion": "y", "metadata": {"finish_reason": "length"}}
    with open(data, "a", encoding="utf-8") as file:
        file.write(json.dumps(cut) + "\n")
    found = compare(copycat, [data], manager, CompareSettings(limit=5, **QUICK))
    reasons = {row["source"].rpartition(":")[2]: row["reason"] for row in found.skipped}
    assert reasons.keys() == {"2", "3", "5"}
    assert "no assistant message" in reasons["2"] and "message 1: the answer is empty" in reasons["3"]
    assert "cut" in reasons["5"]
    assert found.questions == 3 and found.conversations == 3
    json.loads(found.to_json())
    with pytest.raises(Exception, match=r"nothing to ask: .*:1: no assistant message"):
        compare(copycat, [write_chats(tmp_path / "none.jsonl", chats[1:2])], manager)


def test_questions_that_were_trained_on_are_told(copycat, tmp_path, manager):
    fresh = [("user", "What is new?"), ("assistant", "all")]
    known = [("system", "Be kind."), ("user", '  how do you say "DOG"  in Spanish? '), ("assistant", "can")]
    data = write_chats(tmp_path / "held.jsonl", [fresh, known])
    held, run = list(read_transcripts(data)), open_run(copycat)
    (warning,) = read_training_data(run, held, manager).leaks
    assert "1 of 2 held-out conversations begin with a prompt" in warning and f"{data}:2 as " in warning
    assert read_training_data(run, held[:1], manager).leaks == []
    for change, word in (({"file": str(tmp_path / "gone.jsonl")}, "is gone"), ({"sha256": "0"}, "has changed")):
        other = replace(run.manifest, data=(replace(run.data[0], **change),))
        (warning,) = read_training_data(Run(copycat, other), held, manager).leaks
        assert "is not known" in warning and word in warning


def test_held_out_conversations_of_the_run_are_the_default(copycat, chats, tmp_path, manager):
    run = tmp_path / "run"
    shutil.copytree(copycat, run)
    with pytest.raises(UsageError, match="no held-out conversations"):
        compare(run, [], manager)
    # Training left the fifth row of its file out, which is not a leak then.
    (run / "held_out.jsonl").write_text(Path(chats).read_text().splitlines()[4] + "\n")
    found = compare(run, [], manager, CompareSettings(**QUICK))
    assert found.questions == 1 and not any("begin with a prompt" in text for text in found.warnings)
    assert found.verdict == "no difference"  # one conversation cannot tell
    assert any("one conversation cannot tell" in text for text in found.reasons)


def test_weights_that_are_no_numbers_are_broken_and_json_stays_strict(copycat, chats, tmp_path, manager, capsys):
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    shutil.copytree(copycat, run)
    weights = load_file(run / "model" / "model.safetensors")
    name = next(name for name in weights if "ln_f" in name)
    save_file({**weights, name: weights[name] * float("nan")}, run / "model" / "model.safetensors", {"format": "pt"})
    assert main(["compare", str(run), "--data", str(chats), "--json", "--max-tokens", "4"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert found["verdict"] == "broken" and "not finite" in found["reasons"][0]
    assert "perplexity" not in next(one for one in found["standings"] if one["who"] == "student")["figures"]


@pytest.mark.parametrize(
    "words, says",
    [
        (["nowhere", "--data", "x"], "not a run folder"),
        (["{run}"], "trained without --hold-out"),
        (["{run}", "--data", "nowhere.jsonl"], "No such file"),
        (["{run}", "--data", "{chats}", "--base", "./nowhere"], "the base: no model at"),
        (["{run}", "--data", "{chats}", "-T", "a=b"], "goes with --teacher"),
        (["{run}", "--data", "{chats}", "-J", "a=b"], "goes with --judge"),
        (["{run}", "--data", "{chats}", "--judge", "opnai:x"], "unknown teacher"),
        (["{run}", "--data", "{chats}", "--html", "nowhere/x.html"], "there is no folder nowhere"),
    ],
)
def test_usage(copycat, chats, words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *(word.format(run=copycat, chats=chats) for word in words)]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err


def test_text_of_models_is_harmless_on_the_terminal(copycat, tmp_path, capsys):
    data = write_chats(tmp_path / "held.jsonl", [[("user", "\x1b[2J"), ("assistant", "\x1b]0;title\x07\u202e")]])
    main(["compare", str(copycat), "--data", str(data), "--max-tokens", "4"])
    captured = capsys.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(captured.out + captured.err)


def test_several_students_side_by_side(copycat, idle, chats, tmp_path, capsys, monkeypatch):
    from distill.comparison import evaluate

    measured = []

    def counting(model, *rest, measure=evaluate.measure):
        measured.append(model.name)
        return measure(model, *rest)

    monkeypatch.setattr(evaluate, "measure", counting)
    words = ["compare", str(idle), str(copycat), "--data", str(chats), "--max-tokens", "12"]
    page = tmp_path / "students.html"
    assert main([*words, "--html", str(page), "--fail-unless-better"]) == 3
    out = capsys.readouterr().out
    assert len(measured) == 3, "the base that both share is measured once"
    assert f"{copycat} against {idle}" in out and "learning-rate" in out and "no difference" in out
    assert "The same answer as the teacher" in Page(page.read_text()).text
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in found["comparisons"]] == ["no difference", "better"]
    (between,) = found["between"]
    changes = {one["metric"]: one for one in between["differences"]}
    assert changes["exact_match"]["change"]["value"] == 100 and changes["exact_match"]["outcome"] == "better"
    assert changes["perplexity"]["outcome"] == "better" and between["questions"] == 6
    assert found["settings"]["learning-rate"] == [0.0, 1e-2] and "out" not in found["settings"]


def test_the_run_s_report_shows_its_last_comparison(copycat, chats, tmp_path, manager):
    run = tmp_path / "run"
    shutil.copytree(copycat, run)
    found = compare(run, [chats], manager, CompareSettings(**QUICK))
    text = Page((run / "report.html").read_text()).text
    assert found.headline in text and found.summary in text
    assert sum(sample.reference in text for sample in found.samples) == 5, "the telling answers"
    assert json.loads((run / "comparison" / "comparison.json").read_text())["verdict"] == found.verdict
    for card in (run / "README.md", run / "model" / "README.md"):
        assert "| Exact match | 0.0 % " in card.read_text() and "Not compared yet" not in card.read_text()


def test_several_students_show_themselves(copycat, idle, chats, manager):
    found = compare_runs([copycat, idle], [chats], manager, CompareSettings(limit=2, **QUICK))
    assert list(found.to_pandas()["verdict"]) == [one.verdict for one in found.comparisons]
    shown = Page('<meta http-equiv="x">' + found._repr_html_()).text
    assert str(idle) in shown and "chrF" in shown and "learning-rate" in shown
    with pytest.raises(UsageError, match="is named twice"):
        compare_runs([idle, idle.parent / ".." / idle.parent.name / idle.name], [chats], manager)


def test_rows_with_logprobs_tell_the_divergence_from_the_teacher(manager, idle, chats, tmp_path):
    """A student that is its teacher has none, whoever wrote the answers; bits per byte are told beside it."""
    from distill.collection.score import score
    from distill.collection.settings import ScoreSettings

    scored = tmp_path / "scored.jsonl"
    score(chats, scored, ScoreSettings(f"transformers:{idle / 'model'}", logprobs=3), manager)
    found = figures(compare(idle, scored, manager, CompareSettings(max_tokens=4)), "student")
    assert abs(found["kl_to_teacher"]) < 1e-3 and found["bits_per_byte"] > 0
