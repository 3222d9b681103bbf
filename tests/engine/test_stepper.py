"""Acts are done in order and before the next step; failures are told; nothing is done after the end."""

import threading
import time
from functools import partial

import pytest

from magister.engine.stepper import Stepper


class Machine:
    """Counts down its work and notes what happened."""

    def __init__(self, breaks_at: int = -1) -> None:
        self.work = 0
        self.breaks_at = breaks_at
        self.log: list[str] = []
        self.errors: list[BaseException] = []
        self.stepper = Stepper(self.step, self.fail, "test")

    def step(self) -> bool:
        if self.work:
            self.work -= 1
            self.log.append("step")
            if self.work == self.breaks_at:
                raise ArithmeticError("thirteen")
        return self.work > 0

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.work = 0

    def begin(self, work: int) -> None:
        self.work = work


def test_it_steps_while_there_is_work_and_then_rests() -> None:
    machine = Machine()
    machine.stepper.submit(lambda: machine.begin(1000))
    while machine.stepper.ask(lambda: machine.work):
        time.sleep(0.001)
    assert machine.log.count("step") == 1000
    machine.stepper.close(lambda: None)


def test_acts_come_in_order_and_before_the_next_step() -> None:
    machine = Machine()
    hold = threading.Event()

    def slow() -> None:
        hold.wait(10)
        machine.work = 2

    machine.stepper.submit(slow)
    for name in ("one", "two"):
        machine.stepper.submit(partial(machine.log.append, name))
    hold.set()
    machine.stepper.close(lambda: machine.log.append("last"))
    assert machine.log[:2] == ["one", "two"]
    assert "last" in machine.log


def test_what_is_asked_is_answered_and_its_errors_raised() -> None:
    machine = Machine()
    assert machine.stepper.ask(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        machine.stepper.ask(divmod, 7, 0)
    assert machine.stepper.ask(len, "go on") == 5
    assert [type(error) for error in machine.errors] == [ZeroDivisionError]
    machine.stepper.close(lambda: None)


def test_a_failing_step_is_told_and_the_thread_goes_on() -> None:
    machine = Machine(breaks_at=13)
    machine.stepper.submit(lambda: machine.begin(20))
    while not machine.errors:
        time.sleep(0.001)
    assert [str(error) for error in machine.errors] == ["thirteen"]
    assert machine.stepper.ask(lambda: "alive") == "alive"
    machine.stepper.close(lambda: None)


def test_a_failure_that_cannot_be_told_is_not_told_for_ever() -> None:
    machine = Machine()
    told: list[BaseException] = []

    def fail(error: BaseException) -> None:
        told.append(error)
        raise MemoryError

    stepper = Stepper(machine.step, fail, "test")
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            stepper.ask(divmod, 7, 0)
        assert stepper.ask(len, "go on") == 5
        time.sleep(0.05)
        assert [type(error) for error in told] == [ZeroDivisionError] * count
    stepper.close(lambda: None)


def test_after_the_end_nothing_is_done() -> None:
    machine = Machine()
    machine.stepper.submit(lambda: machine.begin(10**9))
    machine.stepper.close(lambda: machine.begin(0))
    machine.stepper.close(lambda: machine.begin(5))
    assert machine.stepper.closed
    with pytest.raises(RuntimeError, match="closed"):
        machine.stepper.submit(lambda: None)
    with pytest.raises(RuntimeError, match="closed"):
        machine.stepper.ask(lambda: None)
    assert machine.work == 0
