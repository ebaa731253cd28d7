"""The table of where a step's time went, from a real trace."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxtrain.runtime.profile import WARM, Profile, described


def test_the_matmuls_of_a_loop_lead_the_table(tmp_path) -> None:
    x = jnp.eye(256)
    loop = jax.jit(lambda x: jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ x), None), x, length=20)[0])
    compiled = loop.lower(x).compile()
    profile = Profile(tmp_path, steps=2)
    for _ in range(WARM + 4):
        profile.around(lambda: compiled(x), compiled.as_text)
    text = (tmp_path / "profile" / "profile.txt").read_text()
    head, titles, *rows = text.splitlines()
    assert head.endswith("of 2 steps, all devices and threads together") and titles.split()[0] == "share"
    assert any(re.search(r"\b20  .*dot_general|\b20  .*tanh", row) for row in rows), text
    shares = [float(row.split("%")[0]) for row in rows]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=1)
    assert not any(row.split()[3].startswith("while") for row in rows)


def test_no_steps_no_trace(tmp_path) -> None:
    assert Profile(tmp_path, steps=0).around(lambda: 7, lambda: "") == 7
    assert not (tmp_path / "profile").exists()


def test_operations_of_all_layers_are_one_row() -> None:
    source = "jit(step)/transpose(jvp())/while/body/closed_call/btd,df->btf/dot_general"
    assert described("dot.17.clone.1", source) == "dot: backward, btd,df->btf/dot_general"
    assert described("fusion.3", "jit(step)/jvp()/mul") == "fusion: forward, mul"
    assert described("copy", "") == "copy"
