"""The errors a user can act on. The launcher prints them on one line and exits with status 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the config, the command line or a study's folder that only the user can mend."""


class ConfigError(UserError):
    """A config that is refused, with the bad value named and the nearest good one if there is."""


class DamagedFileError(UserError):
    """A file in a study's folder that is not what was written there."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that ends an error message: the valid name nearest to ``name``, or all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid: {', '.join(names)}" if names else "none is valid here"
