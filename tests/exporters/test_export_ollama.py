"""`distill export --to ollama`: the template gives the student's very prompt, or there is none.

Go's own text/template (1.27) was run by hand on these templates and conversations: it printed the same.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export_gguf import make_student

from distill.cli.main import main
from distill.errors import DistillError
from distill.exporters import go_template
from distill.exporters.ollama import go_template_of
from distill.exporters.verify import prompts
from distill.testing.tokenizers import TOKENIZERS, byte_bpe

TEMPLATED = ("chatml", "llama3", "gemma", "unigram", "qwen3", "late-end")


def ask(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize("name", TEMPLATED)
def test_the_prompt_is_the_students(name):
    tokenizer = TOKENIZERS[name]()
    template, notes = go_template_of(tokenizer)
    for chat in (ask("a"), ask('{{ .X }} """ \\ `', "b", "c\r\n<|im_end|>"), ask("1", "2", "3", "4", "5")):
        wanted = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert go_template.run(template, chat) == wanted
    assert ("trims" in " ".join(notes)) == (name in ("llama3", "gemma"))
    assert ("no system message" in " ".join(notes)) == (name == "gemma")
    with pytest.raises(go_template.NoPlace, match="this student knows messages of"):
        go_template.run(template, [{"role": "tool", "content": "x"}])


def test_bos_is_left_out_where_it_is_put_before_the_prompt_anyway():
    tokenizer = TOKENIZERS["llama3"]()
    bos, chat = tokenizer.bos_token, ask("a", "b", "c")
    template, _ = go_template_of(tokenizer, bos)
    wanted = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert bos + go_template.run(template, chat) == wanted and wanted.count(bos) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}{{ m.content }}{{ eos_token }}{% endfor %}",  # numbers its messages
        "{% for m in messages %}{{ m.content | upper }}{{ eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{{ eos_token }}{% endfor %}",
        "{% if messages | length > 3 %}{{ 'long' }}{% endif %}{% for m in messages %}{{ m.content }}|{% endfor %}",
    ],
)
def test_formats_that_are_more_than_texts_around_messages_are_refused(template):
    with pytest.raises(DistillError, match="cannot be written in Ollama's language") as error:
        go_template_of(byte_bpe({"eos_token": "</s>"}, template=template))
    assert "--to gguf" in error.value.hint


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_text_prints_itself(text):
    written = go_template.literal(text)
    assert go_template.run(written, []) == text
    assert '"""' not in written and "\r" not in written


def test_the_modelfile(tmp_path, capsys):
    run, out = make_student("llama", tmp_path), tmp_path / "out"
    assert main(["export", str(run), "--to", "ollama", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "the template gives exactly the student's prompt for 10 conversations" in said
    lines = (out / "Modelfile").read_text().splitlines()
    assert [line for line in lines if line.startswith(("FROM", "PARAMETER"))] == [
        "FROM ./student-f16.gguf",
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1.0",
        "PARAMETER num_ctx 512",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["Modelfile", "student-f16.gguf"]
    assert len(prompts(TOKENIZERS["chatml"]())) == 10
