"""What a person at the terminal sees: help, one line for each mistake, exit statuses."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrain import cli, fields, recipe

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "configs" / "quickstart"
PRETRAIN = str(QUICKSTART / "4_pretrain.py")


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a mistake prints; checks that it is one, on stderr, with exit status 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == ""
    *progress, line = printed.err.splitlines()
    assert line.startswith("jaxtrain: ") and "Traceback" not in printed.err
    return line.removeprefix("jaxtrain: ")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(list(arguments))
    return capsys.readouterr().out


def test_help_lists_every_command_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    assert text == shown(capsys) == shown(capsys, "help")
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    stages = [line.split()[0] for line in text.split("data flows:\n")[1].split("\nModels")[0].splitlines()]
    assert stages[:6] == ["collect", "classify", "clean", "tokenize", "pretrain", "finetune"]
    assert stages[-2:] == ["evaluate", "report"]
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_short_and_help_all_misses_no_field(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """With unit and default; the short one has what recipes set."""
    short = shown(capsys, *name.split(), "--help")
    assert len(short.splitlines()) <= 120 and short.startswith(f"jaxtrain {name} ")
    every = shown(capsys, *name.split(), "--help", "all")
    assert max(map(len, every.splitlines())) <= 100
    command = cli.COMMANDS[name]
    kinds = cli._resolved(command.files) if command.files else []
    for kind in kinds + (cli._resolved(command.flags)[:1] if command.flags else []):
        for section in fields.sections(kind):
            assert section.meaning, section.title
            for field in section.fields:
                assert field.meaning, field.name
                assert f"{'--' * field.settable}{field.name.removesuffix('_')} {field.kind}" in every
                if field.settable and field.of in recipe.fields_used().get(section.kind, ()):
                    assert f"--{field.name.removesuffix('_')} " in short or name == "align"


def test_stage_help_shows_every_field_with_unit_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "pretrain", "--help")
    assert "  --train.steps int               Optimizer steps; 0: as many as the stage's" in text
    assert "  --data text                     Folder of a tokenize artifact. [required]\n" in text
    assert "  --train.optimizer.lr float      Peak learning rate. [0.003; may change]\n" in text
    assert "--train.optimizer.schedule cosine|linear|constant|stable_decay\n" in text
    assert "--train.mesh.fsdp int" in text and "--train.optimizer.eps" not in text
    assert "--train.optimizer.eps" in shown(capsys, "pretrain", "--help", "all")


def test_help_beside_a_config_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "sft", str(QUICKSTART / "5_finetune.py"), "--help")
    assert "[runs/quickstart/3_tokenize]" in text and "[required]" not in text


def test_stage_help_shows_what_only_a_file_can_say(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "align", "--help", "all")
    assert "\nRewardConfig  " in text and "\nPPOConfig  " in text
    text = shown(capsys, "collect", "--help")
    assert "    sources in the file" in text and "--sources" not in text and "\nWikiSource  " in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrian"], "no command 'pretrian'; did you mean 'pretrain'? `jaxtrain --help` lists them"),
        (["run", "--restart"], "run takes FOLDER before --restart, for example `jaxtrain run mine`"),
        (["run", "a", "--steps"], "RunConfig has no field --steps"),
        (["convert", "a"], "convert takes OUT, for example `jaxtrain convert runs/mine/8_ppo my-model`"),
        (["rate", "sample", "--prompts", "3"], "--conversations is required: Folder of the clean artifact"),
        (["dpo", PRETRAIN], f"is a config of pretrain; run `jaxtrain pretrain {PRETRAIN}`"),
        (["run", "nowhere"], "nowhere holds no numbered configs"),
        (["pretrain", "--steps", "3"], "name a config file before --steps"),
        (["evaluate", "--out", "x"], "--models is required"),
        (["pretrain", "nowhere.py"], "no config file nowhere.py; see configs/ for complete examples"),
        (["pretrain", PRETRAIN.replace("pre", "per")], f"did you mean {PRETRAIN}?"),
        (["clean", PRETRAIN], f"{PRETRAIN} is a config of pretrain; run `jaxtrain pretrain {PRETRAIN}`"),
        (["pretrain", PRETRAIN, "--stepz", "3"], "no field --stepz; did you mean --train.steps?"),
        (
            ["pretrain", PRETRAIN, "--steps", "three"],
            "Error parsing --train.steps: invalid literal for int()",
        ),
        (
            ["pretrain", PRETRAIN, "--data", "nowhere"],
            "input data: nowhere does not exist; write it first with",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in mistake(capsys, *arguments)


def test_a_misspelt_field_in_a_config_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "4_pretrain.py"
    file.write_text(Path(PRETRAIN).read_text().replace("batch_size=", "batchsize="))
    line = mistake(capsys, "pretrain", str(file))
    assert line.startswith(f"{file}, line ")
    assert line.endswith(": PretrainConfig has no field 'batchsize'; did you mean 'batch_size'?")


def test_an_empty_corpus(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "1_collect.py").write_text(
        "from jaxtrain.collect.books import BookSource\nfrom jaxtrain.collect.run import CollectConfig\n"
        f"source = BookSource(name='book', paths=('{tmp_path}/empty.txt',))\n"
        f"config = CollectConfig(sources=(source,), out='{tmp_path}/out')\n"
    )
    line = mistake(capsys, "collect", str(tmp_path / "1_collect.py"))
    assert line.startswith("nothing could be read from any source")
    assert not (tmp_path / "out").exists()


def test_a_stage_prints_its_artifact_and_overrides_reach_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "1_collect.py").write_text(
        "from jaxtrain.collect.chats import ChatSource\nfrom jaxtrain.collect.run import CollectConfig\n"
        "source = ChatSource(name='alpaca', paths=('data/quickstart/alpaca.json',))\n"
        "config = CollectConfig(sources=(source,), out='nowhere')\n"
    )
    out = tmp_path / "elsewhere"
    assert shown(capsys, "collect", str(tmp_path / "1_collect.py"), "--out", str(out)) == f"{out}\n"
    assert (out / "manifest.json").is_file() and not (ROOT / "nowhere").exists()


def test_the_command_itself_exits_with_2_and_one_line() -> None:
    command = [sys.executable, "-m", "jaxtrain", "clean", PRETRAIN]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr == f"jaxtrain: {PRETRAIN} is a config of pretrain; run `jaxtrain pretrain {PRETRAIN}`\n"
    )


def test_ctrl_c_is_one_line_and_status_130(tmp_path: Path) -> None:
    config = tmp_path / "1_collect.py"
    config.write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a shell's background
        "os.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n"
    )
    command = [sys.executable, "-m", "jaxtrain", "collect", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 == 128 + signal.SIGINT
    assert done.stderr == "\njaxtrain: interrupted; the same command goes on from here\n"
