"""The options of XLA, against the installed one."""

import jax
import pytest

from jaxtrain.runtime.compiled import SEVERAL_GPUS, compiler_options


@pytest.mark.parametrize("option", SEVERAL_GPUS)
def test_the_installed_xla_knows_each_option(option: str) -> None:
    """Every build of XLA parses the options of every device."""
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    lowered.compile(compiler_options={option: SEVERAL_GPUS[option]})
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        lowered.compile(compiler_options={option + "_misspelt": True})


def test_defaults_but_on_several_gpus() -> None:
    assert all(not compiler_options(*which) for which in (("cpu", 8), ("tpu", 8), ("gpu", 1)))
    assert compiler_options("gpu", 2) == SEVERAL_GPUS
