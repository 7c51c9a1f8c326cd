"""The errors a user can act on. The launcher prints them on one line and exits with status 2."""

import difflib
import itertools
from collections.abc import Callable, Iterable

# Errors and their texts: left out of the keys of results, see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

# More names, or a longer value, would not be read.
MOST_NAMES = 32
MOST_CHARACTERS = 80


class UserError(Exception):
    """Something in the config, the command line or a study's folder that only the user can mend."""

    def __str__(self) -> str:
        """The message on one line, whatever it was made of."""
        return " ".join(line.strip() for line in super().__str__().splitlines())


class StoppedError(Exception):
    """Ends a run that was asked to stop, once all is saved."""


class ConfigError(UserError):
    """A config that is refused, with the bad value named and the nearest good one if there is."""


class DamagedFileError(UserError):
    """A file in a study's folder that is not what was written there."""


def shown(value: object) -> str:
    """A value for an error message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that ends an error message: the valid name nearest to ``name``, or what is valid."""
    names = sorted(valid)
    by_lower = {valid_name.lower(): valid_name for valid_name in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean {by_lower[close[0]]!r}?"
    more = ", …" if len(names) > MOST_NAMES else ""
    return f"valid: {', '.join(names[:MOST_NAMES])}{more}" if names else "none is valid here"


def nearest_numbers(number: int, valid: Callable[[int], bool]) -> str:
    """A hint that ends an error message: the valid numbers next to ``number``, from 1 up."""
    # Far enough for the multiples of any number of devices, and for what divides a batch.
    near = range(number - 1, max(number - 2**16, 0), -1)
    divisors = range(min(number - 1, 2**16), 0, -1)
    below = next((n for n in itertools.chain(near, divisors) if valid(n)), None)
    above = next((n for n in range(number + 1, number + 2**16) if valid(n)), None)
    numbers = [str(n) for n in (below, above) if n is not None]
    return f"nearest that fits: {' or '.join(numbers)}" if numbers else "no other number fits"
