"""A refused batch is shown as text: its numbers, its records, its documents."""

import json

import numpy as np
import pytest

from jaxtrain import cli
from jaxtrain.report import incident, inspect
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import train
from jaxtrain.train.guard import Limits
from jaxtrain.train.recovery import keep


@pytest.fixture
def folder(tmp_path):
    """Two refused batches of a run: a row of two documents, one of the same token."""
    tokenizer = train(["The city of Paris. She said so. " * 20], vocab_size=280)
    tokenizer.save(tmp_path / "tokenizer")
    first, second = tokenizer.encode("The city of Paris"), tokenizer.encode("She said so")
    ids = np.zeros((2, 40), np.int32)
    segments = np.zeros((2, 40), np.int32)
    ids[0, : len(first)], segments[0, : len(first)] = first, 1
    at = slice(len(first), len(first) + len(second))
    ids[0, at], segments[0, at] = second, 2
    ids[1, :30], segments[1, :30] = 7, 1
    weights = np.ones((2, 40), np.float32)
    weights[1, 3] = np.inf
    held = Limits(np.array([2.0, 1.0]), np.array([0.1, 0.2]), np.array([2.6, 2.2]))
    records = lambda index: [{"row": 0, "source": "web", "record": index}]  # noqa: E731
    for index, loss in ((11, np.inf), (12, 9.5)):
        line = {"loss": loss, "grad_norm": 3.5, "targets": 60.0, "refused_in_a_row": index - 10}
        line["step"] = index + 1
        batch = {"tokens": ids, "segment_ids": segments, "loss_weights": weights}
        keep(tmp_path / "incidents", index, batch, line, held, records)
    return tmp_path / "incidents"


def test_one_batch(folder):
    told = incident.text(folder / "batch-00000011")
    assert told.startswith("batch 11, refused at step 12 (number 1 in a row)")
    assert "loss" in told and "inf   limit 2.6, accepted before 2 ± 0.1" in told
    assert "3.5   limit 2.2, accepted before 1 ± 0.2" in told
    assert "record {'row': 0, 'source': 'web', 'record': 11}" in told
    assert "process-0: loss_weights is not finite in rows [1]" in told
    assert "process-0 row 0 document 1, " in told and ": 'The city of Paris'" in told
    assert "document 2, " in told and ": 'She said so'" in told
    assert "row 1 document 1, 30 tokens, 100% one token (7)" in told


def test_all_of_a_run_by_the_command(folder, capsys):
    cli.main(["inspect", str(folder)])
    told = capsys.readouterr().out
    assert "batch 11, refused" in told and "batch 12, refused" in told and "9.5   limit" in told


def test_what_is_no_incident_is_one_line(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds nothing to inspect"):
        inspect.inspect(inspect.InspectConfig(folder=str(tmp_path / "empty")))
    (folder / "batch-00000011" / "process-0.npz").unlink()
    with pytest.raises(UserError, match="its batch was not kept"):
        incident.text(folder / "batch-00000011")


def test_numbers_are_json_that_any_reader_takes(folder):
    text = (folder / "batch-00000011" / "incident.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["loss"]["value"] == "inf"
