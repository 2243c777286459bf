"""Keys: what an authority vouches for, by another library's eyes; what is private stays so."""

from __future__ import annotations

import stat
import subprocess

import pytest

from airtune.errors import UserError

pytest.importorskip("cryptography", reason="keys need cryptography: airtune[flower]")

from airtune.deploy import keys


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "keys"
    keys.new(made, ["fl.example.org", "10.0.0.7"])
    return made


def openssl(*arguments):
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.stdout + done.stderr


def test_the_servers_certificate_is_vouched_for_and_has_its_names(folder):
    said = openssl("verify", "-x509_strict", "-CAfile", folder / "ca.crt", folder / "server.crt")
    assert said.strip().endswith("OK"), said
    names = openssl("x509", "-in", folder / "server.crt", "-noout", "-ext", "subjectAltName")
    for name in ("DNS:fl.example.org", "IP Address:10.0.0.7", "DNS:localhost", "127.0.0.1"):
        assert name in names


def test_another_authority_does_not_vouch_for_it(folder, tmp_path):
    keys.new(tmp_path / "other")
    said = openssl("verify", "-CAfile", tmp_path / "other" / "ca.crt", folder / "server.crt")
    assert "verification failed" in said


def test_private_keys_are_for_their_owner_alone(folder):
    keys.add(folder, "a")
    private = [*folder.rglob("*.key")]
    assert len(private) == 3
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_devices_public_key_is_that_of_its_private_one(folder):
    from cryptography.hazmat.primitives import serialization

    private = keys.add(folder, "a")
    key = serialization.load_ssh_private_key(private.read_bytes(), None)
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    assert key.public_key().public_bytes(*form) == private.with_suffix(".pub").read_bytes().strip()
    assert key.curve.name == "secp384r1"


def test_devices_come_and_go(folder):
    for name in ("b", "a", "c"):
        keys.add(folder, name)
    keys.revoke(folder, "b")
    assert [path.stem for path in keys.registered(folder)] == ["a", "c"]
    assert not (folder / "nodes" / "b.key").exists()
    with pytest.raises(UserError, match="'b' has or had a key"):
        keys.add(folder, "b")


@pytest.mark.parametrize(
    ("do", "sentence"),
    [
        (lambda f: keys.new(f), "has keys already"),
        (lambda f: keys.add(f, "../a"), "letters, digits"),
        (lambda f: keys.add(f / "nowhere", "a"), "has no keys; make them by airtune keys new"),
        (lambda f: keys.revoke(f, "x"), "there is no device 'x'; there are: none"),
    ],
)
def test_what_is_wrong_is_said(folder, do, sentence):
    with pytest.raises(UserError, match=sentence):
        do(folder)
