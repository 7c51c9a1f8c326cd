"""Digests of budgetflow's own code that compute the same, so that folders stay usable.

When code that results depend on changes and no number does, what was recorded with it would not be
continued or reused. Whoever makes such a change, and has shown that it changes no number, records
it here by ``scripts/record_equal_code REVISION``.
"""

from __future__ import annotations

from typing import Any

from budgetflow.base.source_code import OWN, framework_source

# What is equal changes no result: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True
# A digest that was recorded, and that of later code which computes the same. Of the earliest
# folders: of all of budgetflow, and of the modules behind a field, as they follow each other.
EQUAL: dict[str, str] = {
    "007ad5179825ef0b": "c30e16de3bc05b69",
    "153034a2704a7ce3": "b3896ee800b83e98",
    "2675392f3354fb79": "8760647e4b26e77c",
    "6e84ffe8ff7ee7b2 92e0ea7b6fd96d04": "1e9b2da63a12de27",
    "8498281324d30a53": "15441043dae0b2fb",
    "898d8bba6ee6ed31": "6486b0b404caa964",
    "92e0ea7b6fd96d04 8b03101949a12fa2": "878d934237398e62",
    "92e0ea7b6fd96d04 a72ab2a428e33532": "a37cb083db3c5841",
    "b0888b9ae1706263 f552549f6cb774c2": "30cad26d1e4b8ec3",
    "c19ec3f0298a12d7 f800ebc8a325f3b8": "7cbec1a04fc3c132",
}


def latest(digest: str) -> str:
    """The digest of the latest code that computes the same as that of an earlier one."""
    while digest in EQUAL:
        digest = EQUAL[digest]
    return digest


def with_todays_digests(recorded: dict[str, Any], today: dict[str, Any] | None = None) -> Any:
    """A key with today's digests of code where today's code computes the same.

    The first version recorded other digests: of all of budgetflow together, and of its modules by
    their names, but not of what a kind decides.

    Args:
        recorded: a key of states, or what a study is found on.
        today: the same of today, as far as it is known.
    """
    own = recorded.get(OWN, {})
    source = latest(own.get("source", ""))
    is_first_version = "version" in own
    if is_first_version and source != framework_source()["source"]:
        return recorded
    code_today = (today or {}).get("code", {}) if is_first_version else {}
    code = {
        field: _renewed(digests, code_today.get(field, {}))
        for field, digests in recorded.get("code", {}).items()
    }
    if "kind" in code_today:
        code.setdefault("kind", code_today["kind"])
    renewed = {"code": code, OWN: {"source": source}}
    return {**recorded, **{name: value for name, value in renewed.items() if name in recorded}}


def _renewed(digests: dict[str, str], today: dict[str, str]) -> dict[str, str]:
    """The digests of the code behind a field, with today's of budgetflow's own."""
    own = [digest for name, digest in sorted(digests.items()) if name.partition(".")[0] == OWN]
    renewed = {n: digest for n, digest in digests.items() if n.partition(".")[0] != OWN}
    if own:
        renewed[OWN] = latest(" ".join(own))
    elif OWN in today:  # of a user's code, budgetflow's own was not recorded
        renewed[OWN] = today[OWN]
    return renewed
