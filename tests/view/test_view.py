"""`distill view`: an index instead of a load, a server that answers nobody else, and pages that a browser can use."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from chromium import CHROMIUM, look
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import write_run

from distill.cli.main import main
from distill.dataset.settings import DataSettings
from distill.errors import UsageError
from distill.view.conditions import parse_condition
from distill.view.library import Library
from distill.view.rows import Query, RowFile
from distill.view.server import PER_PAGE, Viewer
from distill.view.tokens import Tokenizers

EVIL = "</div></style><script>document.title='owned'</script><img src=x onerror=alert(1)> \"'& {{ 7*7 }} \u202e"


def row(n: int, text: str = "", reason: str = "stop", **more) -> dict:
    messages = [{"role": "user", "content": f"question {n} {text}"}, {"role": "assistant", "content": f"answer {n}"}]
    return {"id": f"id{n}", "messages": messages, "metadata": {"finish_reason": reason}, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return path


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=20), end=st.booleans()
)
def test_every_line_is_found_by_its_number(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    content = b"\n".join(lines) + (b"\n" if end and lines else b"")
    path.write_bytes(content)
    file = RowFile(path)
    file.refresh()
    expected = content.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert [file.line(n).rstrip(b"\n") for n in range(len(file))] == expected


def test_a_file_that_grows_is_followed_and_one_that_was_replaced_is_read_anew(tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(0), row(1)])
    file = RowFile(path)
    file.refresh()
    with open(path, "a") as more:
        more.write(json.dumps(row(2)) + "\n" + '{"id": "half')
    file.refresh()
    assert len(file) == 4 and file.row(2)["id"] == "id2" and file.row(3) is None
    with open(path, "a") as more:
        more.write('"}\n')
    file.refresh()
    assert len(file) == 4 and file.row(3) == {"id": "half"}
    write(tmp_path / "other.jsonl", [row(9)]).replace(path)
    file.refresh()
    assert len(file) == 1 and file.row(0)["id"] == "id9"


def test_search_filter_and_order(tmp_path):
    rows = [
        row(0, "Ärger"),
        row(1, "x" * 500, "length"),
        row(2, 'a "quote"'),
        {"error": "no answer", "prompt": "Ärger"},
    ]
    file = RowFile(write(tmp_path / "rows.jsonl", rows))
    file.refresh()

    def found(**words) -> list[int]:
        return list(file.find(Query(**words)))

    assert found() == [0, 1, 2, 3]
    assert found(text="ärger") == [0, 3] and found(text='a "quote"') == [2] and found(text="nowhere") == []
    assert found(show="cut") == [1] and found(show="failed") == [3] and found(text="Ärger", show="failed") == [3]
    assert found(order="longest")[0] == 1 and found(order="shortest")[-1] == 1


LOGPROBS = [{"tokens": ["an", [32, 240], "swer"], "logprobs": [-0.01, -0.5, -3.0]}]


def test_rows_are_filtered_and_sorted_by_their_numbers(tmp_path):
    scored = [{**row(n), "metadata": {"score": score}} for n, score in enumerate((0.9, 0.1, "x", None, 0.5))]
    scored.append({**row(5), "metadata": {"logprobs": LOGPROBS, "usage": {"completion_tokens": 7}}})
    file = RowFile(write(tmp_path / "rows.jsonl", scored))
    file.refresh()

    def found(where: str, **words) -> list[int]:
        return list(file.find(Query(where=parse_condition(where), **words)))

    assert found("score<0.6") == [1, 4] and found("metadata.score >= 0.5") == [0, 4] and found("score = .1") == [1]
    assert found("score", order="lowest") == [1, 4, 0] and found("score", order="highest") == [0, 4, 1]
    assert found("logprob < -1") == [5] and found("logprob > -1") == [] and found("tokens > 6") == [5]
    assert found("usage.completion_tokens=7", text="question 5") == [5] and found("nowhere") == []
    assert found("", order="lowest") == list(range(6))
    for wrong in ("score <", "< 3", "score < x", "score << 3", "a b", "score < 1.2.3"):
        with pytest.raises(UsageError, match="is not a condition"):
            parse_condition(wrong)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=20))
def test_any_text_is_a_condition_or_refused(text):
    try:
        condition = parse_condition(text)
    except UsageError:
        return
    assert condition is None or condition.name.strip()


def test_a_million_rows_are_indexed_not_loaded(tmp_path):
    path = tmp_path / "many.jsonl"
    line = json.dumps(row(7)) + "\n"
    with open(path, "w") as file:
        for _ in range(100):
            file.write(line * 10_000)
    script = f"""
import resource, time
from distill.view.rows import RowFile, Query
import numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from pathlib import Path
file = RowFile(Path({str(path)!r}))
file.refresh()
assert len(file) == 1_000_000 and file.row(999_999)["id"] == "id7"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert int(told.stdout) < 100_000, "kilobytes; the file has 190 MB"


@contextmanager
def serving(root, tokenizers=None):
    """The address of a server, in a thread of its own."""
    from aiohttp import web

    viewer = Viewer(Library(root), tokenizers=tokenizers)
    started, loop = threading.Event(), asyncio.new_event_loop()
    runner = web.AppRunner(viewer.app(), access_log=None)
    found = []

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        started.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield found[0], f"{found[0]}/{viewer.token}/"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def get(url: str, **headers: str) -> tuple[int, str, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


@pytest.fixture
def folder(tmp_path):
    """A run that trains, a file of rows with hostile text, a comparison."""
    run = write_run(tmp_path / "run")
    write(run / "skipped.jsonl", [{"id": "1", "source": "a:1", "reason": EVIL}])
    write(
        tmp_path / "chats.jsonl", [row(0, EVIL, title=EVIL), *(row(n) for n in range(1, 120)), row(120, "", "length")]
    )
    (tmp_path / "secret.txt").write_text("secret")
    student = {"text": "perra", "exact": False, "chrf": 50.0, "stopped": False}
    exact = {"text": "gato", "exact": True, "chrf": 100.0, "stopped": True}
    samples = [
        {"source": f"held:{n}", "messages": [{"role": "user", "content": EVIL}], "reference": word, "answers": answers}
        for n, (word, answers) in enumerate([("gato", {"student": exact}), ("perro", {"student": student})])
    ]
    found = {"verdict": "better", "run": "run", "reasons": [EVIL], "samples": samples}
    (run / "comparison").mkdir()
    (run / "comparison" / "comparison.json").write_text(json.dumps(found))
    return tmp_path


def test_only_the_address_with_the_token_is_answered_and_only_here(folder):
    with serving(folder) as (server, home):
        status, page, headers = get(home)
        assert status == 200 and "chats.jsonl" in page and "secret" not in page
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and headers["Referrer-Policy"] == "no-referrer"
        for url in (server + "/", server + "/wrong/", home[:-3] + "/", server + "/wrong/rows/0"):
            assert get(url)[0] == 403
        assert get(home, Host="evil.example")[0] == 403, "another name for this machine"
        for path in ("rows/99", "rows/..%2f..%2fsecret.txt", "rows/-1", "run/0/../../secret.txt", "rows/0/99999", "x"):
            status, text, _ = get(home + path)
            assert status in (403, 404) and "secret" not in text, path
        assert get(home + "rows/0", Origin="http://evil.example")[2].get("Access-Control-Allow-Origin") is None


def links(page: str, kind: str) -> dict[str, str]:
    return {name: number for number, name in re.findall(rf'href="[^"]*/{kind}/(\d+)">([^<]*)</a>', page)}


def test_rows_runs_and_comparisons_are_shown_as_text(folder):
    with serving(folder) as (_, home):
        index = get(home)[1]
        number = links(index, "rows")["chats.jsonl"]
        status, page, _ = get(f"{home}rows/{number}")
        assert status == 200 and "121 rows" in page and "<img" not in page and "{{ 7*7 }}" in page
        assert page.count("question") >= PER_PAGE and "&amp;start=50" in page
        assert "121 to 121 of 121" not in page and "1 to 50 of 121" in page
        cut = get(f"{home}rows/{number}?show=cut")[1]
        assert "question 120" in cut and "question 5 " not in cut and "1 shown" in cut
        one = get(f"{home}rows/{number}/0?text=question&amp;show=all")[1]
        assert "answer 0" in one and 'rel="next"' in one and 'rel="prev"' not in one and "\\u202e" in one
        assert "<img" not in one and "owned" in one
        run = get(f"{home}run/{links(index, 'run')['run']}")[1]
        assert "the base" in run and "<svg" in run and "skipped.jsonl" in run and "setInterval" in run
        live = get(f"{home}run/{links(index, 'run')['run']}/live")[1]
        assert live.lstrip().startswith("<p") and "step 3 of 3" in live
        where = links(index, "comparison")["run/comparison/comparison.json"]
        differs = get(f"{home}comparison/{where}?show=differs")[1]
        assert "perro" in differs and "held:0" not in differs and "<ins>perra</ins>" in differs
        closest = get(f"{home}comparison/{where}?order=closest")[1]
        assert closest.index("held:0") < closest.index("held:1")
        far = get(f"{home}comparison/{where}?where=chrf+%3C+60")[1]
        assert "held:1" in far and "held:0" not in far and 'value="chrf &lt; 60"' in far
        status, refused, _ = get(f"{home}comparison/{where}?where=chrf+%3C")
        assert status == 400 and "write NAME &lt; NUMBER" not in refused and "write NAME < NUMBER" in refused


def test_a_comparison_of_several_students_has_everybodys_answers(tmp_path):
    answer = {"exact": False, "stopped": True, "chrf": 50.0}
    students = [
        {
            "run": name,
            "verdict": "better",
            "samples": [
                {
                    "source": "held:1",
                    "turn": 0,
                    "messages": [{"role": "user", "content": "dog?"}],
                    "reference": "perro",
                    "answers": {"student": {**answer, "text": word}, "base": {**answer, "text": "?"}},
                }
            ],
        }
        for name, word in (("run-a", "gato"), ("run-b", "perra"))
    ]
    (tmp_path / "comparison.json").write_text(json.dumps({"comparisons": students}))
    with serving(tmp_path) as (_, home):
        page = get(f"{home}comparison/0")[1]
    assert "2 students" in page and "<ins>gato</ins>" in page and "<ins>perra</ins>" in page and "run-b: better" in page


def test_rows_have_the_tokens_of_the_student_and_of_the_teacher(tmp_path, bloom, manager):
    inside = write_run(tmp_path / "run", student=str(bloom), labeler="masked", turns="all")
    write(inside / "held_out.jsonl", [{**row(0, EVIL), "metadata": {"finish_reason": "stop", "logprobs": LOGPROBS}}])
    write(tmp_path / "chats.jsonl", [row(1)])
    write(write_run(tmp_path / "gone", student="./nowhere") / "held_out.jsonl", [row(2)])
    with serving(tmp_path, Tokenizers(manager)) as (_, home):
        files = links(get(home)[1], "rows")
        page = get(f"{home}rows/{files['run/held_out.jsonl']}/0")[1]
        assert f"Tokens of {bloom}" in page and 'class="t"' in page and "<img" not in page
        assert 'title="log probability -3.000"' in page and 'class="p3"' in page and 'class="p0"' in page
        assert "Tokens of" not in get(f"{home}rows/{files['chats.jsonl']}/0")[1], "no student is named"
        gone = get(f"{home}rows/{files['gone/held_out.jsonl']}/0")[1]
        assert "no model at &#39;./nowhere&#39;" in gone and "question 2" in gone
    named = Tokenizers(manager, DataSettings(student=str(bloom), labeler="copy"))
    with serving(tmp_path, named) as (_, home):
        page = get(f"{home}rows/{links(get(home)[1], 'rows')['chats.jsonl']}/0")[1]
        assert "Tokens of" in page and "tokens trained" in page
    assert main(["view", str(tmp_path), "--labeler", "copy"]) == 2


def test_what_is_not_there_is_said(tmp_path, capsys):
    with pytest.raises(UsageError, match="nothing to look at"):
        Library(tmp_path)
    assert main(["view", str(tmp_path / "missing")]) == 2 and "does not exist" in capsys.readouterr().err


def test_the_command_prints_an_address_and_ends_with_ctrl_c(folder):
    words = [sys.executable, "-u", "-m", "distill", "view", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            home = process.stdout.readline().strip()
            assert get(home)[0] == 200
            process.send_signal(2)
            assert process.wait(60) == 130
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser_keys_lead_and_a_run_that_trains_is_followed(folder, tmp_path_factory):
    shots = tmp_path_factory.mktemp("shots")
    press = "setTimeout(() => dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'})), 50), 0"
    later = "new Promise(done => setTimeout(() => done(document.title), 1500))"
    sizes = [(1280, "light"), (375, "dark")]
    with serving(folder) as (_, home):
        index = get(home)[1]
        rows, run = links(index, "rows")["chats.jsonl"], links(index, "run")["run"]
        found = look(
            f"{home}rows/{rows}/0",
            ["document.title", "document.querySelectorAll('img').length", press, later],
            sizes,
            shots,
        )
        title, images, _, after = found["values"]
        assert title.startswith("row 1 of chats.jsonl") and images == 0 and found["complaints"] == []
        assert after.startswith("row 2 of chats.jsonl"), "the key went on"
        assert all(width <= size[0] for size, (width, _) in found["widths"].items())
        assert len({colour for _, colour in found["widths"].values()}) == 2
        growing = """new Promise(done => setTimeout(() => done(document.querySelector("#live p").textContent), 2600))"""
        with open(folder / "run" / "metrics.jsonl", "a") as file:
            threading.Timer(0.5, lambda: (file.write('{"step": 4, "loss": 0.5}\n'), file.flush())).start()
            found = look(f"{home}run/{run}", [growing], sizes, tmp_path_factory.mktemp("live"))
        assert "step 4" in found["values"][0] and found["complaints"] == []
