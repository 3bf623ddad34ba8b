"""Pilot: a control policy in a thread of its own, waited for no longer than there is time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.errors import describe, traced
from isaac_infer.ros.control_loop import prefer_this_thread
from isaac_infer.ros.worker import Worker


class Policy(Protocol):
    """Says what a robot is to do; one thread at a time."""

    backend: str
    needs: frozenset[str]  # the inputs that it looks at: image, scan, imu, command

    def decide(self, *, is_anew: bool) -> Command:
        """Give the wanted command.

        Args:
            is_anew: whether the robot was stopped, so that what it was told before does not count.

        Raises:
            IsaacInferError: it has none.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Decision:
    """What a policy answered to a question."""

    number: int = 0  # of the question
    wanted: Command = STOP
    error: str = ''  # why it has none


class Pilot:
    """Opens a policy and asks it, both in the thread that owns it: a policy that hangs holds up nobody."""

    def __init__(
        self, load: Callable[[], Policy], note_error: Callable[[str], None], *, priority: int = 0
    ) -> None:
        """Begin to open the policy.

        Args:
            load: opens it.
            note_error: takes what is of use to who looks for a fault.
            priority: of the thread once the policy is open, as of `ControlLoop`.
        """
        self._note_error = note_error
        self._policy: Policy | None = None
        self._decision = Decision(error='the control model is being opened')
        self._changed = threading.Condition()
        self._asked = 0
        self._worker: Worker[tuple[int, bool]] = Worker(self._decide)
        self._worker.call(load).add_done_callback(self._note_opened)
        self._worker.call(
            partial(prefer_this_thread, priority)
        )  # the control thread says where it is refused

    @property
    def policy(self) -> Policy | None:
        """The policy; None until it is open."""
        return self._policy

    @property
    def backend(self) -> str:
        """What runs the policy; empty until it is open."""
        return self._policy.backend if self._policy else ''

    @property
    def problem(self) -> str:
        """Why nobody can be asked; empty: the policy is open."""
        return '' if self._policy else self._decision.error

    @property
    def is_busy(self) -> bool:
        """Whether the last question has no answer yet."""
        return self._decision.number < self._asked

    def ask(self, *, is_anew: bool) -> int:
        """Ask for a command, as `Policy.decide`; give the number of the question.

        One that nobody has begun with is forgotten.
        """
        self._asked += 1
        if self._policy is not None:
            self._worker.offer((self._asked, is_anew))
        return self._asked

    def answer(self, number: int, until_s: float) -> Decision | None:
        """Wait for the answer to a question, until then by the steady clock; None: it did not come."""
        with self._changed:
            self._changed.wait_for(lambda: self._decision.number >= number, max(until_s - monotonic(), 0))
            return self._decision if self._decision.number >= number else None

    def close(self, timeout_s: float) -> None:
        """Close the policy; safe to call twice.

        Raises:
            TimeoutError: it is still busy.
        """
        policy, self._policy = self._policy, None
        if policy is not None:
            self._worker.call(policy.close)
        self._worker.close(timeout_s)

    def _note_opened(self, opening: Future[Policy]) -> None:
        error = opening.exception()
        if error is None:
            with self._changed:
                self._policy, self._decision = opening.result(), Decision()
            return
        self._decision = Decision(error=self._said(error))

    def _decide(self, question: tuple[int, bool]) -> None:
        number, is_anew = question
        policy = self._policy
        if policy is None:
            return
        try:
            decision = Decision(number, policy.decide(is_anew=is_anew))
        except Exception as error:  # of the model, its backend, its inputs: the robot stops
            decision = Decision(number, error=self._said(error))
        with self._changed:
            self._decision = decision
            self._changed.notify_all()

    def _said(self, error: BaseException) -> str:
        self._note_error(traced(error))
        return describe(error)
