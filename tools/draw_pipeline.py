"""Draws README's picture: the way of a conversation, and which of its tokens are trained.

The tokens and labels are what `distill show` prints for this conversation and SmolLM2, not drawn by hand:

    python tools/draw_pipeline.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs/pictures/pipeline.svg"
CHAT = [
    ("system", "You translate."),
    ("user", 'How do you say "bird" in Spanish?'),
    ("assistant", "Pájaro."),
    ("user", "And in French?"),
    ("assistant", "Oiseau."),
]
STEPS = [  # (name, below it, whether it is a plugin)
    ("prompts", ".jsonl, .txt", False),
    ("teacher", "openai · anthropic\ntransformers · replay", True),
    ("transcripts", "one JSON line\na conversation", False),
    ("formatter", "chat-template\nspecial-tokens", True),
    ("labeler", "masked · copy · trl", True),
    ("trainer", "hf · trl", True),
    ("student", "a plain\ntransformers folder", False),
]
WIDTH, MARGIN, BOX, GAP = 880, 8, 102, 25
CHAR, ROW, TOP = 7.6, 30, 152  # of the tokens: the width of a character, of a line, and where they begin

STYLE = """
  text { font: 13px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .small { font-size: 11px } .small, .quiet { fill: #59636e } .name { font-weight: 600 }
  .token { font: 12.5px ui-monospace, SFMono-Regular, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
  .box { fill: #f6f8fa; stroke: #d1d9e0 } .plugin { fill: #ddf4ff; stroke: #54aeff }
  .chip { fill: #f0f2f5 } .control { fill: none; stroke: #c8d0d8 }
  .trained { fill: #aceebb } .trained.control { fill: #aceebb; stroke: #2da44e }
  .line { stroke: #8c959f; fill: none } .head { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small, .quiet { fill: #9198a1 }
    .box { fill: #151b23; stroke: #3d444d } .plugin { fill: #121d2f; stroke: #1f6feb }
    .chip { fill: #1c232d } .control { fill: none; stroke: #3d444d }
    .trained { fill: #1a5c30 } .trained.control { fill: #1a5c30; stroke: #3fb950 }
    .line { stroke: #656c76 } .head { fill: #656c76 }
  }
"""


def shown() -> dict:
    """The conversation's row, as `distill show --json` prints it."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "chat.jsonl"
        data.write_text(json.dumps({"messages": [{"role": role, "content": text} for role, text in CHAT]}))
        words = [sys.executable, "-m", "distill", "show", str(data), "--student", "smollm2", "--json"]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def lines_of(row: dict) -> list[list[tuple[str, bool]]]:
    """Tokens, and whether each is trained: a line a message."""
    lines: list[list[tuple[str, bool]]] = [[]]
    for token, label in zip(row["tokens"], row["labels"], strict=True):
        lines[-1].append((token, label != -100))
        if token == "\n" and len(lines[-1]) > 1 and lines[-1][-2][0] == "<|im_end|>":
            lines.append([])
    return [line for line in lines if line]


def pipeline() -> list[str]:
    """The boxes and arrows at the top."""
    parts = []
    for number, (name, below, plugin) in enumerate(STEPS):
        x = MARGIN + number * (BOX + GAP)
        middle = x + BOX / 2
        parts.append(
            f'<rect class="{"box plugin" if plugin else "box"}" x="{x}" y="8" width="{BOX}" height="34" rx="6"/>'
        )
        parts.append(f'<text class="name" x="{middle}" y="30" text-anchor="middle">{name}</text>')
        for line, text in enumerate(below.split("\n")):
            parts.append(f'<text class="small" x="{middle}" y="{60 + 15 * line}" text-anchor="middle">{text}</text>')
        if number:
            parts.append(f'<path class="line" d="M{x - GAP + 3} 25H{x - 7}"/>')
            parts.append(f'<path class="head" d="M{x - 3} 25l-6 -3.5v7z"/>')
    return parts


def tokens(lines: list[list[tuple[str, bool]]]) -> list[str]:
    """A chip a token, a line a message, with its role at the left."""
    parts = []
    for number, ((role, _), line) in enumerate(zip(CHAT, lines, strict=True)):
        y = TOP + number * ROW
        parts.append(f'<text class="small" x="{MARGIN}" y="{y + 15}">{role}</text>')
        x = MARGIN + 70.0
        for token, trained in line:
            text = token.replace("\n", "↵")
            control = token.startswith("<|")
            kinds = " ".join(["chip"] * (not control) + ["trained"] * trained + ["control"] * control)
            wide = len(text) * CHAR + 6
            parts.append(f'<rect class="{kinds}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="22" rx="4"/>')
            lead = len(text) - len(text.lstrip(" "))
            said = text.strip(" ")
            if said:
                quiet = "token" if trained else "token quiet"
                at, length = x + 3 + lead * CHAR, len(said) * CHAR
                parts.append(
                    f'<text class="{quiet}" x="{at:.1f}" y="{y + 15.5}" textLength="{length:.1f}" '
                    f'lengthAdjust="spacingAndGlyphs">{escape(said)}</text>'
                )
            x += wide + 2
    return parts


def legend(row: dict, y: float) -> list[str]:
    """What the colours mean."""
    count = f"{row['trained']} of {len(row['labels'])} tokens"
    texts = [("chip trained", f"trained: the answers and their end, {count}"), ("chip", "context, never trained")]
    texts.append(("control", "a control token: only the format writes it, never a text"))
    parts, x = [], MARGIN + 70.0
    for kind, text in texts:
        parts.append(f'<rect class="{kind}" x="{x:.0f}" y="{y}" width="16" height="14" rx="3"/>')
        parts.append(f'<text class="small" x="{x + 22:.0f}" y="{y + 11}">{text}</text>')
        x += 22 + len(text) * 5.2 + 24
    return parts


def draw() -> str:
    """The whole picture."""
    row = shown()
    lines = lines_of(row)
    height = TOP + len(lines) * ROW + 30
    labeler = MARGIN + 4 * (BOX + GAP) + BOX / 2
    parts = [
        *pipeline(),
        f'<path class="line" stroke-dasharray="2 4" d="M{labeler} 70V104H{MARGIN + 70}V{TOP - 12}"/>',
        f'<text class="quiet" x="{MARGIN + 82}" y="{TOP - 22}">what the trainer gets, as distill show prints it</text>',
        f'<rect class="plugin" x="{WIDTH - 152}" y="{TOP - 33}" width="16" height="14" rx="3"/>',
        f'<text class="small" x="{WIDTH - 130}" y="{TOP - 22}">a plugin, built-in or yours</text>',
        *tokens(lines),
        *legend(row, TOP + len(lines) * ROW + 8),
    ]
    title = "prompts, teacher, transcripts, formatter, labeler, trainer, student; below, the tokens that are trained"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 16} {height}" role="img" aria-label="{title}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
