"""A study's folder, which is its database: one writer, every file written atomically.

- ``trial``: ``trial.json`` and ``measurements.jsonl`` of a trial, and ``outcome.json``.
- ``folder``: ``config.json``, and whether the study can go on there.
- ``keys``: what results depend on: the fingerprint of a study, the keys by which trials share.
- ``recorded_code``: digests of code that an earlier version recorded, as today's would be.
- ``lock``: who runs the study.
- ``receipts``, ``forecast_ledger``: forecasts that were scored, in the study and in its workdir.

What lies in a folder is a contract: keys may be added, never renamed or dropped.
"""
