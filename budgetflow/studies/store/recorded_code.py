"""What a folder records of code, as today's code would have recorded it where it does the same."""

from __future__ import annotations

from typing import Any

from budgetflow.base.equal_code import EQUAL
from budgetflow.base.source_code import OWN, framework_source


def latest(digest: str) -> str:
    """The digest of the latest code that computes the same as that of an earlier one."""
    while digest in EQUAL:
        digest = EQUAL[digest]
    return digest


def with_todays_digests(recorded: dict[str, Any]) -> dict[str, Any]:
    """A key with today's digests of code where today's code computes the same.

    Args:
        recorded: a key of states, or what a study is found on.
    """
    own = recorded.get(OWN, {})
    source = latest(first := own.get("source", ""))
    # The first version also recorded its number, but not the code that decides.
    is_first_version = "version" in own
    if is_first_version and source != framework_source()["source"]:
        return recorded
    code = {field: renewed(digests) for field, digests in recorded.get("code", {}).items()}
    policy = f"{first} {recorded.get('kind')}"
    if is_first_version and policy in EQUAL:
        code.setdefault("kind", {OWN: latest(policy)})
    today = {"code": code, OWN: {"source": source}}
    return {**recorded, **{name: value for name, value in today.items() if name in recorded}}


def renewed(digests: dict[str, str]) -> dict[str, str]:
    """The digests of the code behind a field, with today's of budgetflow's own."""
    own = [digest for name, digest in sorted(digests.items()) if name.partition(".")[0] == OWN]
    others = {n: digest for n, digest in digests.items() if n.partition(".")[0] != OWN}
    return others | ({OWN: latest(" ".join(own))} if own else {})
