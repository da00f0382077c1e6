"""The teacher's tokens laid over the student's, by the bytes of the answer.

Both tokenizations are cuts of one string of bytes. Where a cut of the teacher's is also one of the student's, the two
likelihoods up to there are of the same text. A student's token between two neighbouring common cuts is `EXACT` where
exactly one teacher token lies there too; several tokens on either side are a `CHUNK`, whose likelihoods are
comparable as a whole; everything else has no teacher (`NONE`). No token is ever matched by its index or its decoded
text, so that a file whose columns are off by one, or that belongs to another answer, has no common cuts to train on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NONE, EXACT, CHUNK = 0, 1, 2
"""How a student's token relates to the teacher's tokens."""

REPLACEMENT = "\ufffd".encode()
"""What servers write for a token that is a piece of a character (vLLM does, bytes and all)."""

_FRAME = 64
"""Bytes that a teacher may write around its reasoning and its answer, such as `<think>\\n` and `\\n</think>\\n\\n`."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A stretch of the student's text that stands in the teacher's: its start and end there, and how far to move it."""

    start: int
    end: int
    shift: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """What each of the student's tokens has of the teacher's.

    Attributes:
        kind: (tokens,) int8: `NONE`, `EXACT` or `CHUNK`.
        size: (tokens,) int16: at the last token of a chunk (of one token, where exact), its number of the student's
            tokens; else 0.
        logprob: (tokens,) float32: at the same places, the teacher's log-likelihood of the chunk; else NaN.
        place: (tokens,) int32: of an exact token, the teacher's token; else -1.
    """

    kind: np.ndarray
    size: np.ndarray
    logprob: np.ndarray
    place: np.ndarray


def no_alignment(count: int) -> Alignment:
    """No token has a teacher."""
    import numpy as np

    return Alignment(
        np.full(count, NONE, np.int8),
        np.zeros(count, np.int16),
        np.full(count, np.nan, np.float32),
        np.full(count, -1, np.int32),
    )


def align_same(logprobs: np.ndarray, start: int, count: int) -> Alignment:
    """The alignment where the teacher's tokens are the student's, one by one.

    Args:
        logprobs: (teacher's tokens,) their log probabilities; NaN where they are not known.
        start: the student's token that is the teacher's first.
        count: how many tokens the student has.
    """
    import numpy as np

    made = no_alignment(count)
    known = np.flatnonzero(~np.isnan(logprobs))
    made.kind[start + known], made.size[start + known] = EXACT, 1
    made.logprob[start + known], made.place[start + known] = logprobs[known], known
    return made


def align(teacher: Sequence[bytes], logprobs: np.ndarray, student: Sequence[bytes], zones: Sequence[Zone]) -> Alignment:
    """Lay a teacher's tokens over a student's.

    Args:
        teacher: the bytes of the teacher's tokens; an empty one belongs to the token after it.
        logprobs: (teacher's tokens,) their log probabilities; NaN where they are not known.
        student: the bytes of the student's tokens.
        zones: where the student's text stands in the teacher's, in order; in bytes.
    """
    import numpy as np

    made = no_alignment(len(student))
    sizes = np.fromiter(map(len, teacher), np.int64, len(teacher))
    ends = _ends_without_empty(sizes)
    known = np.nan_to_num(logprobs.astype(np.float64))
    total = np.concatenate([[0.0], np.cumsum(known)])
    unknown = np.concatenate([[0], np.cumsum(np.isnan(logprobs))])
    own_ends = np.cumsum(np.fromiter(map(len, student), np.int64, len(student)))
    own_starts = np.concatenate([[0], own_ends[:-1]])
    for zone in zones:
        first = int(own_starts.searchsorted(zone.start))
        last = int(own_ends.searchsorted(zone.end, side="right"))
        if first >= last:
            continue
        cuts = np.concatenate([own_starts[first : first + 1], own_ends[first:last]]) + zone.shift
        shared = np.isin(cuts, ends) | (cuts == 0)
        _lay(made, first, cuts, shared, ends, total, unknown)
    return made


def _lay(
    made: Alignment,
    first: int,
    cuts: np.ndarray,
    shared: np.ndarray,
    ends: np.ndarray,
    total: np.ndarray,
    unknown: np.ndarray,
) -> None:
    """Fill in one zone.

    Args:
        made: what is filled in.
        first: the zone's first token.
        cuts: where its tokens begin and end, in the teacher's bytes.
        shared: which of the cuts are the teacher's too.
        ends, total, unknown: of the teacher's tokens: where each ends, and the sums of the log probabilities that are
            known, and of those that are not, before each.
    """
    import numpy as np

    at = shared.nonzero()[0]
    if len(at) < 2:
        return
    number = ends.searchsorted(cuts[at], side="right")  # the teacher's tokens up to each common cut
    own, theirs = np.diff(at), np.diff(number)
    logprob = total[number[1:]] - total[number[:-1]]
    logprob[np.diff(unknown[number]) > 0] = np.nan
    exact, good = (own == 1) & (theirs == 1), theirs > 0
    stops = first + at[1:] - 1
    made.size[stops[good]] = own[good]
    made.logprob[stops[good]] = logprob[good]
    made.kind[stops[exact]] = EXACT
    made.place[stops[exact]] = number[:-1][exact]
    several = good & ~exact & ~np.isnan(logprob)
    for stop, size in zip(stops[several].tolist(), own[several].tolist(), strict=True):
        made.kind[stop - size + 1 : stop + 1] = CHUNK
    lost = good & ~exact & np.isnan(logprob)
    made.size[stops[lost]] = 0


def _ends_without_empty(sizes: np.ndarray) -> np.ndarray:
    """Where each token ends; one without bytes ends with the next that has some, or beyond all text."""
    import numpy as np

    ends = np.cumsum(sizes)
    empty = sizes == 0
    if not empty.any():
        return ends
    beyond = int(ends[-1]) + 1 if len(ends) else 1
    moved = np.where(empty, beyond, ends)
    return np.minimum.accumulate(moved[::-1])[::-1]


def find_zones(
    pieces: Sequence[tuple[str, bool]], teacher: bytes, *, reasoning: bytes = b"", calls: bool = False
) -> list[Zone] | None:
    """Find a student's rendering of an answer in what the teacher wrote.

    Args:
        pieces: the rendering in order: text, and whether a message wrote it (else the chat template did).
        teacher: all that the teacher wrote, its end-of-turn marker left out.
        reasoning: the message's reasoning, which the rendering may have left out.
        calls: whether the message has tool calls, which a template may write in another way.

    Returns:
        The stretches that were found; None: the answer is not what the teacher wrote.
    """
    whole = "".join(text for text, _ in pieces).encode()
    if whole.strip() and whole.strip() == teacher.strip():
        lead = len(whole) - len(whole.lstrip())
        return [Zone(lead, len(whole.rstrip()), (len(teacher) - len(teacher.lstrip())) - lead)]
    zones: list[Zone] = []
    at, cursor, lost = 0, 0, 0
    contents = [n for n, (text, content) in enumerate(pieces) if content and text.strip()]
    for n, (text, _) in enumerate(pieces):
        octets = text.encode()
        if n in contents:
            words = octets.strip()
            lead = octets.find(words)
            is_last = n == contents[-1] and not calls
            place = teacher.rfind(words, cursor) if is_last else teacher.find(words, cursor)
            if place < 0:
                if not calls:
                    return None
            else:
                lost = max(lost, place - cursor)
                zones.append(Zone(at + lead, at + lead + len(words), place - at - lead))
                cursor = place + len(words)
        at += len(octets)
    if not zones or (not calls and teacher[cursor:].strip()):
        return None
    first = teacher[: zones[0].start + zones[0].shift].strip()
    framed = not first or bool(reasoning) or first.startswith(b"<think>") or calls or len(zones) > 1
    return zones if framed and (calls or lost <= _FRAME + len(reasoning) + _thought(teacher)) else None


def _thought(teacher: bytes) -> int:
    """How long a `<think>…</think>` is that the message does not have."""
    return teacher.find(b"</think>") + len(b"</think>") if teacher.lstrip().startswith(b"<think>") else 0


def mend_pieces_of_characters(tokens: Sequence[bytes], text: bytes) -> list[bytes]:
    """Give tokens that a server wrote as U+FFFD the bytes that the answer has in their place.

    Which byte belongs to which of them is not known: the last of a run gets all, so that the run becomes one chunk.

    Args:
        tokens: the teacher's tokens, as the server gave their bytes.
        text: what they should give together, but for white space around it.

    Returns:
        The tokens; as they came where nothing is to be mended, or the text does not agree with them.
    """
    joined = b"".join(tokens)
    if REPLACEMENT not in joined or joined.strip() == text.strip():
        return list(tokens)
    mended, at, run = [], 0, 0
    solid = [token if REPLACEMENT not in token else None for token in tokens]
    for n, token in enumerate(solid):
        if token is None:
            run += 1
            mended.append(b"")
            continue
        place = text.find(token, at) if run else at
        if not text.startswith(token, place) or place < 0 or place - at > 4 * run:
            return list(tokens)
        if run:
            mended[n - 1] = text[at:place]
        mended.append(token)
        at, run = place + len(token), 0
    if run:
        mended[-1] = text[at:]
    return mended


def map_candidates(top_ids: np.ndarray, table: np.ndarray, logprobs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map candidates to the student's ids; what has none joins the rest, and what meets there is added up.

    Args:
        top_ids: (places, K) as rows keep them; -1 where there is none.
        table: the student's id of each, -1 for none.
        logprobs: (places, K).

    Returns:
        The student's ids and log probabilities, (places, K) each; -1 and NaN where there is none.
    """
    import numpy as np

    inside = (top_ids >= 0) & (top_ids < len(table))
    ids = np.where(inside, table[np.where(inside, top_ids, 0)] if len(table) else -1, -1).astype(np.int32)
    values = np.where(ids >= 0, logprobs, np.nan).astype(np.float32)
    ordered = np.sort(ids, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    for row in twice.nonzero()[0]:
        _add_up(ids[row], values[row])
    return ids, values


def _add_up(ids: Any, values: Any) -> None:
    """Add the probabilities of candidates with one id, in place."""
    import numpy as np

    first: dict[int, int] = {}
    for n, id in enumerate(ids.tolist()):
        if id < 0:
            continue
        if id in first:
            values[first[id]] = np.logaddexp(values[first[id]], values[n])
            ids[n], values[n] = -1, np.nan
        else:
            first[id] = n
