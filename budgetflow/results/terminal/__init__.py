"""What is shown on a terminal, in a log and in a notebook.

- ``printing``: outcomes, plans and tables.
- ``progress``: the display of a study while it runs.
"""
