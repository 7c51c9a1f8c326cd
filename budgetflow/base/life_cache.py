"""Results that are kept as long as the object that they are of."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def cached_for_its_life(function: Callable[[Any], Value]) -> Callable[[Any], Value]:
    """A function of one object, computed once for each and forgotten together with it.

    ``functools.cache`` would keep the object itself, and with a split all of its data. The result
    must not refer to the object.
    """
    results: MutableMapping[Any, Value] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def cached(of: Any) -> Value:
        if of not in results:
            results[of] = function(of)
        return results[of]

    return cached
