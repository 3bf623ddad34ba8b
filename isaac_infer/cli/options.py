"""Options: the nodes' parameters as command-line options, with hyphens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeVar

from isaac_infer.params import TYPE_NAMES, Parameter, Params, parameters

ALIASES = {'model_file_path': '--model'}

P = TypeVar('P', bound=Params)


def add_options(parser: argparse.ArgumentParser, kind: type[Params]) -> None:
    """Add an option for every parameter of a set, after all others; one that is not given is None."""
    # Or forty lines of parameters would come before every word of help.
    own = ' '.join(parser.format_usage().removeprefix('usage: ').split())
    parser.usage = f'{own} [parameters]'
    group = parser.add_argument_group('parameters')
    for parameter in parameters(kind):
        flags = [f'--{parameter.name.replace("_", "-")}']
        if parameter.name in ALIASES:
            flags.insert(0, ALIASES[parameter.name])
        group.add_argument(*flags, dest=parameter.name, help=_help(parameter), **_reading(parameter))


def given_values(args: argparse.Namespace, kind: type[Params]) -> dict[str, Any]:
    """The parameters that were given on the command line."""
    values = {}
    for parameter in parameters(kind):
        value = getattr(args, parameter.name)
        if value is not None:
            values[parameter.name] = _flat(value, parameter) if isinstance(value, list) else value
    return values


def params_from(args: argparse.Namespace, kind: type[P]) -> P:
    """The parameter set that the command line describes.

    Raises:
        ParameterError: a value is out of range, or contradicts another.
    """
    return kind().changed(**given_values(args, kind))


def _reading(parameter: Parameter) -> dict[str, Any]:
    """How argparse reads a parameter."""
    if parameter.type is bool:
        return {'type': _boolean, 'nargs': '?', 'const': True, 'metavar': 'true|false'}
    if parameter.choices:
        # Not argparse's own choices: Parameter.check refuses with the same words as everywhere else.
        return {'type': str, 'metavar': '|'.join(choice for choice in parameter.choices if choice)}
    if parameter.type in (int, float, str):
        return {'type': parameter.type, 'metavar': TYPE_NAMES[parameter.type].upper()}
    item = TYPE_NAMES[parameter.type].removesuffix('[]').upper()
    return {'type': str, 'nargs': '+', 'metavar': item}


def _help(parameter: Parameter) -> str:
    default = parameter.default
    shown = (
        '' if default in ('', []) else f' (default: {str(default).lower() if default is True else default})'
    )
    return (parameter.description + shown).replace('%', '%%')


def _boolean(text: str) -> bool:
    if text.strip().lower() in ('true', '1', 'yes', 'on'):
        return True
    if text.strip().lower() in ('false', '0', 'no', 'off'):
        return False
    raise argparse.ArgumentTypeError(f'expected true or false, got {text!r}')


def _flat(texts: list[str], parameter: Parameter) -> list[Any]:
    """Read `1 2 3` and `1,2,3` alike; among several texts a comma belongs to the text."""
    if parameter.type == list[str]:
        if len(texts) > 1 or '=' in texts[0] or Path(texts[0]).is_file():  # shapes have commas
            return texts
        return [text.strip() for text in texts[0].split(',') if text.strip()]
    numbers = [text for entry in texts for text in entry.split(',') if text.strip()]
    return [_number(text, parameter) for text in numbers]


def _number(text: str, parameter: Parameter) -> Any:
    """Read a number; what is none stays text, so that the parameter's own check refuses it."""
    try:
        return (int if parameter.type == list[int] else float)(text)
    except ValueError:
        return text
