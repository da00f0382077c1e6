"""Exporters are plugins: found by name, built with their options, and blamed by name."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from test_export_gguf import make_student

import distill
from distill.cli.main import main
from distill.exporters import export
from distill.testing import check_exporter, exporter_checks, load_plugin, run_checks


def manager_with(build, options=distill.NoOptions):
    spec = distill.ExporterSpec("mine", "", build, options)
    return load_plugin(SimpleNamespace(register_exporters=distill.hookimpl(lambda: [spec])), "somebody")


class Good:
    def __init__(self, options=None):
        pass

    def export(self, job):
        job.note("at work")
        (job.out / "weights").write_text(job.name)
        return ["all is well"]


class Nothing(Good):
    def export(self, job):
        return []


class Fails(Good):
    def export(self, job):
        raise ZeroDivisionError("by zero")


class Prints(Good):
    def export(self, job):
        print("exporting!")
        return super().export(job)


class Changes(Good):
    def export(self, job):
        (job.model / "config.json").write_text("{}")
        return super().export(job)


class TellsNothing(Good):
    def export(self, job):
        super().export(job)


class Refuses(Good):
    def export(self, job):
        raise distill.DistillError("no llamas here")


def test_a_plugins_exporter_is_used_by_name(tmp_path):
    run, said = make_student("llama", tmp_path), []
    made = export(run, "mine", tmp_path / "out", manager_with(Good), note=said.append)
    assert [path.name for path in made.files] == ["weights"] and made.files[0].read_text() == "run"
    assert (made.notes, said) == (["all is well"], ["at work"])


@pytest.mark.parametrize(
    ("bad", "said"), [(Nothing, "wrote no file"), (Fails, "cannot export to 'mine': ZeroDivisionError: by zero")]
)
def test_a_bad_one_is_blamed_and_leaves_nothing(tmp_path, bad, said):
    run = make_student("llama", tmp_path)
    with pytest.raises(distill.PluginError, match="plugin 'somebody'") as error:
        export(run, "mine", tmp_path / "out", manager_with(bad))
    assert said in error.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_names_and_options_are_suggested(tmp_path, capsys):
    run = make_student("llama", tmp_path)
    words = ["export", str(run), "--out", str(tmp_path / "out")]
    assert main([*words, "--to", "olama"]) == 2
    assert "'ollama'" in capsys.readouterr().err
    assert main([*words, "--to", "gguf", "-O", "outtyp=f32"]) == 2
    assert "'outtype'" in capsys.readouterr().err
    assert main([*words, "--to", "gguf", "-O", "outtype=f8"]) == 2
    assert "f8" in capsys.readouterr().err
    assert main([*words, "--to", "merged", "--outtype", "f32"]) == 2
    assert "exporter 'merged'" in capsys.readouterr().err
    assert main([*words, "--to", "gguf", "--outtype", "f32", "-O", "outtype=f16"]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main([*words, "--to", "gguf", "-O", "outtype=f32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["student-f32.gguf"]


def test_the_built_in_ones_keep_their_contract(manager):
    for name in ("merged", "gguf", "ollama"):
        check_exporter(lambda name=name: manager.exporters.build(name))


BAD = {
    Nothing: "it wrote no file",
    Fails: "ZeroDivisionError",
    Prints: "it prints 'exporting!",
    Changes: "it changed files in job.model",
    TellsNothing: "export() returned None",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_the_suite_names_what_is_broken(bad):
    with pytest.raises(AssertionError) as caught:
        check_exporter(bad)
    assert BAD[bad] in str(caught.value)


def test_a_refusal_is_worth_a_remark():
    statuses = [outcome.status for outcome in run_checks(exporter_checks(Refuses))]
    assert statuses.count("noted") == 1 and "failed" not in statuses


def test_plugins_lists_and_checks_them(capsys):
    assert main(["plugins", "--options"]) == 0
    shown = capsys.readouterr().out
    assert "exporter  gguf" in shown and "-O outtype=" in shown
    assert main(["plugins", "check", "merged"]) == 0
    assert "exporter merged" in capsys.readouterr().out
