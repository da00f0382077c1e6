"""Requests and tokens a minute, fewer at a time after a 429, a budget that holds, and what it all costs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import termios
import time
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.collection import CollectSettings, collect
from distill.collection.asking import WINDOW, by_length
from distill.collection.budget import Meter, OutOfMoney, Price, find_price, parse_price, size_of
from distill.collection.rate_limit import Pace, Throttle
from distill.collection.row_id import IdSet
from distill.errors import TeacherError, UsageError
from distill.testing import FaultyServer, Reply, completion
from distill.types import Answer, Message, Params, Request


def request(text="hello", **params):
    return Request((Message("user", text),), params=Params(**params))


def answer(sent=10, answered=20):
    usage = {"prompt_tokens": sent, "completion_tokens": answered}
    return Answer(Message("assistant", "x"), usage=usage)


def test_pace_spreads_evenly_and_takes_back():
    pace = Pace(60)
    pace.take(1, 100.0)
    pace.take(2, 100.0)
    assert pace.next == 103.0
    pace.correct(-1)
    assert pace.next == 102.0
    pace.take(1, 200.0)
    assert pace.next == 201.0


def test_requests_a_minute(ask):
    ran, _ = ask((), "--rpm", 1200, count=20)
    assert ran.code == 0 and ran.summary["seconds"] >= 19 * 60 / 1200


def test_tokens_a_minute(ask):
    """Five tokens an answer, as the server counts them: twelve requests may not be quicker than eleven times that."""
    ran, _ = ask((), "--tpm", 3000, "--max-tokens", 2, "--concurrency", 2, count=12)
    assert ran.code == 0 and ran.summary["seconds"] >= 11 * 5 * 60 / 3000


def test_tokens_are_corrected_where_the_answer_tells_them():
    async def run(outcome):
        throttle = Throttle(1, Meter(), tpm=60_000_000)
        ticket = await throttle.enter([request()])
        before = throttle._tpm.next
        throttle.leave(ticket, [request()], [outcome])
        return ticket.tokens, round((throttle._tpm.next - before) * 1e6)

    guess, change = asyncio.run(run(answer(1000, 500)))
    assert change == 1500 - guess
    assert asyncio.run(run(Answer(Message("assistant", "x")))) == (guess, 0), "it stays as it was reckoned"
    assert asyncio.run(run(TeacherError("429", throttled=True))) == (guess, -guess)


def test_fewer_at_a_time_after_a_429_and_more_again():
    async def run():
        throttle = Throttle(8, Meter())
        tickets = [await throttle.enter([request()]) for _ in range(8)]
        ninth = asyncio.ensure_future(throttle.enter([request()]))
        await asyncio.sleep(0)
        assert not ninth.done()
        refused = TeacherError("slow", retryable=True, throttled=True)
        for ticket in tickets:
            throttle.leave(ticket, [request()], [refused])
        assert throttle._limit == pytest.approx(8 * 0.7), "one wave of refusals counts once"
        ticket = await ninth
        limit = throttle._limit
        throttle.leave(ticket, [request()], [answer()])
        assert throttle._limit > limit
        for _ in range(200):
            throttle.leave(await throttle.enter([request()]), [request()], [answer()])
        assert throttle._limit == 8

    asyncio.run(run())


def test_a_closed_door_wakes_all_who_wait():
    async def run():
        throttle = Throttle(1, Meter())
        await throttle.enter([request()])
        waiting = [asyncio.ensure_future(throttle.enter([request()])) for _ in range(5)]
        await asyncio.sleep(0)
        throttle.close()
        assert await asyncio.gather(*waiting) == [None] * 5
        held = Throttle(1, Meter(), rpm=0.001)
        await held.enter([request()])
        assert held.held is False
        held.hold(1000)
        assert held.held

    asyncio.run(run())


def test_at_a_hundred_a_second_three_hundred_prompts_are_three_hundred_rows(ask):
    """A bucket of ten that fills at 100 a second, and 429 without a word about when to come again."""
    state = {"level": 10.0, "at": 0.0}

    def script(asked):
        state["level"] = min(10.0, state["level"] + (asked.at - state["at"]) * 100)
        state["at"] = asked.at
        if state["level"] < 1:
            return Reply({"error": {"message": "rate"}}, 429)
        state["level"] -= 1
        return None

    ran, _ = ask(script, "--concurrency", 32, count=300)
    assert ran.code == 0, ran.err
    assert ran.summary["rows"] == 300


def test_a_budget_holds_while_many_are_in_flight(ask, out, read):
    """Each answer is as long as it may be: dollars paid stay below the budget, whatever the order."""
    body = completion("x") | {"usage": {"prompt_tokens": 30, "completion_tokens": 100}}
    words = ["--max-tokens", 100, "--price", "10/20", "--max-usd", 0.1, "--concurrency", 16]
    ran, server = ask(lambda asked: Reply(body, delay=0.02), *words, count=100)
    paid = len(server.asked) * (30 * 10 + 100 * 20) / 1e6
    assert paid <= 0.1
    assert ran.code == 1 and ran.summary["usd"] == pytest.approx(paid)
    assert ran.summary["rows"] == len(server.asked) == len(read(out)) >= 40
    assert ran.summary["left"] == 100 - ran.summary["rows"]
    assert ran.summary["stopped"] == "the budget of $0.1 is used up"


def test_the_next_run_has_a_budget_of_its_own(ask, cli, out, read):
    words = ["--max-tokens", 2, "--price", "1000/1000", "--max-usd", 0.1]
    total = 0
    for _ in range(8):
        ran, server = ask((), *words, count=20)
        total += len(server.asked)
        if ran.code == 0:
            break
    assert ran.code == 0 and total == 20 == len(read(out))


def test_a_budget_needs_a_price(ask):
    ran, server = ask((), "--max-usd", 1)
    assert ran.code == 2 and "--price" in ran.err and not server.asked


@pytest.mark.parametrize("price", ["1", "1/2/3", "a/b", "-1/2", "nan/1", "inf/1", "/"])
def test_a_malformed_price(ask, price):
    ran, server = ask((), "--price", price)
    assert ran.code == 2 and "IN/OUT" in ran.err and not server.asked


def test_what_breaks_is_counted_at_its_most():
    price = Price(1e6, 1e6, 0.5e6)  # a dollar a token
    meter = Meter(price, 1000, 10)
    most = meter.reserve([request()])
    assert most == [size_of(request().messages) + 16 + 10]
    meter.settle([request()], most, [TeacherError("timeout", maybe_paid=True)])
    assert meter.usd == most[0]
    meter.settle([request()], meter.reserve([request()]), [TeacherError("429", retryable=True)])
    assert meter.usd == most[0]
    meter.settle([request()], meter.reserve([request()]), [Answer(Message("assistant", "x"))])
    assert meter.usd == 2 * most[0], "an answer that does not say its tokens"
    meter.settle([request()], meter.reserve([request()]), [answer(3, 4)])
    assert meter.usd == 2 * most[0] + 7
    assert meter.reserve([request()] * 50) is None


def test_nothing_fits_and_nothing_is_in_flight():
    async def run():
        throttle = Throttle(4, Meter(Price(1e6, 1e6, 1e6), 5, 10))
        with pytest.raises(OutOfMoney, match=r"\$5"):
            await throttle.enter([request()])

    asyncio.run(run())


def test_cached_tokens_are_cheaper():
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}
    assert Price(1.0, 10.0, 0.1).of(usage) == pytest.approx((40 + 100 + 6) / 1e6)
    assert Price(1.0, 10.0, 0.1).of({}) is None
    assert parse_price("0.25/2") == Price(0.25, 2.0, 0.25)


def test_published_prices():
    known = find_price("https://api.openai.com/v1", "gpt-5-mini")
    assert 0 < known.cached < known.input < known.output < 100
    assert find_price("https://api.openai.com/v1", "no-such-model") is None
    assert find_price("https://llm.example.com/v1", "gpt-5-mini") is None
    for private in ("http://localhost:8000/v1", "http://127.0.0.1/v1", "http://gpu7:8000/v1", "http://[::1]/v1"):
        assert find_price(private, "gpt-5-mini") is None


def test_a_dry_run_asks_and_writes_nothing(cli, prompts, out, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    words = ["collect", prompts(["a" * 400, "b" * 400]), "--teacher", "openai:m", "--out", out, "--dry-run"]
    ran = cli(*words, "--max-tokens", 50, "--price", "1/2", "--samples", 2, "--json")
    assert ran.code == 0, ran.err
    told = ran.summary
    assert (told["rows"], told["requests"], told["cached"], told["duplicates"]) == (4, 4, 0, 0)
    assert told["tokens_in"] == 4 * 108 and told["tokens_out"] == 200
    assert told["usd"] == pytest.approx((432 + 400) / 1e6, abs=1e-6) and told["usd_at_most"] > told["usd"]
    assert not out.exists()
    ran = cli(*words)
    assert ran.code == 0 and "a guess" in ran.out and "no price is known" in ran.out


def test_a_dry_run_knows_what_is_there(cli, prompts, out, server):
    words = ["collect", "--teacher", "openai:m", "--base-url", server.url, "--out", out, "--json"]
    assert cli(*words, prompts(10)).code == 0
    with out.open("ab") as file:
        file.write(b'{"id": "torn')
    before = out.read_bytes()
    rows = [*({"prompt": f"prompt {n}"} for n in range(12)), {"turns": ["a", "b", "c"]}, {"prompt": "prompt 1"}]
    told = cli(*words, prompts(rows), "--dry-run").summary
    assert (told["rows"], told["cached"], told["duplicates"], told["requests"]) == (3, 10, 1, 5)
    assert told["tokens_out"] == 5 * 2 and "10 answers" in told["basis"] and told["usd"] is None
    assert out.read_bytes() == before and len(server.asked) == 10
    ran = cli(*words, prompts(10), "--dry-run", "--temperature", 1)
    assert ran.code == 2 and "temperature" in ran.err


@pytest.mark.parametrize("name", ["rpm", "tpm", "max_usd"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_that_do_not_fit(name, value):
    with pytest.raises(UsageError, match="must be above 0"):
        CollectSettings("m", **{name: value})


def test_the_live_line_is_for_terminals(spawn, prompts, out, server):
    """On a terminal it tells rows, requests a second and dollars; elsewhere there is none."""
    words = ["collect", prompts(30), "--teacher", "openai:m", "--base-url", server.url, "--price", "1/2"]
    _, err = spawn(*words, "--out", out).communicate(timeout=30)
    assert "30 written" in err and "row/s" not in err and "%" not in err
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = spawn(*words, "--out", f"{out}2", stderr=other)
    os.close(other)
    shown = b""
    with suppress(OSError):  # the end of a terminal's other side
        while piece := os.read(main, 1 << 16):
            shown += piece
    os.close(main)
    assert process.wait(30) == 0
    text = shown.decode()
    assert "30/30" in text and "requests/s" in text and "tokens/s" in text and "$0.0002 of about $0.0002" in text


def test_twenty_failures_before_a_first_row_stop_the_run(ask):
    """There is still money to save."""
    ran, server = ask(lambda asked: Reply(completion("")), "--concurrency", 1, count=300)
    assert ran.code == 1 and "20 rows in a row met the same refusal: the answer is empty" in ran.err
    assert len(server.asked) == 20


def test_rows_are_on_disk_while_others_hang(spawn, prompts, out, read):
    with FaultyServer(lambda asked: Reply(hang=True) if asked.text == "prompt 0" else None) as server:
        spawn("collect", prompts(9), "--teacher", "openai:m", "--base-url", server.url, "--out", out)
        server.wait_for(9)
        end = time.monotonic() + 20
        while len(read(out)) < 8:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_batches_are_of_one_length():
    class Job:
        def __init__(self, length):
            self.messages = (Message("user", "x" * length),)

    jobs = [Job(length) for length in (3, 1, 2, 9, 8, 7)] + [None]
    ordered = [job and len(job.messages[0].content) for job in by_length(jobs, 2)]
    assert ordered == [9, 8, 7, 3, 2, 1, None]
    read = []

    def lazily():
        for n in range(1000):
            read.append(n)
            yield Job(n)

    next(by_length(lazily(), 2))
    assert len(read) == 2 * WINDOW


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_a_set_of_ids_is_a_set(added, others):
    mine, own = IdSet(), set()
    for id in added:
        assert mine.add(id) is (id not in own)
        own.add(id)
    assert len(mine) == len(own)
    assert all((id in mine) is (id in own) for id in [*added, *others])


def test_a_set_of_ids_grows():
    ids = IdSet()
    assert all(ids.add(f"{n}") for n in range(5000)) and len(ids) == 5000
    assert not any(ids.add(f"{n}") for n in range(5000)) and "5000" not in ids


def test_the_library_takes_the_same_limits(prompts, out, server):
    settings = CollectSettings("openai:m", base_url=server.url, rpm=6000, tpm=1e9, max_usd=1, price="1/1")
    summary = collect(prompts(3), out, settings)
    assert summary.rows == 3 and summary.usd == pytest.approx(15e-6)
    assert json.loads(out.read_text().splitlines()[0])["id"]


def test_a_budget_over_several_runs(ask, out):
    """Each answer costs $0.005; what earlier runs spent, failed rows included, counts."""
    words = ["--max-tokens", 2, "--price", "1000/1000", "--max-usd-total", 0.2, "--concurrency", 1]
    refused = completion(None, refusal="no")
    script = lambda asked: Reply(refused) if asked.text == "prompt 3" else None  # noqa: E731
    first, _ = ask(script, *words, "--limit", 10, count=100)
    assert (first.summary["rows"], first.summary["failed"]) == (9, 1)
    second, _ = ask([], *words, count=100)
    assert second.code == 1 and "earlier ones spent $0.0500" in second.summary["stopped"]
    assert 0.1 < first.summary["usd"] + second.summary["usd"] <= 0.2
    third, _ = ask([], *words, count=100)
    assert third.code == 1 and third.summary["requests"] <= 1


def test_a_server_that_ignores_the_token_limit_is_learnt(ask):
    """The longest answer so far is what the next ones may cost."""
    long = completion("x" * 100)
    long["usage"] = {"prompt_tokens": 3, "completion_tokens": 20}
    words = ["--max-tokens", 2, "--price", "0/1000", "--max-usd", 0.1, "--concurrency", 1]
    ran, _ = ask(lambda asked: Reply(long), *words, count=100)
    assert ran.code == 1 and "is used up" in ran.summary["stopped"]
    assert ran.summary["usd"] <= 0.1


@pytest.mark.parametrize("seed", range(20))
def test_random_runs_with_dishonest_servers_keep_the_budget(seed):
    """64 in flight, answers many times the limit: as long as none is twice the longest before it, the budget holds."""
    random = Random(seed)
    for _ in range(50):
        price, limit, budget = Price(0.0, 1000.0, 0.0), random.randint(1, 50), random.uniform(0.5, 20)
        longest = random.randint(1, 500)
        meter, flying = Meter(price, budget, limit), []
        request = Request((Message("user", "x"),), params=Params(max_tokens=limit))
        for _ in range(400):
            most = meter.reserve([request]) if len(flying) < 64 else None
            if most is not None:
                flying.append(most)
            elif not flying:
                break
            if flying and (most is None or random.random() < 0.3):
                tokens = random.randint(longest // 2 + 1, longest)
                answer = Answer(Message("assistant", "x"), usage={"prompt_tokens": 1, "completion_tokens": tokens})
                meter.settle([request], flying.pop(random.randrange(len(flying))), [answer])
        first = price.for_tokens(0, longest)
        assert meter.spent <= max(budget, first)


def test_the_pace_recovers_as_fast_as_it_fell(ask):
    """A 429 for every prompt's first try must not make the run serial."""
    refused = set()

    def script(asked):
        if asked.text in refused:
            return Reply(completion("fine"), delay=0.05)
        refused.add(asked.text)
        return Reply("", 429, {"Retry-After": "0.01"})

    began = time.monotonic()
    ran, _ = ask(script, "--concurrency", 16, count=160)
    assert ran.code == 0 and ran.summary["rows"] == 160
    assert time.monotonic() - began < 160 * 0.05, "serial"
