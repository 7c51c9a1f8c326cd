import pytest
from conftest import edited_config, run

from budgetflow.base.errors import UserError
from budgetflow.cli import check
from budgetflow.cli.command_line import WORKDIR, flag_values, parse_flags
from budgetflow.results.checking import checks


def told(capsys, *arguments):
    """What the command prints, and its exit status."""
    values = flag_values([WORKDIR])
    parse_flags(["check", *(f"--{argument}" for argument in arguments)], values)
    status = check.main(values)
    return capsys.readouterr().out, status


def test_all_is_as_it_was_written(completed_workdir, capsys):
    output, status = told(capsys, f"workdir={completed_workdir}")
    assert status == 0 and output.count("all as it was written") == 3
    checked = {each.about.name for each in checks(completed_workdir / "round1")}
    assert checked >= {"config.json", "outcome.json", "checksums.json", "0000", "0015"}


def test_every_damage_is_named_with_what_it_costs(workdir, capsys):
    for name, spoil in (
        ("lr_sweep/config.json", lambda path: path.unlink()),
        ("round1/outcome.json", lambda path: path.write_text(path.read_text().replace("1", "2"))),
        ("round1/trials/0003/measurements.jsonl", lambda path: path.unlink()),
        ("round2/trials/0000/checksums.json", lambda path: path.unlink()),
    ):
        spoil(workdir / name)
    output, status = told(capsys, f"workdir={workdir}")
    assert status == 1
    for text in (
        "lr_sweep/config.json is missing. It costs nothing here can be read",
        "round1/outcome.json is damaged",
        "0003/measurements.jsonl is missing",
        "the training of all its steps, again",
        "has no checksum in",
        "the parameters of the trial's best step",
    ):
        assert text in output, text


def test_what_it_says_of_an_outcome_is_true(workdir, capsys):
    found = (workdir / "round1" / "outcome.json").read_text()
    (workdir / "round1" / "outcome.json").write_text("{")
    output, status = told(capsys, f"workdir={workdir / 'round1'}")
    assert status == 1 and "It costs no training: delete it and launch again" in output
    assert output.count("outcome.json is damaged") == 1
    (workdir / "round1" / "outcome.json").unlink()
    run(edited_config("round1"), workdir)
    assert (workdir / "round1" / "outcome.json").read_text() == found
    assert told(capsys, f"workdir={workdir / 'round1'}")[1] == 0


def test_what_it_says_of_a_studys_checksums_is_true(workdir, capsys):
    (workdir / "round1" / "checksums.json").write_text("{")
    output, _ = told(capsys, f"workdir={workdir / 'round1'}")
    assert "checksums.json is damaged" in output
    assert "no training: delete outcome.json and launch again" in output
    (workdir / "round1" / "outcome.json").unlink()
    run(edited_config("round1"), workdir)
    assert told(capsys, f"workdir={workdir / 'round1'}")[1] == 0


def test_no_study_is_said(tmp_path, capsys):
    with pytest.raises(UserError, match="there are no studies in"):
        told(capsys, f"workdir={tmp_path}")
