"""Power and energy in the lines of speed, of a processor whose counters are files, and the time left."""

from pathlib import Path

import pytest

from jaxtrain.runtime.energy import Meter
from jaxtrain.train import pace as paces
from jaxtrain.train.pace import Goodput, Pace


def test_watts_and_joules_a_token_are_those_since_the_line_before(tmp_path: Path):
    counters = []
    for package in ("intel-rapl:0", "intel-rapl:1"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "max_energy_range_uj").write_text("1000000000")
        counters.append(tmp_path / package / "energy_uj")
        counters[-1].write_text("5000000")
    pace = Pace(Goodput(), None, meter=Meter(tmp_path))
    for joules, seconds, tokens in ((30, 2.0, 100), (90, 3.0, 50)):
        for file in counters:
            file.write_text(str(int(file.read_text()) + joules * 1_000_000))
        pace.step(tokens, {"seconds": seconds})
        line = pace.line()
        assert line["watts/rapl"] == pytest.approx(2 * joules / seconds)
        assert line["joules_per_token/rapl"] == pytest.approx(2 * joules / tokens)


def test_without_a_counter_there_is_no_figure(tmp_path: Path):
    pace = Pace(Goodput(), None, meter=Meter(tmp_path / "nothing"))
    pace.step(100, {"seconds": 1.0})
    line = pace.line()
    assert "watts/rapl" not in line  # an accelerator may have one
    assert line.get("watts") is None and line.get("joules_per_token") is None


def test_the_time_left_is_that_of_steps_behind_the_first_which_compiles(monkeypatch: pytest.MonkeyPatch):
    pace, now = Pace(Goodput(), None), 60.0
    monkeypatch.setattr(paces.time, "monotonic", lambda: now)
    line = {"loss": 3.2, "targets": 8000.0, "seconds": 2.0}
    assert pace.foot({"step": 1, **line}, 100) == "step 1/100  1%  loss 3.2  4,000 targets/s"
    now += 120
    assert pace.foot({"step": 41, **line}, 100) == "step 41/100  41%  loss 3.2  4,000 targets/s  0:02:57 left"
