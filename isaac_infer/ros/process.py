"""Process: run one node until it is done, Ctrl-C, a termination signal or a hangup, and leave cleanly."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from queue import SimpleQueue
from typing import Protocol

import cv2
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from isaac_infer.core.errors import IsaacInferError, describe, traced
from isaac_infer.core.text import loggable
from isaac_infer.params import Params, parameters
from isaac_infer.ros import param_files, transport

CLOCK_REMINDER_S = 10.0  # between two lines about a clock that lies
FORMS = {'-p': 'NAME:=VALUE', '--param': 'NAME:=VALUE', '-r': 'FROM:=TO', '--remap': 'FROM:=TO'}
OPTIONS = (  # the other arguments that ROS takes
    '--params-file', '--log-level', '--log-config-file', '--log-file-name', '--enclave', '-e',
    '--enable-rosout-logs', '--disable-rosout-logs', '--enable-stdout-logs', '--disable-stdout-logs',
    '--enable-external-lib-logs', '--disable-external-lib-logs',
)  # fmt: skip
LEAST_LETTERS = 3  # of a name that may be a part of one of ours
STOP_TIMEOUT_S = 10.0  # for the callback that is under way, such as the opening of a model


class ClosableNode(Protocol):
    """A node that lets go of everything it holds, or raises TimeoutError where a library does not let it."""

    @property
    def exit_code(self) -> int: ...

    def get_fully_qualified_name(self) -> str: ...

    def close(self) -> None: ...

    def destroy_node(self) -> None: ...


def run_node(
    name: str,
    params: type[Params],
    make_node: Callable[[Callable[[], None]], ClosableNode],
    args: list[str] | None = None,
) -> int:
    """Run a node and return the exit code of its process.

    Args:
        name: of the executable, for messages.
        params: what --help lists.
        make_node: makes the node; is given a function that ends the process.
        args: of the command line; None: those of the process.
    """
    # rclpy's own handlers tear the context down at once, and whatever still publishes dies of it. With ours
    # the node is closed first. The executor has its own thread because only a wait in Python sees a signal.
    # A queue, not an event: a handler that sets an event can wait for a lock that this very thread holds.
    stop: SimpleQueue[None] = SimpleQueue()
    # Ctrl-C, who ends processes, a terminal that is closed, Ctrl-\.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup: it goes on
        signal.signal(number, lambda *_: stop.put(None))
        # Python gives signals their default back while it ends: a second Ctrl-C, as launch files send it,
        # would make a crash of a clean end.
        atexit.register(signal.signal, number, signal.SIG_IGN)
    warning = transport.set_up()
    try:
        # ROS ignores what it does not know: `--model yolo.onnx` would start a node without a model.
        parser = _parser(name, params)
        given = remove_ros_args(sys.argv if args is None else [name, *args])[1:]
        if unknown := parser.parse_known_args(given)[1]:
            parser.error(f'unrecognized arguments: {" ".join(unknown)}{_as_parameter(unknown, params)}')
    except SystemExit as end:  # --help, or an unknown option
        return int(end.code or 0)
    except Exception as error:  # of rclpy, for malformed --ros-args
        return _refused(name, error, args)
    # Between two pictures OpenCV's threads fall asleep; waking them takes longer than they save.
    cv2.setNumThreads(1)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # of several kinds, for unknown arguments and unreadable parameter files
        return _refused(name, error, args)
    if warning:
        get_logger(name).warning(warning)
    try:
        return _run(name, make_node, stop, sys.argv[1:] if args is None else args)
    finally:
        rclpy.try_shutdown()


def _refused(name: str, error: Exception, args: list[str] | None) -> int:
    why = _slip(sys.argv[1:] if args is None else args) or str(error)
    print(f'{name}: error: {loggable(why)}', file=sys.stderr)
    return 1


def _slip(args: list[str]) -> str:
    """What is plainly wrong with arguments that rclpy refused: its own words are about its parser."""
    for option, given in pairwise((*_of_ros(args), '')):
        name, separator, value = given.partition(':=')
        if option in FORMS and not (separator and name):
            return f'{option} {given}'.rstrip() + f': expected {option} {FORMS[option]}'
        if option in FORMS and not value:
            empty = f'; an empty text is {name}:="\'\'"' if 'NAME' in FORMS[option] else ''
            return f'{option} {given}: expected {option} {FORMS[option]}{empty}'
        if option == '--params-file' and not given:
            return f'{option}: expected {option} FILE'
        if option == '--params-file' and not os.path.exists(given):
            return f'{option} {given}: there is no such file'
        if option == '--params-file' and os.path.isdir(given):
            return f'{option} {given}: expected a YAML file, got a folder'
        if option.startswith('-') and option not in (*FORMS, *OPTIONS):
            alike = get_close_matches(option, OPTIONS, n=1)
            return f'{option}: ROS has no such argument{f"; did you mean {alike[0]}?" if alike else ""}'
    return ''


def _of_ros(args: list[str]) -> Iterator[str]:
    """Those between --ros-args and --, of which there may be several."""
    is_inside = False
    for word in args:
        if word in ('--ros-args', '--'):
            is_inside = word == '--ros-args'
        elif is_inside:
            yield word


def _as_parameter(unknown: list[str], params: type[Params]) -> str:
    """Say how ROS takes what was given like an option of a command; empty where no parameter is like it."""
    if unknown[0] in (*FORMS, '--params-file', '--log-level'):
        more = f'did you mean --ros-args {" ".join(unknown)}?' if unknown[1:] else 'it goes behind --ros-args'
        return f'; {more}'
    option, _, value = unknown[0].partition('=')
    wanted = option.lstrip('-').replace('-', '_')
    if len(wanted) < LEAST_LETTERS:
        return ''
    names = [parameter.name for parameter in parameters(params)]
    value = value or ' '.join(word for word in unknown[1:2] if not word.startswith('--')) or 'VALUE'
    if len(alike := [name for name in names if name.endswith(f'_{wanted}')]) > 1:
        return f'; did you mean --ros-args -p NAME:={value} with one of {", ".join(alike)}?'
    alike += [name for name in names if name.startswith(wanted)] or get_close_matches(wanted, names, n=1)
    return f'; did you mean --ros-args -p {alike[0]}:={value}?' if alike else ''


def _parser(name: str, params: type[Params]) -> argparse.ArgumentParser:
    lines = [
        f'  {parameter.name}: {parameter.expected} (default {parameter.default!r})\n'
        f'      {parameter.description}'
        for parameter in parameters(params)
    ]
    return argparse.ArgumentParser(
        name,
        usage=f'{name} [--ros-args [-p PARAMETER:=VALUE] [-r FROM:=TO] [--params-file FILE]]',
        description='parameters, their types and defaults:\n' + '\n'.join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _spin_until_clock_lies(executor: SingleThreadedExecutor, name: str) -> bool:
    """Spin until the executor is shut down (True) or rclpy stumbles over a message on /clock (False).

    It raises for times below 0, through the executor of whoever has use_sim_time.
    """
    try:
        executor.spin()
    except ValueError as error:
        modules = [frame.f_globals.get('__name__') for frame, _ in traceback.walk_tb(error.__traceback__)]
        if 'rclpy.time_source' not in modules:
            raise
        get_logger(name).error(
            f'/clock: expected a time, got one that rclpy refuses ({error}); it is passed over',
            throttle_duration_sec=CLOCK_REMINDER_S,
        )
        return False
    return True


def _run(
    name: str,
    make_node: Callable[[Callable[[], None]], ClosableNode],
    stop: SimpleQueue[None],
    args: list[str],
) -> int:
    try:
        node = make_node(lambda: stop.put(None))
    except IsaacInferError as error:
        get_logger(name).fatal(describe(error))
        return 1
    for slip in param_files.slips_of(args, node.get_fully_qualified_name(), name):
        get_logger(name).warning(loggable(slip))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    failures: list[BaseException] = []

    def spin() -> None:
        try:
            while not _spin_until_clock_lies(executor, name):
                continue
        except ExternalShutdownException:
            pass
        except BaseException as error:  # handed to the main thread
            failures.append(error)
        finally:
            stop.put(None)

    thread = threading.Thread(target=spin, name='executor', daemon=True)
    is_stuck = False
    thread.start()
    try:
        stop.get()
    finally:
        executor.shutdown(timeout_sec=0)
        thread.join(STOP_TIMEOUT_S)
        try:
            if thread.is_alive():
                raise TimeoutError(f'a request is not done after {STOP_TIMEOUT_S:g} s; leaving without it')
            node.close()
            node.destroy_node()
        except TimeoutError as error:
            get_logger(name).warning(str(error))
            is_stuck = True
    if failures:
        get_logger(name).fatal(traced(failures[0]))
    code = 1 if failures else node.exit_code
    if is_stuck:
        # A thread is still inside a library that is about to be unloaded: leave without unloading it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
