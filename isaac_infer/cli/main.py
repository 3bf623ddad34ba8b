"""`isaac-infer`: the command line; finds the sub-command, runs it, and turns errors into one line."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from isaac_infer.core.errors import IsaacInferError, ParameterError
from isaac_infer.core.text import without_commands

# Sub-command -> what it is for. Each is the module of that name, imported only when it is asked for.
COMMANDS = {
    'run': "find objects, masks or persons' key points in pictures, folders, videos or cameras",
    'demo': 'run a model on pictures, or a simulated robot, over ROS 2 and show what came of it',
    'inspect': 'show what a model file holds and how it will be used',
    'decoders': 'list the output layouts that are understood',
    'evaluate': 'measure a model (detection, segmentation, pose) on drawn scenes',
    'build': 'build the TensorRT engine of an ONNX model',
    'bench': 'measure how fast a model runs',
    'compare': 'measure how precisions and backends of one model agree',
    'validate': 'check models, board, topics and nodes against a manifest',
    'board': 'show load, clocks, memory, temperatures, power and power mode of this board',
}
SIMILAR = 0.75  # from which share of common letters on one option may have been meant by another


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; 0: done, 1: failed, 2: asked for the impossible, 130: interrupted."""
    # Read when OpenCV is imported: what goes wrong with a source is raised, and said once.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'ERROR')
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # AV_LOG_QUIET
    if sys.stdout is None:  # closed by the shell (>&-)
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
    # Names of files and classes may hold what the terminal's encoding lacks; standard error does this anyway.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    if argv is None:  # a process of its own: what was made for a while is removed when it is ended
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup: it goes on
                signal.signal(number, lambda number, _: sys.exit(128 + number))
    arguments = [_shielded(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    try:
        args = _parser(arguments).parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except ParameterError as error:
        return _report(error, 2)
    except (IsaacInferError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # who read our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return _report(error, 1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith('isaac_infer'):
            raise
        return _report(
            IsaacInferError(
                f'the Python module {error.name} is missing; without ROS, pip brings all that is needed: '
                'pip install numpy onnxruntime opencv-python-headless pyyaml rich'
            ),
            1,
        )
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """Refuses what it does not know itself, with its own usage and what may have been meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = {option.lstrip('-'): option for option in self._option_string_actions}
            words = [each.split('=')[0].lstrip('-') for each in unknown]
            alike = [
                known[near] for word in words for near in get_close_matches(word, known, n=1, cutoff=SIMILAR)
            ]
            hint = f'; did you mean {", ".join(alike)}?' if alike else ''
            if meant := known.get(words[0].replace('_', '-')):
                hint = f'; did you mean {meant}?'
            elif nodes := _nodes_with(words[0].replace('-', '_')):
                hint = f'; {words[0]} is a parameter of {nodes}, and no option here'
            if not unknown[0].startswith('-') and any(not action.option_strings for action in self._actions):
                is_source = '--source' in self._option_string_actions and _is_source(unknown[0])
                told = (
                    'pictures go after --source' if is_source else 'name models together, before the options'
                )
                hint = f'; {told}'
            self.error(f'unrecognized arguments: {" ".join(unknown)}{hint}')
        return parsed, unknown


def _is_source(text: str) -> bool:
    from isaac_infer.cli.models import is_source  # slow to import

    return is_source(text)


def _nodes_with(parameter: str) -> str:
    """Name the nodes that have a parameter; empty where none has it."""
    from isaac_infer.params import nodes_with  # slow to import

    return ', '.join(nodes_with(parameter))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog='isaac-infer', description='Neural networks on pictures, for robots.')
    parser.add_argument('--version', action='store_true', help='print the version and exit')
    parser.set_defaults(run=lambda args: _without_command(parser, args))
    subparsers = parser.add_subparsers(title='sub-commands', metavar='COMMAND')
    asked = arguments[0] if arguments else ''
    for name, purpose in COMMANDS.items():
        if name == asked:
            importlib.import_module(f'isaac_infer.cli.{name}').add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=purpose)
    return parser


def _without_command(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.version:
        from isaac_infer import __version__

        print(f'isaac-infer {__version__}')
        return 0
    parser.print_help(sys.stderr)
    return 2


def _shielded(argument: str) -> str:
    """Put a space before negative numbers such as -1e-3 and -1,-2, which argparse takes for options."""
    return f' {argument}' if re.fullmatch(r'-[\d.][\d.eE,+-]*', argument) else argument


def _report(error: Exception, code: int) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    print(f'isaac-infer: error: {without_commands(text)}', file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
