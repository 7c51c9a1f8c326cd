"""The command line: a config file, and flags that set keys of its config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from budgetflow.base.errors import ConfigError, UserError, nearest
from budgetflow.config import default_config, load_config_file

# As absl has them; the last prints the flags of all libraries too.
HELP = ("-h", "-?", "-help", "--help", "-helpshort", "--helpshort", "-helpfull", "--helpfull")


def parse(argv: Sequence[str], others: flags.FlagValues) -> config_dict.ConfigDict:
    """Parses all flags.

    Args:
        argv: the program's name and its arguments, in any order.
        others: the flags besides --config and those that set keys of it.

    Returns:
        The config of the file that --config names, with the keys set that flags set.

    Raises:
        UserError: a flag is unknown or has a value that it cannot have, or an argument is no flag.
        ConfigError: there is no config, or it is refused.
    """
    try:
        path, arguments = _split(others.read_flags_from_files(list(argv), force_gnu=False))
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
        others.set_gnu_getopt(True)
        rest = others(of_config(arguments, known_only=True))
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{error}; --help lists all flags") from error
    except Exception as error:  # whatever absl and ml_collections make of odd arguments
        raise UserError(" ".join(str(error).split())) from error
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; flags start with --")
    return config


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


def describe(argv: Sequence[str]) -> str:
    """The keys of the config that --config names, or of a default one, each as a flag sets it."""
    try:
        config, whose = load_config_file(_split(list(argv))[0]), "the config file"
    except ConfigError:
        config, whose = default_config("round"), "budgetflow.config, where they are explained"
    lines = [f"  --config.{name}={value}" for name, value in _leaves(config)]
    return "\n".join([f"Keys of a config, as they are in {whose}:", *lines])


def _leaves(config: config_dict.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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
