"""A student's tokenizer, made ready for a chat format."""

from __future__ import annotations

import pytest

from distill import make_formatter
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing.tokenizers import TOKENIZERS


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("formatter", ["chat-template", "special-tokens"])
def test_every_student_pads_with_a_token_that_is_not_its_end_of_turn(name, formatter):
    """Those without unk and pad too: padding with no token would fail, padding with eos would unlearn it."""
    tokenizer = TOKENIZERS[name]()
    if tokenizer.eos_token is None or (formatter == "special-tokens" and tokenizer.bos_token is None):
        pytest.skip("the format needs bos and eos")
    encoder = prepare_tokenizer(tokenizer, make_formatter(formatter), formatter)
    pad = encoder.tokenizer.pad_token_id
    assert pad is not None and pad != encoder.stop_token_id()
    assert encoder.tokenizer.convert_ids_to_tokens(pad) == encoder.tokenizer.pad_token
