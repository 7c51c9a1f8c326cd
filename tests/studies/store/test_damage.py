"""Whatever happens to a file of a study: the right answer, or one line that names the file.

DAMAGE_CASES=250 scripts/test tests/studies/store/test_damage.py -m slow   # 500 of them, on two
snapshots
"""

import json
import os
import random
import shutil

import pytest
from conftest import run, write_chain
from test_folder import interrupted

from budgetflow.base.errors import UserError
from budgetflow.config import load_config_file
from budgetflow.results.reading import open_studies

CASES = int(os.environ.get("DAMAGE_CASES", "30"))
OPERATIONS = ("flip", "truncate", "delete", "duplicate", "swap", "other time")


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    """The folders of a chain of two rounds, once complete and once with the second under way."""
    folder = tmp_path_factory.mktemp("damage")
    config = write_chain(folder)
    config.checkpoints.every_seconds = 0.0
    for name in ("complete", "under_way"):
        run(load_config_file(folder / "first.py"), folder / name)
    run(config, folder / "complete")
    interrupted(config, folder / "under_way")
    return folder


def launched(snapshots, workdir):
    """What a launch of the chain finds: all of the outcome that damage must not change."""
    config = load_config_file(snapshots / "second.py")
    config.checkpoints.every_seconds = 0.0
    outcome, _ = run(config, workdir)
    outcome = json.loads(json.dumps(outcome))
    return {
        key: outcome.get(key)
        for key in ("best_trial", "best_step", "best_validation", "best_test", "trials", "diverged",
                    "best_step_diagnosis", "transfer", "max_train_steps", "fingerprint")
    }  # fmt: skip


def read(workdir):
    """What a reader sees of all studies: outcomes, measurements and the best parameters."""
    found = {}
    for name, study in open_studies(workdir).items():
        outcome = study.outcome
        rows = study.measurements()
        params = study.best_trial.restore_params() if outcome else None
        found[name] = (repr(outcome), rows.to_csv(), repr(params))
    return found


def damage(generator, operation, victim, other, at_another_time):
    content = victim.read_bytes()
    if operation == "flip":
        changed = bytearray(content)
        changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        victim.write_bytes(changed)
    elif operation == "truncate":
        victim.write_bytes(content[: generator.randrange(len(content))])
    elif operation == "delete":
        victim.unlink()
    elif operation == "duplicate":
        victim.write_bytes(content + content)
    elif operation == "swap":
        victim.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif at_another_time.exists():
        victim.write_bytes(at_another_time.read_bytes())


def files_of(folder):
    """The files of all studies that anything is read from."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    left_out = ("report.html", "timing.json")
    return sorted(path for path in files if path.name not in left_out)


def check(snapshots, workdir, state, seed):
    """Damages one file of a copy of a snapshot, and says what is wrong with what comes of it."""
    generator = random.Random(seed)
    shutil.copytree(snapshots / state, workdir)
    files = files_of(workdir)
    # Checkpoints have the most files, and are the least likely to be read.
    records = [path for path in files if "checkpoints" not in path.parts]
    files = generator.choice([files, records])
    operation = generator.choice(OPERATIONS)
    victim = generator.choice(files)
    others = [path for path in files if path.name == victim.name and path != victim]
    other = generator.choice(others or files)
    counterpart = {"complete": "under_way", "under_way": "complete"}[state]
    damage(
        generator,
        operation,
        victim,
        other,
        at_another_time=snapshots / counterpart / victim.relative_to(workdir),
    )
    case = f"{state} {seed}: {operation} {victim.relative_to(workdir)}"
    if operation == "swap":
        case += f" with {other.relative_to(workdir)}"
    wrong = []
    for what, action in (("read", read), ("launched", lambda path: launched(snapshots, path))):
        try:
            found = action(workdir)
        except UserError as error:
            named = [victim, other] if operation == "swap" else [victim]
            # Which one of two that do not belong together was changed, nobody can know.
            records = ("config.json", "checksums.json", "trial.json", "measurements.jsonl")
            named += [path.parent for path in named if path.name in records]
            if not any(str(path) in str(error) for path in named):
                wrong.append(f"{case}: {what}: not named in: {error}")
        except Exception as error:
            wrong.append(f"{case}: {what}: {type(error).__name__}: {error}")
        else:
            # One that lost its outcome, or a record while under way, is what a kill leaves too.
            name = {"complete": "outcome.json", "under_way": "trial.json"}[state]
            as_killed = operation == "delete" and victim.name in (name, "outcome.json")
            if found != expected(snapshots, state)[what] and not (as_killed and what == "read"):
                wrong.append(f"{case}: {what}: another result")
    shutil.rmtree(workdir)
    return wrong


_EXPECTED = {}


def expected(snapshots, state):
    if state not in _EXPECTED:
        copy = snapshots / f"copy_of_{state}"
        shutil.copytree(snapshots / state, copy)
        _EXPECTED[state] = {"read": read(copy), "launched": launched(snapshots, copy)}
    return _EXPECTED[state]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["complete", "under_way"])
def test_damage_is_mended_or_named(snapshots, tmp_path, state):
    wrong = [w for seed in range(CASES) for w in check(snapshots, tmp_path / "runs", state, seed)]
    assert not wrong, "\n".join(wrong)


def test_another_record_in_place_of_an_outcome_is_named(snapshots, tmp_path):
    shutil.copytree(snapshots / "complete", tmp_path / "runs")
    outcome = tmp_path / "runs" / "first" / "outcome.json"
    shutil.copy(outcome.with_name("begun.json"), outcome)
    for action in (read, lambda workdir: launched(snapshots, workdir)):
        with pytest.raises(UserError, match=f"{outcome} holds no outcome"):
            action(tmp_path / "runs")
