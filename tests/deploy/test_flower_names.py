"""What we use of Flower beyond its documented API; a version that changes it fails here by name."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64encode
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from airtune.deploy.flower import apps, engine, front, processes

OPTIONS = {
    "flower-superlink": "--host --port --insecure --ssl-ca-certfile --ssl-certfile --ssl-keyfile "
    "--enable-supernode-auth --disable-runtime-dependency-installation",
    "flower-supernode": "--superlink --host --port --node-config --max-wait-time --insecure "
    "--root-certificates --auth-supernode-private-key",
    "flwr run": "--run-config --format",
    "flwr supernode register": "--format",
    "flwr supernode unregister": "--format",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_programs_have_the_options_that_we_give_them(command, tmp_path):
    name, *verbs = command.split()
    program = str(Path(sys.executable).with_name(name))
    found = subprocess.run(
        [program, *verbs, "--help"], env=processes.environment(tmp_path), capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    missing = [option for option in OPTIONS[command].split() if option not in found.stdout]
    assert not missing, f"{command} of Flower {version('flwr')} has no {missing}"


@pytest.mark.parametrize("side", ["server", "client"])
def test_flower_takes_up_apps_where_ours_stand_in(side):
    module, name = apps._LOADERS[side]
    assert callable(getattr(import_module(module), name, None)), f"{module}.{name} is gone"
    source = Path(import_module(module).__file__).read_text()
    assert source.count(f"{name}(") == 1, f"{module} does not call {name} once"
    assert "load_app(" not in source, f"{module} has another way to an app's code"
    module, name = apps._COMMANDS[side]
    assert callable(getattr(import_module(module), name, None)), f"{module}.{name} is gone"


def test_flower_starts_its_programs_by_the_names_that_we_put_in_their_way():
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    assert {"flwr-serverapp", "flwr-clientapp"} <= set(TASK_TYPE_TO_COMMAND.values())
    for name in ("superlink.cli.flower_superlink", "supernode.start_client_internal"):
        source = Path(import_module(f"flwr.{name}").__file__).read_text()
        assert 'command = ["flower-superexec"]' in source


def test_all_that_devices_ask_passes_the_front_and_nothing_else():
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    paths = {path for _, path in PROTOBUF_REQUEST_TYPES}
    through = {path for path in paths if front._DEVICES.fullmatch(path)}
    assert front._OBJECT in through
    assert through == {path for path in paths if path.startswith("/v1/fleet/")}
    assert {"/v1/control/start-run", "/v1/runtime/acquire-task"} <= paths - through


def test_devices_sign_as_the_front_expects():
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant
    from flwr.supercore.primitives.asymmetric import (
        generate_key_pairs,
        public_key_to_bytes,
        sign_message,
    )

    assert constant.FLEET_HTTP_PUBLIC_KEY_HEADER == front.PUBLIC_KEY
    assert constant.FLEET_HTTP_SIGNATURE_HEADER == front.SIGNATURE
    assert TIMESTAMP_HEADER == front.SIGNED
    private, public = generate_key_pairs()
    key, when = public_key_to_bytes(public), b"2026-01-01T00:00:00+00:00"
    told = {front.PUBLIC_KEY: b64encode(key), front.SIGNED: when}
    told[front.SIGNATURE] = b64encode(sign_message(private, when))
    headers = [(name.encode(), value) for name, value in told.items()]
    assert front._signer(headers, {key: "a"}) == key
    assert front._signer(headers, {}) is None


def test_pieces_of_letters_fit_through_the_front():
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

    assert FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + (1 << 16) < front._LARGE


def test_flower_lets_us_say_how_large_pieces_are_and_how_often_it_looks():
    from inspect import signature

    from flwr.superlink.grid import http_grid

    size = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
    assert size in processes.environment(Path())
    source = Path(import_module("flwr.common.constant").__file__).read_text()
    assert f'os.getenv("{size}"' in source
    asked = {"max_tries_per_object", "initial_backoff", "backoff_cap"}
    assert asked <= set(signature(http_grid.pull_objects).parameters)


def test_the_log_still_says_what_we_look_for():
    texts = [path.read_text() for path in Path(import_module("flwr").__file__).parent.rglob("*.py")]
    for words in ("Giving up reconnection", "TLS handshake error", "[code: {"):
        assert any(words in text for text in texts), (
            f"Flower {version('flwr')} no longer says '{words}'"
        )


def test_a_device_that_is_not_let_in_is_told_by_the_code_that_we_explain():
    from flwr.supercore.error.base import ApiErrorCode

    assert f"[code: {ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED.value}]" == engine._NOT_IN


def test_the_identity_of_a_task_can_be_set():
    from flwr.supercore.task_identity import TaskIdentity

    assert {"run_id", "node_id", "task_id"} <= set(dir(type(TaskIdentity)))
