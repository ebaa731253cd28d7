"""metrics.jsonl is the record of a run, also of one that was killed."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from jaxtrain.runtime.metrics import MetricsLog, show


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_is_written_when_the_next_one_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsLog(path)
    assert log.step(1, {"loss": jnp.float32(3.5)}) is None
    assert lines(path) == []
    before = log.step(2, {"loss": jnp.float32(2.5)})
    assert before is not None and (before["step"], before["loss"]) == (1, 3.5)
    log.write(1, {"kind": "heldout", "bits_per_byte": 1.25})
    log.flush()
    log.close()
    assert [(line["step"], line.get("loss")) for line in lines(path)] == [(1, 3.5), (1, None), (2, 2.5)]
    assert all(line["seconds"] >= 0 for line in lines(path) if "loss" in line)


def test_what_a_killed_run_wrote_past_its_checkpoint_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "kind": "heldout"}\n{"step": 3}\n{"step": 4, "lo')
    log = MetricsLog(path, resume_step=2)
    log.step(3, {"loss": 1.0})
    log.flush()
    log.close()
    assert [line["step"] for line in lines(path)] == [1, 2, 2, 3]
    MetricsLog(path).close()
    assert lines(path) == []


def test_the_console_line_has_step_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    show(7, 400, {"loss": 3.14159, "tokens/s": 12345.0})
    assert capsys.readouterr().err == "step     7/400  loss 3.142  tokens/s 1.234e+04\n"
