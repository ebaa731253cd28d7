"""Energy and operations against figures that others published."""

import pytest

from jaxtrain.runtime import cost


def test_the_energy_and_carbon_of_llama_3_1_come_out_as_its_model_card_says():
    """39.3 million H100 hours at 700 W, 11,390 t CO2e."""
    watts = cost.device_watts("NVIDIA H100 80GB HBM3")
    assert watts is not None
    energy = cost.kilowatt_hours(39.3e6 * 3600, watts)
    tonnes = cost.kilograms(energy) * 1e-3
    assert energy.high / cost.PUE.high == pytest.approx(39.3e6 * 0.7)
    assert tonnes.low < 11_390 < tonnes.high
    assert tonnes.value == pytest.approx(11_390, rel=0.5)


def test_a_kilowatt_for_an_hour_is_a_kilowatt_hour_at_home():
    energy = cost.kilowatt_hours(3600, cost.Range(1000, 1000, 1000))
    assert energy.low == pytest.approx(1.0)
    assert energy.value == pytest.approx(cost.PUE.value)


@pytest.mark.parametrize(
    ("kind", "watts"),
    [
        ("NVIDIA H200", 700),
        ("NVIDIA H100 PCIe", 350),
        ("NVIDIA A100-SXM4-80GB", 400),
        ("NVIDIA A100 80GB PCIe", 300),
        ("NVIDIA A10", 150),
        ("NVIDIA L4", 72),
        ("NVIDIA L40S", 350),
        ("NVIDIA GeForce RTX 4090", 450),
        ("TPU v4", 192),
    ],
)
def test_the_bound_of_a_device_is_its_own_thermal_design_power(kind: str, watts: float):
    power = cost.device_watts(kind)
    assert power is not None
    assert power.high == watts
    assert 0 < power.low < power.value < power.high


def test_a_device_of_unknown_power_has_no_estimate_and_the_cpu_is_counted_by_its_cores():
    assert cost.device_watts("NVIDIA A1000") is None
    assert cost.device_watts("cpu") == cost.Range(0, 0, 0)
    assert cost.cores() >= 1


def test_operations_to_train_llama_3_405b_agree_with_its_paper():
    """3.8e25 for 15.6e12 tokens (Llama Team 2024, section 3.2), whose own count leaves attention out."""
    attention = 16_384 * 128 * (2 * 128 + 2 * 8)
    matmul = 126 * (attention + 3 * 16_384 * 53_248) + 16_384 * 128_256
    operations = 15.6e12 * cost.flops_per_token(matmul, keys=126 * 8192 / 2, width=16_384)
    assert operations == pytest.approx(3.8e25, rel=0.05)
    assert operations > 3.8e25
