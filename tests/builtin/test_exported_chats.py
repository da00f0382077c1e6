"""Chats as other programs export them: joined, in order, with the ids and arguments of calls; results never trained."""

from __future__ import annotations

import json

import pytest

from distill import DataError, RefusedRow, make_plugin_manager
from distill.transcripts.reader import make_reader, read_transcripts

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
CALL = ("c1", "look", {"q": "dog"})


def chats(rows, tmp_path, suffix=".jsonl"):
    """The transcripts of a file of rows, detected and named alike."""
    path = tmp_path / f"export{suffix}"
    text = json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return list(read_transcripts(path, manager=MANAGER))


def said(chat):
    """A chat's messages: role and text, or the call."""
    found = []
    for message in chat.messages:
        for call in message.tool_calls:
            function = call["function"]
            found.append((call["id"], function["name"], json.loads(function["arguments"])))
        if message.content or not message.tool_calls:
            found.append((message.role, message.content))
    return found


TALK = [("user", "dog?"), CALL, ("tool", "perro"), ("assistant", "Perro."), ("user", "cat?"), ("assistant", "Gato.")]


def llm_log(number, prompt, response, **more):
    row = {"id": f"0{number}", "model": "gpt", "prompt": prompt, "system": None, "response": response}
    about = {"conversation_id": "A", "conversation_name": "animals", "datetime_utc": f"2026-01-0{number}"}
    return {**row, **about, "response_json": {"finish_reason": "stop"}, "tools": [], "attachments": [], **more}


def test_llm_logs_are_joined_by_conversation(tmp_path):
    calls = [{"tool_id": 1, "name": "look", "arguments": '{"q": "dog"}', "tool_call_id": "c1"}]
    results = [{"name": "look", "output": "perro", "tool_call_id": "c1"}]
    rows = [
        llm_log(3, "cat?", "Gato."),
        llm_log(1, "dog?", "", tool_calls=calls, tools=[{"name": "look", "input_schema": {"type": "object"}}]),
        llm_log(2, "", "Perro.", tool_results=results),
        llm_log(4, "bird?", "Pájaro.", conversation_id="B", system="Be brief."),
    ]
    first, second = chats(rows, tmp_path, ".json")
    assert (first.id, said(first)) == ("A", TALK)
    assert first.metadata == {"model": "gpt", "conversation_name": "animals", "finish_reason": "stop"}
    assert first.tools[0]["function"]["name"] == "look"
    assert said(second) == [("system", "Be brief."), ("user", "bird?"), ("assistant", "Pájaro.")]


def test_llm_logs_whose_prompts_are_not_whole_are_refused(tmp_path):
    with pytest.raises(RefusedRow, match="fragments"):
        chats([llm_log(1, "dog?", "Perro.", prompt_fragments=["x"])], tmp_path, ".json")
    cut = llm_log(1, "dog?", "The word", response_json={"finish_reason": "length"})
    (chat,) = chats([cut, llm_log(2, "cat?", "Gato.")], tmp_path, ".json")
    assert [message.train for message in chat.messages] == [True, False, True, True]


def gpt_node(name, parent, role, content, **more):
    message = {"id": name, "author": {"role": role, "name": more.pop("author", None)}, "content": content}
    return {name: {"id": name, "parent": parent, "children": [], "message": {**message, "recipient": "all", **more}}}


def text(value):
    return {"content_type": "text", "parts": [value]}


def gpt_export(*nodes, current):
    mapping = {"root": {"id": "root", "parent": None, "message": None}}
    for node in nodes:
        mapping.update(node)
    return {"title": "Animals", "mapping": mapping, "current_node": current, "conversation_id": "A"}


def test_of_a_chatgpt_export_the_shown_path_is_read(tmp_path):
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "A dog is perro."}]}
    row = gpt_export(
        gpt_node("s", "root", "system", text("")),
        gpt_node("1", "s", "user", text("dog?")),
        gpt_node("old", "1", "assistant", text("Chien.")),
        gpt_node("t", "1", "assistant", thoughts),
        gpt_node("c1", "t", "assistant", {"content_type": "code", "text": '{"q": "dog"}'}, recipient="look"),
        gpt_node("3", "c1", "tool", {"content_type": "execution_output", "text": "perro"}, author="look"),
        gpt_node("4", "3", "assistant", text("Perro."), metadata={"model_slug": "gpt-5"}),
        gpt_node("5", "4", "user", text("cat?")),
        gpt_node("6", "5", "assistant", text("Gato."), metadata={"finish_details": {"type": "stop"}}),
        current="6",
    )
    (chat,) = chats([row], tmp_path, ".json")
    assert (chat.id, said(chat)) == ("A", TALK)
    assert chat.messages[1].reasoning_content == "A dog is perro." and chat.messages[2].tool_call_id == "c1"
    assert chat.metadata["finish_reason"] == "stop" and chat.metadata["title"] == "Animals"


def test_a_chatgpt_chat_with_pictures_is_refused_and_the_others_are_read(tmp_path):
    picture = {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "What?"]}
    bad = gpt_export(gpt_node("1", "root", "user", picture), current="1")
    good = gpt_export(gpt_node("1", "root", "user", text("q")), gpt_node("2", "1", "assistant", text("a")), current="2")
    (tmp_path / "both.json").write_text(json.dumps([bad, good]))
    refused = []
    read = list(make_reader(None, MANAGER).transcripts(tmp_path / "both.json", refused.append))
    assert [said(chat) for chat in read] == [[("user", "q"), ("assistant", "a")]]
    assert "multimodal_text" in refused[0].reason
    with pytest.raises(DataError, match="missing or in a circle"):
        chats([gpt_export(gpt_node("1", "1", "user", text("q")), current="1")], tmp_path, ".json")


def test_a_claude_export(tmp_path):
    content = [
        {"type": "thinking", "thinking": "A dog is perro."},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "dog"}},
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "perro"}]},
        {"type": "text", "text": "Perro."},
    ]
    row = {
        "uuid": "A",
        "name": "Animals",
        "account": {"uuid": "u"},
        "chat_messages": [
            {"sender": "human", "text": "dog?", "content": [{"type": "text", "text": "dog?"}], "attachments": []},
            {"sender": "assistant", "text": "Perro.", "content": content},
            {"sender": "human", "text": "cat?"},
            {"sender": "assistant", "text": "Gato.", "content": []},
        ],
    }
    (chat,) = chats([row], tmp_path, ".json")
    assert (chat.id, said(chat), chat.metadata["title"]) == ("A", TALK, "Animals")
    assert chat.messages[1].reasoning_content == "A dog is perro." and chat.messages[2].tool_call_id == "c1"
    row["chat_messages"][0]["attachments"] = [{"file_name": "f.txt", "extracted_content": "perro = dog"}]
    (chat,) = chats([row], tmp_path, ".json")
    assert chat.messages[0].content == "f.txt:\nperro = dog\n\ndog?"
    row["chat_messages"][0]["attachments"] = []
    row["chat_messages"][0]["files"] = [{"file_name": "f.png"}]
    with pytest.raises(RefusedRow, match="files whose text is not in the export"):
        chats([row], tmp_path, ".json")


def code_event(uuid, parent, kind, content, message_id=None, **more):
    message = {"role": kind, "content": content}
    if kind == "assistant":
        message.update(id=message_id, model="claude", stop_reason=None)
    row = {"uuid": uuid, "parentUuid": parent, "type": kind, "sessionId": "A", "isSidechain": False}
    return {**row, "message": message, **more}


def test_a_session_of_claude_code(tmp_path):
    use = {"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "dog"}}
    rows = [
        {"type": "summary", "summary": "Animals", "leafUuid": "8"},
        code_event("1", None, "user", "dog?"),
        code_event("2", "1", "assistant", [{"type": "thinking", "thinking": "A dog is perro."}], "m1"),
        code_event("3", "2", "assistant", [use], "m1"),
        code_event("4", "3", "user", [{"type": "tool_result", "tool_use_id": "c1", "content": "perro"}]),
        code_event("5", "4", "assistant", [{"type": "text", "text": "Perro."}], "m2"),
        code_event("6", "5", "user", "bird?"),
        code_event("7", "6", "assistant", [{"type": "text", "text": "Pájaro."}], "m3"),
        code_event("8", "5", "user", "cat?"),  # the user went back
        code_event("9", "8", "assistant", [{"type": "text", "text": "Gato."}], "m4"),
        code_event("s1", None, "user", "sub", isSidechain=True, agentId="x"),
        code_event("s2", "s1", "assistant", [{"type": "text", "text": "done"}], "m5", isSidechain=True, agentId="x"),
    ]
    main, agent = chats(rows, tmp_path)
    assert (main.id, said(main)) == ("A", TALK) and main.messages[1].reasoning_content == "A dog is perro."
    assert (agent.id, said(agent)) == ("A:x", [("user", "sub"), ("assistant", "done")])
    rows[1]["message"]["content"] = [{"type": "image", "source": {}}]
    with pytest.raises(RefusedRow, match="images or documents"):
        chats(rows, tmp_path)


ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "dog?"}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "A dog is perro."}]},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"q": "dog"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "perro"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Perro."}]},
    {"role": "user", "content": "cat?"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Gato."}]},
]


def test_a_session_of_codex(tmp_path):
    events = [
        {"type": "session_meta", "payload": {"id": "A", "cwd": "/x", "base_instructions": {"text": "Be brief."}}},
        {"type": "turn_context", "payload": {"model": "gpt-5-codex"}},
        {"type": "event_msg", "payload": {"type": "user_message", "message": "dog?"}},
        *({"timestamp": "t", "type": "response_item", "payload": item} for item in ITEMS),
    ]
    (chat,) = chats(events, tmp_path)
    assert (chat.id, said(chat)) == ("A", [("system", "Be brief."), *TALK])
    assert chat.metadata == {"cwd": "/x", "model": "gpt-5-codex"}
    assert chat.messages[2].reasoning_content == "A dog is perro."


def test_a_compaction_of_codex_starts_a_new_conversation(tmp_path):
    def item(role, text):
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    def compacted(**payload):
        return {"type": "compacted", "payload": {"message": "They asked for animals.", **payload}}

    answered = [{"type": "response_item", "payload": item(*one)} for one in (("user", "cow?"), ("assistant", "Vaca."))]
    told = compacted(replacement_history=[item("user", "dog?"), item("user", "They asked for animals.")])
    hidden = compacted(replacement_history=[item("user", "dog?"), {"type": "compaction", "encrypted_content": "…"}])
    events = [{"type": "session_meta", "payload": {"id": "A"}}, *answered, told, *answered]
    first, second = chats(events, tmp_path)
    assert (first.id, second.id) == ("A", "A:2") and said(first) == [("user", "cow?"), ("assistant", "Vaca.")]
    assert [text for _, text in said(second)] == ["dog?", "They asked for animals.", "cow?", "Vaca."]
    assert str(second.source).endswith(":4")
    for unknown in (compacted(), hidden):
        refused = []
        file = tmp_path / "chats.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in [*events, unknown, *answered]))
        found = list(make_reader().transcripts(file, refused.append))
        assert [one.id for one in found] == ["A", "A:2"], "the rest of the file is read"
        assert len(refused) == 1 and "saw messages that the file does not hold" in refused[0].reason
    assert len(chats([*events, compacted()], tmp_path)) == 2, "nothing was answered after it"


def test_items_of_openais_agents(tmp_path):
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
    for rows in (
        [{"items": ITEMS, "tools": [tool]}],
        [{"input": ITEMS[:1], "output": ITEMS[1:], "tools": [tool]}],
        [{"messages": ITEMS, "tools": [tool]}],
    ):
        (chat,) = chats(rows, tmp_path)
        assert said(chat) == TALK and chat.messages[1].reasoning_content == "A dog is perro."
        assert chat.tools == ({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},)
    (chat,) = chats(ITEMS, tmp_path, ".json")
    assert said(chat) == TALK
    (chat,) = chats([{"instructions": "Be brief.", "input": "dog?", "output": ITEMS[4:5]}], tmp_path)
    assert said(chat) == [("system", "Be brief."), ("user", "dog?"), ("assistant", "Perro.")]
    with pytest.raises(DataError, match="item 0 is of the unknown type 'wish'"):
        chats([{"items": [{"type": "wish"}]}], tmp_path)


def lc(kind, **kwargs):
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": kwargs}


LANGCHAIN = [
    [
        {"type": "human", "data": {"content": "dog?"}},
        {"type": "ai", "data": {"content": "", "tool_calls": [{"name": "look", "args": {"q": "dog"}, "id": "c1"}]}},
        {"type": "tool", "data": {"content": "perro", "tool_call_id": "c1"}},
        {"type": "ai", "data": {"content": "Perro."}},
        {"type": "human", "data": {"content": "cat?"}},
        {"type": "ai", "data": {"content": "Gato.", "response_metadata": {"finish_reason": "stop"}}},
    ],
    [
        lc("HumanMessage", content="dog?"),
        lc("AIMessage", content="", tool_calls=[{"name": "look", "args": {"q": "dog"}, "id": "c1"}]),
        lc("ToolMessage", content="perro", tool_call_id="c1"),
        lc("AIMessageChunk", content="Perro."),
        lc("HumanMessage", content="cat?"),
        lc("AIMessage", content="Gato.", response_metadata={"finish_reason": "stop"}),
    ],
]


@pytest.mark.parametrize("messages", LANGCHAIN)
def test_messages_of_langchain(messages, tmp_path):
    for rows, suffix in (([{"messages": messages}], ".jsonl"), (messages, ".json")):
        (chat,) = chats(rows, tmp_path, suffix)
        assert said(chat) == TALK and chat.metadata["finish_reason"] == "stop"
        assert chat.messages[2].tool_call_id == "c1"
    (chat,) = chats([{"messages": [one.get("data", {}) | {"type": one["type"]} for one in LANGCHAIN[0]]}], tmp_path)
    assert said(chat) == TALK
    with pytest.raises(DataError, match="message 1 is no message of LangChain"):
        chats([{"messages": [messages[0], {"x": 1}]}], tmp_path)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("llm-logs", {"prompt": "q"}),
        ("codex", {"type": "message"}),
        ("claude-code", {"type": "user"}),
    ],
)
def test_a_part_of_a_session_is_no_conversation(name, row):
    with pytest.raises(DataError):
        list(read_transcripts([{**row, "other": 1}], name, MANAGER))


def test_results_of_tools_are_never_trained(bloom, tmp_path):
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.preview import show_data
    from distill.dataset.settings import DataSettings

    pipeline = make_pipeline(DataSettings(str(bloom)), MANAGER)
    (row,) = show_data([{"items": ITEMS[4:]}], pipeline)
    assert row.trained
    rows = show_data([{"items": ITEMS}], make_pipeline(DataSettings(str(bloom)), MANAGER))
    for row in rows:
        trained = [place.role for place, label in zip(row.places, row.labels, strict=True) if label != -100]
        assert set(trained) <= {"assistant", None}
