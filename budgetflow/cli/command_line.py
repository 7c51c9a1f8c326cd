"""The command line of every command: its flags, and those that set keys of a config.

A command's flags are made when it runs, in a namespace of their own: the program that budgetflow is
imported in may define flags of the same names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from budgetflow.base.errors import ConfigError, UserError, nearest
from budgetflow.config import default_config, load_config_file
from budgetflow.config.keys import changed_fields

# As absl has them; the last two list the flags of all libraries too.
HELP = ("-h", "-?", "-help", "--help", "-helpshort", "--helpshort", "-helpfull", "--helpfull")


_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        name: without dashes.
        default: its value where it is not given.
        help: what it does, in a sentence or two.
        type: of its value; if not set, that of the default, or a string.
        least: the least value of a number.
    """

    name: str
    default: str | float | bool | None
    help: str
    type: type[str | float | bool] | None = None
    least: float | None = None


# Of the commands that read studies.
WORKDIR = Flag("workdir", "runs", "A study's folder, or one that holds some.")


def flag_values(command_flags: Iterable[Flag]) -> flags.FlagValues:
    """The flags of a command at their defaults, in a namespace of their own."""
    values = flags.FlagValues()
    for flag in command_flags:
        bounds = {} if flag.least is None else {"lower_bound": flag.least}
        kind = flag.type or (str if flag.default is None else type(flag.default))
        _DEFINE[kind](flag.name, flag.default, flag.help, flag_values=values, **bounds)
    values.set_gnu_getopt(True)
    return values


def parse_flags(argv: Sequence[str], values: flags.FlagValues) -> None:
    """Parses the flags of a command that takes no config.

    Args:
        argv: the program's name and its arguments.
        values: by :func:`flag_values`.

    Raises:
        UserError: a flag is unknown or has a value that it cannot have, or an argument is no flag.
    """
    with _clear_errors(values):
        _check_no_more(values(list(argv)))


def parse(argv: Sequence[str], values: flags.FlagValues) -> config_dict.ConfigDict:
    """Parses the flags of a command that takes a config.

    Flags that the command does not have may be those of libraries or of the config's own modules.

    Args:
        argv: the program's name and its arguments, in any order.
        values: by :func:`flag_values`.

    Returns:
        The config of the file that --config names, with the keys set that flags set.

    Raises:
        UserError: a flag is unknown or has a value that it cannot have, or an argument is no flag.
        ConfigError: there is no config, or it is refused.
    """
    with _clear_errors(values):
        path, arguments = _split(values.read_flags_from_files(list(argv), force_gnu=False))
        config = load_config_file(path)
        for argument in arguments[1:]:
            _check_key(config, *argument.partition("=")[::2])
        of_config = flags.FlagValues()
        config_flags.DEFINE_config_dict(
            "config",
            config,
            lock_config=False,
            accept_new_attributes=True,
            flag_values=of_config,
            sys_argv=arguments,
        )
        of_config.set_gnu_getopt(True)
        flags.FLAGS.set_gnu_getopt(True)
        rest = values(of_config(arguments, known_only=True), known_only=True)
        _check_no_more(flags.FLAGS(rest))
    return config


@contextlib.contextmanager
def _clear_errors(values: flags.FlagValues) -> Iterator[None]:
    """Turns whatever absl and ml_collections make of odd arguments into user errors."""
    try:
        yield
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        hint = nearest(error.flagname, values)
        unknown = f"there is no flag --{error.flagname} (--help lists all); {hint}"
        raise UserError(unknown) from error
    except Exception as error:
        raise UserError(" ".join(str(error).split())) from error


def _check_no_more(arguments: Sequence[str]) -> None:
    """Checks that nothing is left of some arguments but the program's name."""
    if arguments[1:]:
        raise UserError(f"unexpected argument {arguments[1]!r}; flags start with --")


def _check_key(config: config_dict.ConfigDict, flag: str, value: str) -> None:
    """Checks that a flag like --config.a.b names a key of the config, or a new one where it may."""
    if not re.match(r"--?(no)?config\.", flag):
        return
    section: Any = config
    *sections, key = flag.split(".")[1:]
    for name in (*sections, key):
        is_section = isinstance(section, config_dict.ConfigDict)
        is_new = is_section and name not in section
        if not is_section or not name or (is_new and (section.is_locked or name in sections)):
            raise ConfigError(
                f"{flag}: {name!r} does not exist; {nearest(name, section if is_section else ())}"
            )
        section = section.get(name)
    if isinstance(section, config_dict.ConfigDict) and not value.startswith("{"):
        keys = f"{flag}.{next(iter(section), '…')}=…"
        raise ConfigError(
            f"{flag} = {value}: should be a dictionary; or set its keys, as in {keys}"
        )


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """The path that --config names, and all other arguments, keys of the config as key=value."""
    path, others, left = "", argv[:1], argv[:0:-1]
    while left:
        argument = left.pop()
        flag, equals, value = argument.partition("=")
        if not re.fullmatch(r"--?config(\..*)?", flag):
            others.append(argument)
            continue
        if not equals and left and not re.match(r"--?[A-Za-z]", left[-1]):
            value = left.pop()
            argument = f"{flag}={value}"
        if flag in ("--config", "-config"):
            path = value
        else:
            others.append(argument)
    if not path:
        raise ConfigError("--config is missing; name a file, as in --config=configs/lr_sweep.py")
    return path, others


def flags_help(values: flags.FlagValues) -> str:
    """The flags of a command, each with what it does and its default."""
    lines = ["Flags:"]
    for name in sorted(values):
        flag = values[name]
        text = f"--{'[no]' if flag.boolean else ''}{name}: {flag.help}"
        if flag.default not in (None, "", False):
            text += f" (default: {flag.default})"
        lines.append(flags.text_wrap(text, length=100, indent="    ", firstline_indent="  "))
    return "\n".join(lines)


def config_keys_help(argv: Sequence[str]) -> str:
    """The keys of the config that --config names, or of a default one, each as a flag sets it."""
    try:
        config, whose = load_config_file(_split(list(argv))[0]), "the config file"
    except ConfigError:
        config, whose = default_config("round"), "budgetflow.config, where they are explained"
    fields = changed_fields(config.to_dict())
    names = sorted(fields, key=lambda name: name.split("."))
    lines = [f"  --config.{name}={fields[name]}" for name in names]
    return "\n".join([f"Keys of a config, as they are in {whose}:", *lines])


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether an argument asks for help."""
    return not set(HELP).isdisjoint(argv)


def run_command(
    description: str | None,
    command_flags: Iterable[Flag],
    command: Callable[[flags.FlagValues], int],
) -> None:
    """Runs a command that takes no config, on the process's command line, and ends the process.

    A user error becomes one line and exit status 2.

    Args:
        description: what ``--help`` prints above the flags.
        command_flags: its flags.
        command: given their values, does it and returns the exit status.
    """
    values = flag_values(command_flags)
    if asks_for_help(sys.argv):
        print(f"{description}\n{flags_help(values)}")
        sys.exit(0)
    try:
        parse_flags(sys.argv, values)
        sys.exit(command(values))
    except UserError as error:
        print_error(error)
        sys.exit(2)


def print_error(error: UserError) -> None:
    """Prints a user error in one line; below its traceback, where --traceback asks for it."""
    if "--traceback" in sys.argv:  # flags may not be parsed yet
        traceback.print_exception(error)
    print(f"budgetflow: {error}", file=sys.stderr)
