"""What clients keep between rounds, wherever it is kept."""

from pathlib import Path

import pytest
import torch

from airtune.errors import UserError
from airtune.federation.client_states import ClientStates


def state(value, size=1000):
    return {"private": {"head": torch.full((size,), float(value))}, "round": value}


def value_of(states, client):
    held = states.get(client)
    assert held["private"]["head"].eq(held["round"]).all()
    return held["round"]


@pytest.mark.parametrize("memory", [1e9, 9000, 0])
def test_every_state_comes_back_whatever_the_memory(tmp_path, memory):
    states = ClientStates(memory)
    states.open(tmp_path / "clients", None)
    for client in range(20):
        states.put(client, state(client))
    states.put(3, state(33))
    assert [value_of(states, client) for client in range(20)] == [
        33 if client == 3 else client for client in range(20)
    ]
    assert list(states) == list(range(20))
    assert 5 in states
    assert 20 not in states
    assert states.get(20) == {}


def test_memory_is_bounded(tmp_path):
    states = ClientStates(10_000)
    states.open(tmp_path / "clients", None)
    for client in range(50):
        states.put(client, state(client))
        for other in range(client):
            states.get(other)
        assert states._held_bytes <= 10_000


def test_what_is_read_may_be_changed_without_harm(tmp_path):
    states = ClientStates(1e9)
    states.open(tmp_path / "clients", None)
    states.put(0, state(1))
    states.get(0)["private"]["head"].zero_()
    assert value_of(states, 0) == 1


def test_a_state_owns_its_memory(tmp_path):
    states = ClientStates(1e9)
    whole = torch.zeros(1_000_000)
    states.put(0, {"private": whole[:10]})
    assert states.get(0)["private"].untyped_storage().nbytes() == 40


def test_a_state_that_was_read_holds_no_file_open(tmp_path):
    states = ClientStates(1e9)
    states.open(tmp_path / "clients", None)
    states.put(0, state(1))
    index = states.write()
    again = ClientStates(1e9)
    again.open(tmp_path / "clients", index)
    again.get(0)
    assert "clients/0000" not in Path("/proc/self/maps").read_text()


def test_states_that_change_beyond_memory_are_written_many_at_a_time(tmp_path):
    states = ClientStates(20 * 4032)
    states.open(tmp_path / "clients", None)
    for round in range(10):
        for client in range(50):
            states.put(client, state(round))
    assert states._last_file <= 500 / 10 + 1
    assert len(list((tmp_path / "clients").iterdir())) <= 10  # none that nobody needs
    assert {value_of(states, client) for client in states} == {9}


def test_a_missing_file_is_said(tmp_path):
    states = ClientStates(0)
    states.open(tmp_path / "clients", None)
    states.put(0, state(1))
    index = states.write()
    for file in (tmp_path / "clients").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="is missing"):
        ClientStates(0).open(tmp_path / "clients", index)


def test_a_killed_run_finds_the_states_of_its_last_checkpoint(tmp_path):
    folder = tmp_path / "clients"
    states = ClientStates(0)  # everything goes to files at once
    states.open(folder, None)
    for client in range(3):
        states.put(client, state(client))
    index = states.write()
    states.clean()
    states.put(1, state(11))  # written to a file, but no checkpoint knows of it
    states.put(7, state(7))
    resumed = ClientStates(0)
    resumed.open(folder, index)
    assert [value_of(resumed, client) for client in resumed] == [0, 1, 2]
    assert 7 not in resumed


def test_files_go_when_all_of_their_states_are_newer(tmp_path):
    folder = tmp_path / "clients"
    states = ClientStates(1e9)
    states.open(folder, None)
    for round in range(5):
        for client in range(4):
            states.put(client, state(round))
        states.write()
        states.clean()
    assert len(list(folder.iterdir())) == 1
    states.put(0, state(9))
    states.write()
    states.clean()
    assert len(list(folder.iterdir())) == 2


def test_a_run_that_starts_anew_forgets_what_lay_there(tmp_path):
    states = ClientStates(0)
    states.open(tmp_path / "clients", None)
    states.put(0, state(1))
    again = ClientStates(0)
    again.open(tmp_path / "clients", None)
    assert list(again) == []


def test_a_damaged_file_is_said(tmp_path):
    states = ClientStates(0)
    states.open(tmp_path / "clients", None)
    states.put(0, state(1))
    (file,) = (tmp_path / "clients").iterdir()
    file.write_bytes(file.read_bytes()[:-9] + b"?" * 9)
    with pytest.raises(UserError, match="corrupt"):
        states.get(0)
