"""The commands, and launching from Python.

- ``main``: the command ``budgetflow``; its first argument names a module of this package.
- ``launch``: runs the study of a config and those that it builds on; ``launch_flags``, its flags.
- ``show``, ``report``, ``check``: print, report and verify studies by their folders alone.
- ``command_line``: flags in a namespace of their own, and flags that set keys of a config.
- ``dry_run``: the plan that ``--dry_run`` prints.
- ``from_python``: the function ``budgetflow.launch``.

A new command is a module here with a function ``run``, a line in ``main.COMMANDS``, and a module of
its name in ``budgetflow/`` for ``python -m``.
"""
