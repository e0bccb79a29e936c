import os
import signal
import threading

import pytest

from lowmem_rl.errors import TrainingError
from lowmem_rl.training import signals
from lowmem_rl.training.signals import handle_stop_signals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_stops_at_once_and_is_remembered(name) -> None:
    with handle_stop_signals() as stop:
        assert stop.signal is None
        with pytest.raises(KeyboardInterrupt):
            send(getattr(signal, name))
        assert stop.name == name
        assert stop.is_by_machine


def test_a_signal_that_comes_while_the_weights_move_waits_for_the_step_boundary() -> None:
    with handle_stop_signals() as stop:
        stop.before_optimizer_step()
        send(signal.SIGINT)
        assert stop.name == "Ctrl-C"
        assert not stop.is_by_machine
        with pytest.raises(KeyboardInterrupt):
            stop.at_boundary(None)  # type: ignore[arg-type]


def test_a_second_ctrl_c_does_not_wait_and_an_echo_is_none(monkeypatch) -> None:
    with handle_stop_signals() as stop:
        stop.before_optimizer_step()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):  # as from a terminal that is closed
            send(number)
        assert not stop.is_at_once
        monkeypatch.setattr(signals, "ECHO_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.is_at_once
        assert stop.name == "SIGHUP"


def test_a_wait_for_free_space_ends_with_a_deferred_signal() -> None:
    with handle_stop_signals() as stop:
        stop.before_optimizer_step()
        threading.Timer(0.1, send, [signal.SIGTERM]).start()
        with pytest.raises(KeyboardInterrupt):
            stop.sleep(100)


def test_handlers_come_back_and_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with handle_stop_signals():
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_off_the_main_thread_the_caller_handles_signals() -> None:
    def run() -> None:
        with handle_stop_signals() as stop:
            stop.before_optimizer_step()
            stop.at_boundary(None)  # type: ignore[arg-type]

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_stop_that_a_finding_asks_for_comes_at_the_boundary_and_after_a_signal() -> None:
    with handle_stop_signals() as stop:
        stop.request(TrainingError("Step 3: collapsed.", hint="Lower the rate."))
        with pytest.raises(TrainingError, match="collapsed"):
            stop.at_boundary(None)  # type: ignore[arg-type]
        stop.before_optimizer_step()
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            stop.at_boundary(None)  # type: ignore[arg-type]
