"""`distill export --to gguf`: the file is the student, or there is no file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from run_folders import write_run

from distill.cli.main import main
from distill.errors import DistillError
from distill.exporters import export
from distill.exporters import verify as proof
from distill.exporters.gguf_file import write_gguf_file
from distill.exporters.llama_cpp import convert_with_llama_cpp
from distill.exporters.vocabulary import read_vocabulary
from distill.models.gguf_tokenizer import PRE_TOKENIZERS
from distill.models.load import load_tokenizer
from distill.models.references import ModelRef

# Each architecture, each pre-tokenizer that has a name.
KINDS = {"llama": "gpt-2", "qwen2": "qwen2", "qwen3": "llama-bpe", "bloom": "bloom", "gpt2": "smollm"}


def tokenizer_of(pre: str, template: str | None = None):
    """A byte-level BPE that cuts text as llama.cpp does under that name, bos first as Llama's where it is Llama's."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    from distill.testing.tokenizers import CHATML, LLAMA3, byte_bpe

    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    source = json.loads(byte_bpe(special, vocab_size=400).backend_tokenizer.to_str())
    source["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*PRE_TOKENIZERS[pre]]}
    source["model"]["ignore_merges"] = pre == "llama-bpe"
    template = template or (CHATML if pre != "llama-bpe" else LLAMA3.replace("<|eot_id|>", "<|im_end|>"))
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(source)), chat_template=template, **special
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return made


def make_student(kind: str, folder: Path, rows: int = 3, **config) -> Path:
    """A tiny random student of an architecture, in a run folder as training leaves it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from distill.models.special_tokens import set_special_ids

    tokenizer = tokenizer_of(KINDS[kind])
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    if kind in ("llama", "qwen2", "qwen3"):
        sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 512}
        sizes |= {"head_dim": 128} if kind == "qwen3" else {}  # as all of them; transformers takes it for granted
    sizes |= {"tie_word_embeddings": kind != "qwen2"}
    torch.manual_seed(0)
    made = AutoConfig.for_model(kind, vocab_size=len(tokenizer) + rows, **{**sizes, **config})
    model = AutoModelForCausalLM.from_config(made).float()
    for weight in model.parameters():  # biases and norms of a fresh model are constants, which hide a wrong order
        torch.nn.init.normal_(weight, std=0.2 if weight.dim() > 1 else 0.5)
    set_special_ids(model, tokenizer, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    run = folder / "run"
    model.save_pretrained(run / "model")
    tokenizer.save_pretrained(run / "model")
    return write_run(run)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_comes_back_as_it_was(tmp_path, kind, manager):
    run = make_student(kind, tmp_path)
    made = export(run, "gguf", tmp_path / "out", manager, {"outtype": "f32"})
    assert [path.name for path in made.files] == ["student-f32.gguf"]
    assert "weights are the student's, and 10 greedy answers are equal, token by token" in made.notes
    assert any(note.startswith("token ids of 10 conversations are equal") for note in made.notes)
    written = proof.read_back(made.files[0])
    assert written.pre == KINDS[kind] and written.ids["eot"] == written.ids["eos"]
    assert written.add_bos is False  # these tokenizers add none; Llama 3's template writes it
    texts = ["1. a\n\n2. b", "in  1987, 1234567 dogs", "don't  DON'T 50%", "naïve…\r\n\r\n x"]
    ours, theirs = load_tokenizer(str(run / "model")), load_tokenizer(str(made.files[0]))
    for text in texts:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours(text, add_special_tokens=False)["input_ids"]


LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip


def test_scaled_rotary_embeddings(tmp_path, manager, monkeypatch):
    """Llama 3.x: what each frequency is divided by is in a tensor, as llama.cpp writes it; linear has settings."""
    from gguf import GGUFReader

    run = make_student("llama", tmp_path / "a", rope_parameters=LLAMA3_ROPE)
    made = export(run, "gguf", tmp_path / "out", manager, {"outtype": "f32"})
    (factors,) = (one.data for one in GGUFReader(made.files[0]).tensors if one.name == "rope_freqs.weight")
    assert factors.shape == (8,) and factors[0] == 1 and factors[-1] == 8 and sorted(factors) == list(factors)
    assert any("10 greedy answers are equal" in note for note in made.notes)
    monkeypatch.setattr("distill.exporters.gguf_file.architecture_of", without_factors)
    with pytest.raises(DistillError, match="does not scale rotary embeddings as the student does"):
        export(run, "gguf", tmp_path / "other", manager, {"outtype": "f32"})
    monkeypatch.undo()
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    run = make_student("qwen2", tmp_path / "b", rope_parameters=linear)
    made = export(run, "gguf", tmp_path / "linear", manager, {"outtype": "f32"})
    fields = GGUFReader(made.files[0]).fields
    assert fields["qwen2.rope.scaling.type"].contents() == "linear"
    assert fields["qwen2.rope.scaling.factor"].contents() == 2.0
    run = make_student("llama", tmp_path / "c", rope_parameters={**linear, "rope_type": "dynamic"})
    with pytest.raises(DistillError, match="of the type 'dynamic'") as error:
        export(run, "gguf", tmp_path / "dynamic", manager)
    assert "--llama-cpp" in error.value.hint


def without_factors(config):
    """As `architecture_of`, for a llama.cpp that knows nothing of Llama 3.1."""
    from dataclasses import replace

    from distill.exporters.architectures import architecture_of

    known, settings = architecture_of(config)
    return replace(known, extra=lambda config: {}), settings


def test_every_end_marker_is_in_the_file(tmp_path, manager):
    """A tool call may end with another marker; GGUF has places for three, a Modelfile for all."""
    run = make_student("llama", tmp_path)
    config = run / "model/generation_config.json"
    stop = json.loads(config.read_text())["eos_token_id"]
    ids = load_tokenizer(str(run / "model")).convert_tokens_to_ids(["<think>", "<|im_start|>", "<|begin_of_text|>"])
    for more, lost in ((ids[:1], []), (ids, ids[1:])):
        config.write_text(json.dumps({"eos_token_id": [stop, *more]}))
        made = export(run, "ollama", tmp_path / f"out{len(more)}", manager)
        written = proof.read_back(next(path for path in made.files if path.suffix == ".gguf"))
        assert written.ids["eot"] == stop and written.ids["eom"] == ids[0] and written.types[ids[0]] == 3
        assert any("no place for more end markers" in note for note in made.notes) == bool(lost)
        modelfile = next(path for path in made.files if path.name == "Modelfile").read_text()
        assert modelfile.count("PARAMETER stop") == 1 + len(more)


def test_sizes_that_transformers_does_not_read(tmp_path, manager):
    """It takes GPT-2 for one of 1024 positions: the weights are compared with the student's own settings."""
    run = make_student("gpt2", tmp_path, n_positions=128)
    made = export(run, "gguf", tmp_path / "out", manager, {"outtype": "f32"})
    assert any(note.startswith("not compared: some settings") for note in made.notes)
    assert any(note.startswith("weights are the student's, and ") for note in made.notes)


def test_code_of_a_student_is_not_run_by_the_converter(tmp_path, capsys):
    run, checkout = make_student("llama", tmp_path), tmp_path / "llama.cpp"
    checkout.mkdir()
    (checkout / "convert_hf_to_gguf.py").write_text("raise SystemExit('it ran')")
    config = run / "model/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoConfig": "own.Config"}}))
    words = ["export", str(run), "--to", "gguf", "--llama-cpp", str(checkout), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    with pytest.raises(DistillError, match="it ran"):
        convert_with_llama_cpp(checkout, ModelRef(str(run / "model"), True), tmp_path / "x.gguf", "x", "f16")


def test_a_file_that_cuts_text_in_an_unknown_way_is_told_of(tmp_path, caplog):
    run, file = make_student("llama", tmp_path), tmp_path / "x.gguf"
    write_gguf_file(str(run / "model"), file, "x", "f16")
    load_tokenizer(str(file))
    assert not caplog.records
    file.write_bytes(file.read_bytes().replace(b"\x05\0\0\0\0\0\0\0gpt-2", b"\x05\0\0\0\0\0\0\0gpt-9", 1))
    load_tokenizer(str(file))
    assert "'gpt-9'" in caplog.text


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0"])
def test_rounded_weights_are_near_and_said_to_be(tmp_path, outtype, manager):
    run = make_student("llama", tmp_path)
    made = export(run, "gguf", tmp_path / "out", manager, {"outtype": outtype})
    assert any(note.startswith("weights are the student's") for note in made.notes)


def test_a_lora_student_with_new_tokens(bloom, article, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train", str(article), "--student", str(bloom), "--lora", "--out", str(run), "--epochs", "1"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["export", str(run), "--to", "gguf", "--outtype", "f32", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["student-f32.gguf"] and any(
        "10 greedy answers are equal" in note for note in told["notes"]
    )


def test_bos_is_added_only_where_the_template_writes_it(manager):
    from tokenizers.processors import TemplateProcessing

    for pre, writes_it in (("llama-bpe", True), ("gpt-2", False)):
        tokenizer = tokenizer_of(pre)
        bos = tokenizer.bos_token
        rule = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = rule
        assert read_vocabulary(tokenizer, len(tokenizer), [1]).add_bos is writes_it


def test_other_tokenizers_and_architectures_name_the_way_out(tmp_path, manager):
    from distill.testing.tokenizers import TOKENIZERS

    for name in ("gemma", "unigram", "wordpiece"):
        with pytest.raises(DistillError, match="byte-level BPE") as error:
            read_vocabulary(TOKENIZERS[name](), 1000, [1])
        assert "--llama-cpp" in error.value.hint
    tokenizer = tokenizer_of("gpt-2")
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(DistillError, match=r"no llama\.cpp name") as error:
        read_vocabulary(tokenizer, 1000, [1])
    run = make_student("llama", tmp_path / "a", attention_bias=True)
    with pytest.raises(DistillError, match="attention layers have biases"):
        export(run, "gguf", tmp_path / "out", manager)
    config = run / "model/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "mpt"}))
    with pytest.raises(DistillError, match="is a 'mpt'") as error:
        export(run, "gguf", tmp_path / "out", manager)
    assert "--llama-cpp" in error.value.hint and not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # nothing half done is left


def test_a_file_that_is_not_the_student_is_refused(tmp_path):
    """What a faulty converter might write: each fault is found."""
    run = make_student("llama", tmp_path)
    file, other = tmp_path / "a.gguf", tmp_path / "other"

    def faulty(what: str, change) -> None:
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(run / "model", other)
        change()
        write_gguf_file(str(other), file, "student", "f32")
        with pytest.raises(DistillError, match=what):
            proof.compare_with_student(str(run / "model"), file, "f32", proof.read_back(file))

    def weights():
        from safetensors.torch import load_file, save_file

        tensors = load_file(other / "model.safetensors")
        name = "model.layers.1.self_attn.k_proj.weight"
        tensors[name] = tensors[name].flip(0).contiguous()
        save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})

    def edit(name: str, change):
        path = other / name
        path.write_text(change(path.read_text()))

    def merges(text):
        source = json.loads(text)
        source["model"]["merges"] = source["model"]["merges"][:-20]
        return json.dumps(source)

    faulty("'model.layers.1.self_attn.k_proj.weight' is not the student's", weights)
    faulty("is not the student.s", lambda: edit("chat_template.jinja", lambda text: text + " "))
    faulty("differs in conversation 1 at token", lambda: edit("tokenizer.json", merges))
    stop = json.loads((run / "model/config.json").read_text())["eos_token_id"]
    eos = json.dumps({"bos_token": "<|im_end|>", "eos_token": "<|im_start|>", "tokenizer_class": "TokenizersBackend"})

    def never_stops():
        edit("config.json", lambda text: text.replace(f'"eos_token_id": {stop}', '"eos_token_id": 5'))
        edit("generation_config.json", lambda text: text.replace(f'"eos_token_id": {stop}', '"eos_token_id": 5'))
        edit("tokenizer_config.json", lambda text: eos)

    faulty("it would never stop", never_stops)


def test_numbers_too_large_for_float16(tmp_path, manager):
    from safetensors.torch import load_file, save_file

    run = make_student("llama", tmp_path)
    tensors = load_file(run / "model/model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 70000.0
    save_file(tensors, run / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DistillError, match=r"up_proj\.weight' holds numbers that float16 cannot"):
        export(run, "gguf", tmp_path / "out", manager)
    assert not (tmp_path / "out").exists()
    assert export(run, "gguf", tmp_path / "out", manager, {"outtype": "bf16"}).files


def test_weights_that_are_damaged_or_gone(tmp_path, manager):
    run = make_student("llama", tmp_path)
    weights = run / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(DistillError, match="are damaged"):
        export(run, "gguf", tmp_path / "out", manager)
    weights.unlink()
    with pytest.raises(DistillError, match="holds no safetensors"):
        export(run, "gguf", tmp_path / "out", manager)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_format_without_a_template_cannot_leave(tmp_path, capsys):
    run = make_student("llama", tmp_path)
    (run / "model/chat_template.jinja").unlink()
    for to in ("gguf", "ollama"):
        assert main(["export", str(run), "--to", to, "--out", str(tmp_path / "out")]) == 2
        assert "has no Jinja template" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "merged", "--outtype", "f32", "--out", str(tmp_path / "out")]) == 2


CONVERTER = """
import shutil, sys
from pathlib import Path
words, beside = sys.argv[1:], Path(__file__).parent
option = lambda name: words[words.index(name) + 1]
if not (beside / "made.gguf").is_file():
    sys.exit("KeyError: no such architecture")
assert Path(words[0]).is_dir() and option("--outtype") == "f16"
shutil.copy(beside / "made.gguf", option("--outfile"))
"""


def test_llama_cpps_converter_is_run_and_checked(tmp_path, manager, capsys):
    run, checkout = make_student("llama", tmp_path), tmp_path / "llama.cpp"
    words = ["export", str(run), "--to", "gguf", "--llama-cpp", str(checkout), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "holds no convert_hf_to_gguf.py" in capsys.readouterr().err
    checkout.mkdir()
    script = checkout / "convert_hf_to_gguf.py"
    script.write_text(CONVERTER)
    assert main(words) == 1
    assert "failed (exit code 1): KeyError: no such architecture" in capsys.readouterr().err
    write_gguf_file(str(run / "model"), checkout / "made.gguf", "made", "f16")
    assert main(words) == 0
    assert "token ids of 10 conversations are equal" in capsys.readouterr().err
