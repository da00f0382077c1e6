"""Trees become the conversation that was ranked best."""

import distill_oasst
import pytest

import distill
from distill.testing import check_dialect

TREE = {
    "message_tree_id": "t1",
    "tree_state": "ready_for_export",
    "prompt": {
        "role": "prompter",
        "text": "dog?",
        "lang": "en",
        "replies": [
            {"role": "assistant", "text": "Chien.", "rank": 1, "replies": []},
            {"role": "assistant", "text": "Perro.", "rank": 0, "replies": [{"role": "prompter", "text": "Thanks."}]},
            {"role": "assistant", "text": "spam", "rank": 0, "deleted": True},
        ],
    },
}


@pytest.fixture
def manager():
    made = distill.make_plugin_manager(files=[distill_oasst.__file__], environ={"DISTILL_PLUGINS": ""})
    assert not made.failed()
    return made


def test_it_keeps_the_contract_of_data_formats(manager):
    check_dialect(manager.dialects.get("oasst"), [TREE])


def test_the_best_conversation_is_read(manager):
    (chat,) = distill.read_transcripts([TREE], manager=manager)
    assert [(message.role, message.content) for message in chat.messages] == [("user", "dog?"), ("assistant", "Perro.")]
    assert (chat.id, chat.metadata) == ("t1", {"lang": "en"})


def test_a_written_tree_reads_back(manager):
    (chat,) = distill.read_transcripts([TREE], manager=manager)
    (again,) = distill.read_transcripts([distill_oasst.write(chat)], manager=manager)
    assert (again.id, again.messages) == (chat.id, chat.messages)
    with pytest.raises(distill.DataError, match="only texts"):
        distill_oasst.write(distill.Transcript("t", (distill.Message("system", "s"),)))


def test_a_prompt_without_an_answer_is_refused(manager):
    with pytest.raises(distill.RefusedRow, match="nobody answered"):
        list(distill.read_transcripts([{**TREE, "prompt": {"role": "prompter", "text": "dog?"}}], manager=manager))
