"""A test that leaves the process changed fails, and names the changes."""

import contextlib
import os
import re
import signal
import sys

import jax
import pytest
from conftest import assert_process_unchanged


@contextlib.contextmanager
def torch_setting(name, value):
    torch = sys.modules["torch"]
    before = getattr(torch, f"get_{name}")()
    getattr(torch, f"set_{name}")(value(torch))
    yield
    getattr(torch, f"set_{name}")(before)


@contextlib.contextmanager
def sigint_handler():
    # Not SIG_IGN, which a shell sets for processes in the background.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def patch(name, *arguments):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield getattr(monkeypatch, name)(*arguments)


# A context that changes the process, and how the report names the change.
CHANGES = {
    "x64": (lambda: jax.enable_x64(True), "jax_enable_x64 from False to True"),
    "folder": (lambda: patch("chdir", os.sep), f"working directory from {os.getcwd()!r} to "),
    "path": (lambda: patch("setattr", sys, "path", [*sys.path, "x"]), "sys.path from ["),
    "SIGINT": (sigint_handler, "SIGINT handler from "),
    "variable": (lambda: patch("setenv", "XLA_FLAGS_", "1"), "$XLA_FLAGS_ from None to '1'"),
    "no variable": (
        lambda: patch("delenv", "PATH"),
        f"$PATH from {os.environ['PATH']!r} to None",
    ),
}
TORCH_CHANGES = {
    "default dtype": (
        lambda: torch_setting("default_dtype", lambda torch: torch.float64),
        "torch default dtype from torch.float32 to torch.float64",
    ),
    "threads": (
        lambda: torch_setting("num_threads", lambda torch: torch.get_num_threads() + 1),
        "torch threads from ",
    ),
}


def check(change, message):
    with (
        contextlib.ExitStack() as undo,
        pytest.raises(AssertionError, match=f"^the test changes {re.escape(message)}"),
        assert_process_unchanged(),
    ):
        undo.enter_context(change())
    with assert_process_unchanged(), change():
        pass


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_reported_unless_undone(name):
    check(*CHANGES[name])


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH_CHANGES)
def test_a_change_of_torch_is_reported_unless_undone(name):
    pytest.importorskip("torch", reason="the settings are torch's")
    check(*TORCH_CHANGES[name])


def test_every_test_is_checked(request):
    assert "isolation" in request.fixturenames
