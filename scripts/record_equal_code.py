"""Records that today's code computes what that of an earlier revision did.

    scripts/record_equal_code REVISION

For who has changed code that results depend on (``budgetflow/engine/``, what a kind of study
decides) and has shown that no number changes: what was recorded with the code of that revision is
continued and reused by today's. Adds to the table in ``budgetflow/base/equal_code.py``.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "budgetflow/base/equal_code.py"
ENTRIES = re.compile(r"(?<=EQUAL: dict\[str, str\] = \{\n)(.*?)(?=^\})", re.DOTALL | re.MULTILINE)
# The digests of a revision, by what they are of: the engine, what configs name, kinds of study.
DIGESTS = """
import json
from budgetflow.base import source_code as code
from budgetflow.base.source_code import OWN
from budgetflow.studies.kinds import KINDS
parts = ("engine.models.", "engine.tasks", "engine.data.")
names = [n for n in code._own_modules() if n.removeprefix(OWN + ".").startswith(parts)]
found = {name: dict(code._digests(name)).get(OWN) for name in names}
found |= {name: code.policy_digests(kind.decide, None)[OWN] for name, kind in KINDS.items()}
print(json.dumps({"engine": code.framework_source()["source"], **found}))
"""


def digests(root: Path) -> dict[str, str]:
    """The digests of the code below a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", DIGESTS]
    result = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    return {name: digest for name, digest in json.loads(result.stdout).items() if digest}


def main(revision: str) -> None:
    """Adds a revision's digests, where today's are others, to the table."""
    command = ["git", "archive", revision]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        before = digests(Path(folder))
    today = digests(ROOT)
    added = {before[name]: today[name] for name in before.keys() & today.keys()}
    text = TABLE.read_text()
    head, entries, tail = ENTRIES.split(text, maxsplit=1)
    equal = dict(re.findall(r'"(.*?)": "(.*?)"', entries)) | added
    # What is today's is the end of a chain, as it is once a change is undone.
    equal = {then: now for then, now in equal.items() if then not in today.values()}
    lines = "".join(f'    "{then}": "{now}",\n' for then, now in sorted(equal.items()))
    TABLE.write_text(head + lines + tail)
    print(f"{len(added.keys() & equal.keys())} digests of {revision} are those of other code today")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
