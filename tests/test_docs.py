"""What the documents show runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import airtune
from airtune.experiment import Experiment
from airtune.methods import Method, registry

ROOT = Path(__file__).parents[1]


def snippets(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.S)


def test_the_method_of_contributing_runs(small, tmp_path, monkeypatch):
    (code,) = snippets("CONTRIBUTING.md")
    namespace: dict = {"__name__": "mypackage.damped"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), namespace)
    damped = namespace["Damped"]
    assert issubclass(damped, Method)
    found = registry.find
    monkeypatch.setattr(registry, "find", lambda name: damped if name == "damped" else found(name))
    monkeypatch.setattr("airtune.build.find", registry.find)
    results = {}
    for damping in (0.5, 1.0):
        method = {"name": "damped", "damping": damping}
        values = small(method=method, cell="ideal", train={"rounds": 1})
        results[damping] = airtune.run(Experiment(**values), tmp_path / str(damping)).adapter
    plain = airtune.run(
        Experiment(**small(cell="ideal", train={"rounds": 1})), tmp_path / "plain"
    ).adapter
    name = "classifier.weight"  # starts at zero, so half of the way is half of the value
    assert results[1.0][name].allclose(plain[name], atol=1e-7)
    assert results[0.5][name].allclose(plain[name] / 2, atol=1e-7)


def test_the_python_of_the_readme_runs(small, tmp_path, monkeypatch):
    (code,) = snippets("README.md")
    monkeypatch.chdir(tmp_path)
    quick = Experiment(**small())
    monkeypatch.setattr(airtune, "Experiment", lambda **_: quick, raising=False)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_a_document_names_exist(name):
    text = (ROOT / name).read_text()
    for path in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:src|tests|examples|benchmarks)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
