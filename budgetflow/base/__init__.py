"""What every other package may import: it knows nothing of studies, and imports nothing of them.

- ``errors``: the errors that a user can act on, and hints that end their messages.
- ``files``: atomic, checked reading and writing of small files.
- ``file_system``: full, read-only or missing disks, as one line.
- ``workdir``: the folder that holds studies.
- ``disk_cache``: texts that are slow to make. ``life_cache``: results that end with their object.
- ``import_path``, ``user_code``: a user's objects by import path, and errors of a user's code.
- ``source_code``: digests of the code that a result depends on. ``equal_code``: which are equal.
- ``processes``, ``messages``, ``stopping``: several processes as one run, what these send each
  other, and stopping all of them by a signal.
"""
