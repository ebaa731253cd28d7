"""Energy counters as the kernel lays them out: packages once, wrap-around, unreadable ones left out."""

from pathlib import Path

import pytest

from jaxtrain.runtime.energy import Meter


def counter(folder: Path, name: str, microjoules: int, most: int = 262_143_328_850) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    return folder / name / "energy_uj"


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path):
    first, second = counter(tmp_path, "intel-rapl:0", 10), counter(tmp_path, "intel-rapl:1", 0)
    part = counter(tmp_path, "intel-rapl:0:0", 0)
    with Meter(tmp_path) as meter:
        first.write_text(str(10 + 1_800_000_000))  # half a Wh
        second.write_text(str(3_600_000_000))
        part.write_text(str(10**9))
    assert meter.kilowatt_hours["rapl"] == pytest.approx(1.5e-3)


def test_a_counter_that_starts_again_loses_nothing(tmp_path: Path):
    file = counter(tmp_path, "intel-rapl:0", 9_000_000_000, most=10_000_000_000)
    with Meter(tmp_path) as meter:
        file.write_text(str(2_600_000_000))
    assert meter.kilowatt_hours["rapl"] == pytest.approx(1e-3)


def test_where_nothing_is_counted_nothing_is_said(tmp_path: Path):
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text("1000")  # energy_uj is not there
    with Meter(tmp_path) as meter:
        pass
    assert "rapl" not in meter.kilowatt_hours


@pytest.mark.gpu
def test_nvidias_counter_runs():
    import jax
    import jax.numpy as jnp

    if jax.devices()[0].platform != "gpu":
        pytest.skip("no NVIDIA device")
    with Meter() as meter:
        x = jnp.ones((8192, 8192), jnp.bfloat16)
        for _ in range(400):
            x = jnp.dot(x, x) * 1e-4
        x.block_until_ready()
    assert 0 < meter.kilowatt_hours["nvml"] < 0.1
