"""What a plan says, against the compiled program, against hand counts, and from the command line."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain import cli
from jaxtrain import config as configs
from jaxtrain.align.run import GRPOConfig, PPOConfig, PreferenceConfig, RewardConfig
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model import kernels
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.plan import (
    bill,
    collectives,
    compiler,
    hardware,
    program,
    roofline,
    search,
    show,
    work,
)
from jaxtrain.plan.collectives import Traffic
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import AXES, MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

CONFIGS = Path(__file__).parents[2] / "configs"
MODEL = ModelConfig(
    vocab_size=96,
    layers=3,
    d_model=32,
    heads=4,
    kv_heads=4,
    head_dim=8,
    d_hidden=64,
    max_length=16,
    remat="full",
)
TINY = PretrainConfig(
    data="none",
    out="none",
    model=MODEL,
    train=TrainConfig(optimizer=OptimizerConfig(), mesh=MeshConfig(fsdp=4, tensor=2), steps=10),
    batch_size=8,
)


def step_of(config, mesh) -> program.Program:
    """The optimizer's step by its shapes."""
    with compiler.set_mesh(mesh):
        return program.programs(work.work_of(config, work.shape_of(config)), mesh)[-1]


@pytest.fixture(scope="module")
def made() -> tuple[program.Memory, compiler.Compiled, dict[str, int]]:
    """The tiny step's shapes and its program, on fsdp 4 x tensor 2 of emulated devices."""
    mesh = meshes.make(TINY.train.mesh)
    step = step_of(TINY, mesh)
    with compiler.set_mesh(mesh):
        return step.memory, compiler.compiled(step), dict(mesh.shape)


def test_weights_and_optimizer_are_the_programs_to_the_byte(made) -> None:
    memory, compiled, _ = made
    assert compiled.memory.arguments == memory.weights + memory.optimizer + memory.batch
    whole = 2 * 96 * 32 + 3 * (4 * 32 * 32 + 3 * 32 * 64)  # the matrices; the embedding is whole over tensor
    cut = 4 * ((whole - 96 * 32) / 8 + 96 * 32 / 4)
    assert cut < memory.weights < cut * 1.3  # and norms, whole on every device
    assert memory.optimizer == pytest.approx(2 * memory.weights, abs=16)


def test_weights_and_optimizer_fall_as_one_over_the_devices() -> None:
    """All but the norms, which are whole everywhere: 7 of the stream, 6 of heads, and two moments of each."""
    norms = (7 * 32 + 6 * 8) * 4
    found = {}
    for n in (1, 2, 4, 8):
        config = configs.changed(TINY, train__mesh=MeshConfig(fsdp=n))
        found[n] = step_of(config, meshes.make(config.train.mesh, jax.devices()[:n])).memory
        assert found[n].weights - norms == (found[1].weights - norms) / n
        assert found[n].optimizer - 2 * norms == pytest.approx((found[1].optimizer - 2 * norms) / n, abs=16)


def test_what_travels_is_what_the_mesh_says(made) -> None:
    """In each layer, forward and backward, the weights are gathered over fsdp at least once."""
    _, compiled, shape = made
    found = collectives.read(compiled.text, shape)
    gathered = [one for one in found if one.kind == "all-gather" and one.axes == ("fsdp",)]
    assert sum(one.count for one in gathered) >= 2 * 7 * MODEL.layers
    assert {axes for one in found for axes in one.axes} == {"fsdp", "tensor"}


def test_collectives_are_counted_in_loops_by_kind_bytes_and_axis() -> None:
    """A hand count: five turns of a loop gather 64 floats over fsdp 4; one sum of 8 floats over tensor 2."""
    mesh = meshes.make(MeshConfig(fsdp=4, tensor=2))

    def per_device(x, y):
        def turn(carry, _):
            return jnp.sum(jax.lax.all_gather(carry, "fsdp", tiled=True).reshape(4, 16), axis=0) * 0.5, None

        x, _ = jax.lax.scan(turn, x, length=5)
        return x, jax.lax.psum(y, "tensor")

    with jax.set_mesh(mesh):
        run = jax.shard_map(
            per_device, in_specs=(P("fsdp"), P("tensor")), out_specs=(P("fsdp"), P()), check_vma=False
        )
        shapes = [
            jax.ShapeDtypeStruct((size,), jnp.float32, sharding=NamedSharding(mesh, P(axis)))
            for size, axis in ((64, "fsdp"), (16, "tensor"))
        ]
        text = jax.jit(run).lower(*shapes).compile().as_text()
    found = {one.kind: one for one in collectives.read(text, dict(mesh.shape))}
    size = 5 * 64 * 4
    assert found["all-gather"] == Traffic(kind="all-gather", axes=("fsdp",), devices=4, count=5, size=size)
    assert found["all-reduce"] == Traffic(kind="all-reduce", axes=("tensor",), devices=2, count=1, size=32)
    assert (found["all-gather"].sent, found["all-reduce"].sent) == (size * 3 // 4, 32)


@pytest.mark.parametrize(
    ("line", "group", "axes"),
    [
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", [0, 2, 4, 6], ("fsdp",)),
        ("replica_groups=[4,2]<=[8]", [0, 1], ("tensor",)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6], ("fsdp",)),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", [0, 1], ("tensor",)),
        (
            "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}",
            list(range(8)),
            ("fsdp", "tensor"),
        ),
        ("replica_groups={{0,1,2}}", [0, 1, 2], ()),
        ("source_target_pairs={{0,0},{0,2},{2,4}}", [0, 2], ("fsdp",)),
    ],
)
def test_groups_are_read_in_each_of_xlas_spellings(
    line: str, group: list[int], axes: tuple[str, ...]
) -> None:
    assert collectives._group(line, 8) == group
    assert collectives.axes_of(group, {"data": 1, "fsdp": 4, "tensor": 2}) == axes


def test_a_permute_may_go_across_the_lines_of_the_mesh():
    mesh = {"data": 1, "fsdp": 4, "tensor": 2}
    assert collectives.axes_of([1, 2], mesh) == ()
    assert collectives.axes_of([1, 2], mesh, across=True) == ("fsdp", "tensor")


def test_what_the_backward_pass_finds_grows_without_remat(make_abstract) -> None:
    """Full remat keeps the input of each layer: B · T · D values of each; none keeps several times that."""
    full, none = (
        step_of(
            dataclasses.replace(TINY, model=dataclasses.replace(MODEL, remat=remat)), make_abstract
        ).memory
        for remat in ("full", "none")
    )
    inputs = 8 // 4 * 16 * 32 * 4 * MODEL.layers
    assert inputs // 2 <= full.kept < none.kept
    assert full.weights == none.weights


def test_remat_keeps_and_repeats_what_its_help_says() -> None:
    """On one device: dots repeats no matmul and keeps less than none; full repeats the forward pass."""
    done, kept = {}, {}
    for remat in ("none", "dots", "full"):
        shape = ModelConfig(layers=4, d_model=64, head_dim=16, d_hidden=176, max_length=128, remat=remat)
        config = dataclasses.replace(
            TINY, model=shape, train=dataclasses.replace(TINY.train, mesh=MeshConfig(), microbatches=1)
        )
        mesh = meshes.make(MeshConfig(), jax.devices()[:1])
        step = step_of(config, mesh)
        with compiler.set_mesh(mesh):
            flops = compiler.compiled(step).flops
        assert flops is not None
        done[remat], kept[remat] = sum(flops.values()), step.memory.kept
        expected = roofline.recompute(work.work_of(config, shape))
        assert done[remat] / done["none"] == pytest.approx(expected, rel=0.03)
    assert done["none"] == pytest.approx(8 * 128 * shape.flops_per_token(), rel=0.08)
    assert done["dots"] <= 1.025 * done["none"] and done["full"] > 1.1 * done["none"]
    assert kept["full"] < kept["dots"] < kept["none"]


@pytest.fixture
def make_abstract():
    return compiler.mesh_of(TINY.train.mesh, hardware.parse("h100:8"))


def test_a_mesh_that_is_set_already_does_not_matter(make_abstract) -> None:
    """A notebook that has loaded a model has a mesh of one device."""
    bare = step_of(TINY, make_abstract).memory
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        assert step_of(TINY, make_abstract).memory == bare
        assert program.whole_state(TINY, MODEL) > bare.weights
        assert jax.sharding.get_abstract_mesh().size == 1


def test_a_roofline_by_hand(make_abstract) -> None:
    topology = hardware.parse("h100:8")
    step = step_of(TINY, make_abstract)
    traffic = [Traffic(kind="all-gather", axes=("fsdp",), devices=4, count=1, size=600_000_000)]
    with compiler.set_mesh(make_abstract):
        of = work.work_of(TINY, MODEL)
        time = roofline.estimate(step, of, topology, make_abstract, step.memory, traffic)
    matmuls = 3 * (4 * 32 * 32 + 3 * 32 * 64) + 32 * 96
    per_token = 6 * matmuls + 6 * 3 * 16 * 32
    assert time.flops_per_token == per_token
    once = 2 * (32 * 96 + 3 * 32 * 64)  # the head, and the last matmul of a layer
    assert time.compute == pytest.approx(8 * 16 / 8 * (per_token * 4 / 3 - once) / 989e12)
    assert time.links == pytest.approx(1e-3)  # 450 MB over NVLink's 450 GB/s
    assert time.bound == "links" and time.step.value == pytest.approx(1e-3)
    far = dataclasses.replace(traffic[0], axes=("fsdp", "tensor"), devices=16)
    assert roofline.bandwidth(far, topology, make_abstract) == 50e9


LLAMA = {
    "7B": {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 32, "d_hidden": 11008},
    "8B": {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_hidden": 14336},
    "70B": {"layers": 80, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_hidden": 28672},
    "405B": {"layers": 126, "d_model": 16384, "heads": 128, "kv_heads": 8, "d_hidden": 53248},
}
"""Llama 2 and 3, by the config.json of each; head_dim is 128."""


@pytest.mark.parametrize(
    ("chip", "place", "model", "length", "vocab", "tokens"),
    [
        ("v6e", 0, "8B", 8192, 128_256, 7207),
        ("v6e", 1, "70B", 8192, 128_256, 960),
        ("v6e", 2, "405B", 8192, 128_256, 123),
        ("v6e", 3, "70B", 4096, 32_000, 900),
        ("v5p", 0, "70B", 4096, 32_000, 692),
        ("h100", 0, "7B", 4096, 32_000, 11362),  # 492 TFLOP/s by MaxText's count on the same
    ],
)
def test_a_share_is_that_of_the_published_tokens(chip, place, model, length, vocab, tokens) -> None:
    shape = ModelConfig(**LLAMA[model], head_dim=128, max_length=length, vocab_size=vocab)
    share = tokens * shape.flops_per_token() / hardware.CHIPS[chip].flops
    assert hardware.SHARES[chip][place] == pytest.approx(share, abs=1e-4)


def test_published_runs_are_predicted_from_the_others() -> None:
    errors = []
    for chip, shares in hardware.SHARES.items():
        for place, share in enumerate(shares):
            others = {**hardware.SHARES, chip: [*shares[:place], *shares[place + 1 :]]}
            errors.append(abs(hardware.attainable(hardware.CHIPS[chip], others)[1] / share - 1))
    assert len(errors) >= 5 and np.median(errors) < 0.15 and max(errors) < 0.3


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    cli.main(["plan", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_plan_that_fits_and_its_bill(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CONFIGS / "llama3_8b" / "1_pretrain.py")
    found = plan(capsys, path, "--topology", "h100:64", "--price", "2", "--steps", "1000")
    assert found["asked_for_does_not_fit"] == "" and found["mesh"] == "fsdp 64"
    assert found["memory"]["total"] < found["memory"]["has"]
    run, step = found["run"], found["step"]
    assert run["tokens"] == 1000 * 512 * 8192
    assert run["chip_hours"][1] == pytest.approx(1000 * step["seconds"][1] * 64 / 3600)
    assert run["dollars"][1] == pytest.approx(2 * run["chip_hours"][1])
    assert run["kWh"][1] == pytest.approx(run["chip_hours"][1] * 1.0 * 1.1)
    assert run["kWh"][0] < run["kWh"][1] < run["kWh"][2]
    assert step["mfu"][1] * 989e12 == pytest.approx(
        step["tokens_per_second_per_device"][1] * step["flops_per_token"]
    )


def test_an_impossible_request_is_answered_with_one_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CONFIGS / "llama3_8b" / "1_pretrain.py")
    found = plan(capsys, path, "--topology", "h100:8")
    assert "GiB are needed" in found["asked_for_does_not_fit"]
    assert found["changes"] and found["memory"]["total"] < found["memory"]["has"]


@pytest.mark.slow
def test_a_topology_that_can_never_hold_it_grows(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CONFIGS / "llama3_8b" / "1_pretrain.py")
    grown = plan(capsys, path, "--topology", "a100:1")  # 96 GB of weights and optimizer
    assert (
        grown["topology"] in ("a100:2", "a100:4", "a100:8")
        and grown["memory"]["total"] < grown["memory"]["has"]
    )


def test_a_sweep_names_the_best_mesh(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CONFIGS / "gpt_1b" / "1_pretrain.py")
    found = plan(capsys, path, "--topology", "h100:4", "--sweep")
    has = found["memory"]["has"]
    fits = [one for one in found["sweep"] if one["memory"] <= 0.9 * has]
    assert len({one["mesh"] for one in fits}) > 4 and {one["remat"] for one in fits} >= {"none", "full"}
    assert (fits[0]["mesh"], fits[0]["remat"]) == (found["mesh"], found["model"]["remat"])
    assert [one["seconds"] for one in fits] == sorted(one["seconds"] for one in fits)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--topology", "v5p:8x8"], "v5p has 3 dimensions, as in v5p:4x4x4"),
        (["--topology", "v9:8"], "is none of v4, v5e"),
        ([], "--topology is required: Chips and their shape"),
        (["--topology", "h100:8", "--batch_size", "12"], "need a multiple of"),
        (["--topology", "h100:8", "--slices", "2"], "of TPUs alone"),
        (["--topology", "h100:8", "--stepz", "2"], "did you mean --train.steps"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", str(CONFIGS / "gpt_1b" / "1_pretrain.py"), *arguments])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and words in printed.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "topology"),
    [
        ("gpt2_124m", "h100:1"),
        ("gpt_1b", "h100:8"),
        ("llama3_8b", "h100:64"),
        ("llama3_70b", "h100:512"),
        ("qwen3_moe", "h100:64"),
        ("gpt2_124m", "l4:1"),
        ("gpt2_124m", "rtx4090:1"),
    ],
)
def test_configs_fit_on_gpus_by_formula(name: str, topology: str) -> None:
    config = configs.load(CONFIGS / name / "1_pretrain.py")
    found = search.measured(config, config.model, hardware.parse(topology))
    assert found.fits, f"{found.memory.total / 2**30:.1f} GiB"
    devices = math.prod(found.mesh.shape.values())
    assert devices == hardware.parse(topology).devices


SHAPE = ModelConfig(**{**dataclasses.asdict(MODEL), "remat": "none", "max_length": 512})
FOLDERS = {"model": "none", "out": "none"}
TRAIN = TrainConfig(optimizer=OptimizerConfig(), mesh=MeshConfig(fsdp=4, tensor=2), steps=10, microbatches=2)
RATED = {**FOLDERS, "ratings": "none", "train": TRAIN}
ASKED = {**FOLDERS, "conversations": "none", "train": TRAIN}
STAGES = {
    "finetune": FinetuneConfig(**FOLDERS, data="none", train=TRAIN, length=128),
    "finetune with adapters": FinetuneConfig(
        **FOLDERS, data="none", train=TRAIN, length=128, lora=LoRAConfig(rank=4)
    ),
    "reward": RewardConfig(**RATED, human="none", length=128),
    "a reward model's head": RewardConfig(**RATED, human="none", length=128, trunk="frozen"),
    "DPO": PreferenceConfig(**RATED, length=128),
    "KTO": PreferenceConfig(**RATED, length=128, kind="kto"),
    "PPO": PPOConfig(**ASKED, reward="none", rollouts=64),
    "GRPO": GRPOConfig(**FOLDERS, tasks=("none",), train=TRAIN, prompts=16, group=4),
    "GRPO with adapters": GRPOConfig(
        **FOLDERS, tasks=("none",), train=TRAIN, prompts=16, group=4, lora=LoRAConfig(rank=4)
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_that_learns_is_planned_as_it_runs(name: str) -> None:
    """Each of its programs lowers for the mesh with the arguments that the plan counts, and has a time."""
    config = STAGES[name]
    found = search.measured(config, SHAPE, hardware.parse("h100:8"))
    sampled = ["sampling", "log-probabilities"] if name.startswith(("PPO", "GRPO")) else []
    assert [part.program.name for part in found.parts] == [*sampled, "step"]
    assert all(0 < part.seconds.low <= part.seconds.value <= part.seconds.high for part in found.parts)
    said = show.text(bill.described(found, "", [found]))
    for part in found.parts:
        assert f"{part.program.name.capitalize()}, {part.program.rows} rows of " in said
        assert f"{part.memory.total / 2**30:.3f} GiB" in said and f"bound by {part.time.bound}" in said
    mesh = meshes.make(TRAIN.mesh)
    with jax.set_mesh(mesh):
        for one in program.programs(work.work_of(config, SHAPE), mesh):
            taken = one.function.lower(*one.arguments).compile().memory_analysis()
            assert taken.argument_size_in_bytes <= one.memory.state + 4096
            if one.name == "step":
                # the base's own places for adapters are not read
                unread = one.memory.optimizer // 2 if "adapters" in name else 0
                assert taken.argument_size_in_bytes >= one.memory.state - unread - 4096


def test_what_grpo_asks_of_one_gpu_fits_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's own claim, from the shapes beside it: its model is not here."""
    found = plan(capsys, str(CONFIGS / "gsm8k_grpo" / "1_grpo.py"), "--topology", "h100:1")
    assert found["asked_for_does_not_fit"] == ""
    assert found["memory"]["total"] <= 0.9 * found["memory"]["has"]
    assert [one["name"] for one in found["programs"]] == ["sampling", "log-probabilities", "step"]
    assert sum(one["share"] for one in found["programs"]) == pytest.approx(1)


def test_a_model_that_is_not_there_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["plan", str(CONFIGS / "people" / "2_reward.py"), "--topology", "h100:1"])
    assert "give --model a folder with a model.json" in capsys.readouterr().err


ON_ACCELERATORS = (
    "speedrun",
    "five_minutes",
    "gpt2_124m",
    "gpt_1b",
    "llama3_8b",
    "llama3_70b",
    "qwen3_moe",
    "deepseek_v3",
    "smollm2_135m",
    "gsm8k_grpo",
)


@pytest.mark.parametrize(
    "path", [path for name in ON_ACCELERATORS for path in sorted((CONFIGS / name).glob("*.py"))], ids=str
)
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_no_recipe_for_accelerators_holds_the_scores_of_all_pairs(path: Path, platform: str) -> None:
    scale = [*configs.scales(path.parent)][-1:]
    config = configs.load(path, *scale)
    if not hasattr(config, "train"):
        return
    pretrained = path.parent / "1_pretrain.py"
    if pretrained.is_file():
        shape = configs.load(pretrained).model
    elif (path.parent / "model.json").is_file() or scale:
        shape = work.shape_of(config, path.parent)
    else:  # SmolLM2's head_dim of 64, no window and no bound on scores
        shape = ModelConfig(max_length=2048)
    mesh = AbstractMesh(
        (1,) * len(AXES),
        AXES,
        axis_types=(AxisType.Explicit,) * len(AXES),
        abstract_device=AbstractDevice(device_kind=platform, num_cores=None, platform=platform),
    )
    with compiler.set_mesh(mesh):
        of = work.work_of(config, shape)
        for is_local in set(of.model.is_local):
            window = of.model.window if is_local else 0
            assert kernels.choose(of.model, window, of.length, packed=True) != "xla"


def test_a_mesh_of_slices_lets_only_data_and_stage_cross() -> None:
    slice_of = lambda device: device.id // 4  # noqa: E731
    make = partial(meshes.make, devices=jax.devices(), slice_of=slice_of)
    for config in (MeshConfig(data=2, fsdp=-1), MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(stage=2)):
        mesh = make(config)
        groups = np.vectorize(slice_of)(mesh.devices)
        cross = "data" if config.data > 1 else "stage"
        halves = np.split(groups, 2, axis=mesh.axis_names.index(cross))
        assert [set(half.ravel().tolist()) for half in halves] == [{0}, {1}]
    with pytest.raises(UserError, match="does not fit 2 slices; set mesh.data to 2"):
        make(MeshConfig(fsdp=8))
