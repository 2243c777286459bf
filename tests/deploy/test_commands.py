"""The commands for machines: bad input is one sentence, before anything is started."""

from __future__ import annotations

import sys

import pytest
import yaml

from airtune.cli import main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "{x}", "--federation", "cloud"), "'cloud' is none of in-process, local"),
        (("serve", "{x}", "--host", "0.0.0.0"), "--tls-dir: beyond this machine"),
        (("serve", "{x}", "--most", "nan"), "--most: nan MB cannot be; give 0.001 to 2000"),
        (("serve", "{x}", "--set", "data.test=no.csv"), "data.test: there is no file 'no.csv'"),
        (("serve", "nowhere.yaml"), "there is no experiment file"),
        (("join", "fl.example.org:80", "--train", "x.csv"), "--ca: beyond this machine"),
        (("join", "here", "--train", "x.csv"), "'here' is no address; give the server as HOST"),
        (("join", "127.0.0.1:80", "--train", "x.csv"), "--train: there is no file 'x.csv'"),
        (("join", "127.0.0.1:80", "--train", "x.csv", "--key", "/a/secret.key"),
         "--key: there is no file 'secret.key'"),
        (("join", "127.0.0.1:80", "--train", "{x}", "--device", "abacus"), "'abacus' is no device"),
        (("keys", "add", "nowhere", "a"), "'nowhere' has no keys"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, small, arguments, sentence):
    description = tmp_path / "small.yaml"
    description.write_text(yaml.safe_dump(small()))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    filled = [each.replace("{x}", str(description)) for each in arguments]
    monkeypatch.setattr(sys, "argv", ["airtune", *filled])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert "/a/" not in said
    assert list((tmp_path / "work").iterdir()) == []
