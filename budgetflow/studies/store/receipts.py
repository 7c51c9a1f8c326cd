"""The receipts of forecasts on disk: those a study begins with, and those that it adds.

A study's forecast is widened by the receipts that its workdir held when it was begun, and its own;
they are written down then. So what other studies find meanwhile does not change its outcome, and
killing it and starting it again does not either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from etils import epath

from budgetflow.base import processes
from budgetflow.base.files import finite, read_json, write_json
from budgetflow.playbook.common.outcomes import Outcome, TrialsOutcome
from budgetflow.playbook.forecasts.scored import Receipt, receipts_from
from budgetflow.studies.store.forecast_ledger import add_to_ledger, read_ledger
from budgetflow.studies.store.lock import locked

# In a study's folder.
RECEIPTS = "receipts.json"


@dataclasses.dataclass(frozen=True)
class Begun:
    """The receipts that a study begins with.

    Attributes:
        receipts: of the forecasts that were scored before.
        damaged: the lines of the ledger that could not be read, in words.
    """

    receipts: tuple[Receipt, ...] = ()
    damaged: tuple[str, ...] = ()


def begin_with_receipts(folder: epath.Path) -> None:
    """Writes down the receipts that a study's workdir holds as it is begun."""
    ledger = read_ledger(folder.parent)
    if ledger.rows or ledger.damaged:
        content = {"receipts": list(ledger.rows), "damaged": list(ledger.damaged)}
        write_json(folder / RECEIPTS, content)
    else:
        (folder / RECEIPTS).unlink(missing_ok=True)


def begun_with(folder: epath.Path) -> Begun:
    """The receipts that a study was begun with; none in folders of earlier versions."""
    path = folder / RECEIPTS
    if not path.exists():
        return Begun()
    content = read_json(path)
    return Begun(receipts_from(content["receipts"]), tuple(content["damaged"]))


def keep_receipts(folder: epath.Path, outcome: Outcome) -> None:
    """Adds the receipts of a study's outcome to its workdir's ledger, once; nobody else's are lost.

    Before the outcome is written: a kill in between costs none.
    """
    if not (isinstance(outcome, TrialsOutcome) and outcome.receipts):
        return
    rows = [finite(dataclasses.asdict(receipt)) for receipt in outcome.receipts]
    with locked(folder.parent, wait=True, say=lambda words: None):
        processes.on_main(add_to_ledger, folder.parent, rows, _name)


def by_name(receipts: Iterable[Receipt]) -> dict[str, Receipt]:
    """Receipts by the forecast that each is of."""
    return {receipt.name: receipt for receipt in receipts}


def _name(row: dict[str, Any]) -> str:
    return f"{row['study']} ({row['fingerprint']}) at {row['length_steps']} steps"
