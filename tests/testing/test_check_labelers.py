"""`check_labeler` lets the good ones pass, and names what each bad one does."""

from __future__ import annotations

import pytest

from distill import IGNORE_INDEX
from distill.testing import check_labeler, labeler_checks, run_checks


class Good:
    def label(self, encoded):
        marks = zip(encoded.input_ids, encoded.assistant_mask, strict=True)
        return [token if wrote else IGNORE_INDEX for token, wrote in marks]


class Short(Good):
    def label(self, encoded):
        return super().label(encoded)[1:]


class Text(Good):
    def label(self, encoded):
        return "labels"


class Shifted(Good):
    def label(self, encoded):
        labels = super().label(encoded)
        return [*labels[1:], IGNORE_INDEX]


class Nothing(Good):
    def label(self, encoded):
        return [IGNORE_INDEX] * len(encoded.input_ids)


class Everything(Good):
    def label(self, encoded):
        return list(encoded.input_ids)


class NoEnd(Good):
    def label(self, encoded):
        marks = zip(super().label(encoded), encoded.end_of_turn, strict=True)
        return [IGNORE_INDEX if end else label for label, end in marks]


class InPlace(Good):
    def label(self, encoded):
        encoded.input_ids[:] = super().label(encoded)
        return encoded.input_ids


class Collates(Good):
    def collator(self, pad_token_id):
        from distill import pad_batch

        return lambda rows: pad_batch([{**row, "labels": row["input_ids"]} for row in rows], pad_token_id)


BAD = {
    Short: "return a list with one label per token",
    Text: "label() gave a str for",
    Shifted: "labels are not shifted",
    Nothing: "such a row is skipped",
    Everything: "trains_prompt=True",
    NoEnd: "the student never stops",
    InPlace: "label() changes the lists it is given",
    Collates: "but label() shows",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_labeler_is_told_what_and_where(bad):
    with pytest.raises(AssertionError) as caught:
        check_labeler(lambda encoder: bad())
    assert BAD[bad] in str(caught.value)
    assert "conversation" in str(caught.value) or "format" in str(caught.value)


@pytest.mark.parametrize("name", ["masked", "copy", "trl"])
def test_the_built_in_ones_keep_their_contract(manager, name):
    check_labeler(lambda encoder: manager.labelers.build(name, {}, encoder), trains_prompt=name != "masked")


def test_what_is_meant_passes_and_what_may_be_is_noted():
    check_labeler(lambda encoder: NoEnd(), trains_end=False)
    statuses = {outcome.check: outcome.status for outcome in run_checks(labeler_checks(lambda encoder: Everything()))}
    assert statuses["only what the assistant wrote is trained"] == "noted"
    assert "failed" not in statuses.values()
