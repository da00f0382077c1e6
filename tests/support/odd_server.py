#!/usr/bin/env python3
"""An OpenAI-compatible server whose oddities were seen in public bug reports. Loopback only.

    python odd_server.py --port 8461 --log asked.jsonl        (prints PORT n)

A prompt says what it wants with [[NAME]] or [[NAME*TIMES]] (TIMES: only the first so many tries of that text; the
default is always). --all NAME gives every prompt that oddity. Every request is logged as one JSON line.
"""

import argparse
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ap = argparse.ArgumentParser()
ap.add_argument("--port", type=int, default=0)
ap.add_argument("--log", default="asked.jsonl")
ap.add_argument("--all", default="")
ap.add_argument("--delay", type=float, default=0.0)
ap.add_argument("--host", default="127.0.0.1")
a = ap.parse_args()
log = open(a.log, "a", buffering=1)  # noqa: SIM115 - the process ends with it
lock, tries = threading.Lock(), {}


def good(text="Perro.", finish="stop", message=None, choice=None, **top):
    said = {"role": "assistant", "content": text} | (message or {})
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "odd",
        "choices": [{"index": 0, "message": said, "finish_reason": finish} | (choice or {})],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    } | top


def err(message, **more):
    return {"error": {"message": message} | more}


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"q": "dog"}'}}
MAXTOK = err(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    type="invalid_request_error",
    param="max_tokens",
    code="unsupported_parameter",
)
HTML = ("text/html", b"<html><head><title>Just a moment</title></head><body>upstream is restarting</body></html>")

# name -> (status, body or (content type, bytes), headers)
KINDS = {
    "think-part": (
        200,
        good(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "A dog is perro."}]},
                {"type": "text", "text": "Perro."},
            ]
        ),
        {},
    ),
    "reasoning-details": (
        200,
        good(
            "Perro.",
            message={
                "reasoning": None,
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "A dog is perro.", "format": "x", "index": 0}
                ],
            },
        ),
        {},
    ),
    "finish-resource": (200, good("The Spanish word for dog is", "insufficient_system_resource"), {}),
    "finish-error": (
        200,
        good(
            "The Spanish word for dog is",
            "error",
            choice={
                "native_finish_reason": "error",
                "error": {"code": 502, "message": "Upstream idle timeout exceeded"},
            },
        ),
        {},
    ),
    "finish-error-bare": (200, good("The Spanish word for dog is", "error"), {}),
    "finish-abort": (200, good("The Spanish word for dog is", "abort"), {}),
    "finish-MAX_TOKENS": (200, good("The Spanish word for dog is", "MAX_TOKENS"), {}),
    "finish-max_tokens": (200, good("The Spanish word for dog is", "max_tokens"), {}),
    "finish-network_error": (200, good("The Spanish word for dog is", "network_error"), {}),
    "finish-null": (200, good("Perro.", None), {}),
    "finish-eos": (200, good("Perro.", "eos_token"), {}),
    "moderated": (
        403,
        err(
            "Your input was flagged",
            code=403,
            metadata={"reasons": ["violence"], "flagged_input": "x", "provider_name": "p"},
        ),
        {},
    ),
    "maxtok": (400, MAXTOK, {}),
    "html200": (200, HTML, {}),
    "groq498": (498, err("Flex tier capacity exceeded", type="capacity_exceeded"), {}),
    "tgi424": (424, {"error": "Request failed during generation: Server error", "error_type": "generation"}, {}),
    "usage-nulls": (
        200,
        good(
            usage={
                "prompt_tokens": 9,
                "completion_tokens": None,
                "total_tokens": None,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            }
        ),
        {},
    ),
    "think-open": (200, good("A dog is perro.\n</think>\n\nPerro."), {}),
    "think": (200, good("<think>\nA dog is perro.\n</think>\n\nPerro."), {}),
}


class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = {"_raw": raw[:200].decode("latin-1")}
        text = json.dumps(body.get("messages", body))
        with lock:
            tries[text] = n = tries.get(text, 0) + 1
            log.write(
                json.dumps(
                    {"t": round(time.time(), 3), "n": n, "path": self.path, "headers": dict(self.headers), "body": body}
                )
                + "\n"
            )
        if a.delay:
            time.sleep(a.delay)
        kind = a.all
        for name, times in re.findall(r"\[\[([\w-]+)(?:\*(\d+))?\]\]", text):
            if not times or n <= int(times):
                kind = name
        if kind == "maxtok" and "max_tokens" not in body:
            kind = ""
        status, answer, headers = KINDS[kind] if kind else (200, good("Perro. " + text[-40:]), {})
        ctype, data = answer if isinstance(answer, tuple) else ("application/json", json.dumps(answer).encode())
        self.send(status, ctype, data, headers)

    def send(self, status, ctype, data, headers):
        self.send_response(status)
        for k, v in {"Content-Type": ctype, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)


if ":" in a.host:
    import socket

    ThreadingHTTPServer.address_family = socket.AF_INET6
ThreadingHTTPServer.request_queue_size = 256
s = ThreadingHTTPServer((a.host, a.port), H)
print("PORT", s.server_address[1], flush=True)
s.serve_forever()
