"""`jaxtrain STAGE CONFIG [--overrides]`: picks the room and calls its run()."""

import importlib
import os
import sys
import textwrap
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

import jaxtrain
from jaxtrain import config as configs
from jaxtrain import fields, pipeline
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.terminal import visible

STAGES = {
    "collect": "web pages, wikis, code, books, chats → one file a source",
    "classify": "a text classifier from labelled documents, for clean",
    "clean": "filter, deduplicate, balance; every drop has a reason",
    "tokenize": "train the tokenizer; text → token records",
    "pretrain": "train a language model from scratch, on any devices",
    "finetune": "teach it to answer, with a loss on the assistant's tokens",
    "rate": "sample answers and have them compared, in a database",
    "align": "a reward model; PPO, GRPO, DPO, distillation; scores over HTTP",
    "evaluate": "benchmarks and held-out text, with standard errors",
    "report": "one self-contained page of the whole run",
}

HELP = """\
Raw documents to an aligned, evaluated language model.

  jaxtrain run FOLDER [--restart]      every stage in order, reusing what stands
  jaxtrain STAGE CONFIG [--FIELD VALUE ...]
  jaxtrain STAGE [CONFIG] --help       every field with its unit and default
  jaxtrain report RUN [RUN2 ...]       pages of runs, also while they train
  jaxtrain chat MODEL                  talk to a model in the terminal
  jaxtrain serve MODEL                 a chat page and OpenAI's HTTP endpoints
  jaxtrain inspect FOLDER              search its records; show refused batches
  jaxtrain convert FROM TO             weights from and to Hugging Face folders
  jaxtrain plan CONFIG --topology T    memory, time and cost before you run

Stages, in the order data flows:
{stages}

Start with: jaxtrain run configs/quickstart
Config files are Python and are executed: run only your own.
"""

RUN_HELP = """\
jaxtrain run FOLDER [--restart]

Runs the numbered configs in FOLDER in order: 1_collect.py, 2_clean.py, …
A stage whose config and inputs have not changed is reused, not run again.
Interrupted? The same command goes on where it stopped. With --restart a stage that was
interrupted begins anew; what it had is kept beside it.

Example: jaxtrain run configs/quickstart
"""

CONVERT_HELP = """\
jaxtrain convert FROM TO [--merge] [--dtype float32|bfloat16]

FROM a Hugging Face folder: TO gets model.json, checkpoint/ and tokenizer/, as a finished stage has them.
FROM a finished stage, a GGUF file, or a llama2.c .bin: TO becomes a Hugging Face folder.
FROM a fine-tuning with adapters: TO becomes a PEFT folder; with --merge a Hugging Face folder.
FROM a PEFT folder: TO becomes a Hugging Face folder of the merged weights.
What was written is read again and compared bit for bit. --dtype: of the weights written, else the source's.

Example: jaxtrain convert runs/quickstart/4_pretrain my_model
"""

PLAN_HELP = """\
jaxtrain plan CONFIG --topology SHAPE [--sweep] [--json] [--FIELD VALUE ...]

Compiles what a training config runs (the step; sampling and log-probabilities too, where it samples) for
TPUs that are not there (needs libtpu; GPUs by formula): memory of a device, what travels, time, money,
energy. Where it does not fit: what does. Other flags change the config, as in the stage's own command.

Example: jaxtrain plan configs/llama3_8b/1_pretrain.py --topology v5e:16x16
"""

TALKS = {
    "chat": "talk to a model in the terminal",
    "serve": "a chat page and OpenAI's HTTP endpoints, at 127.0.0.1",
}
"""Commands that take a model's folder and flags."""

RESTART_HELP = "--restart: what an unfinished run left in OUT.partial is set aside, and the stage begins anew"

COLUMN = 34  # where the meaning of a field begins

HELP_FLAGS = {"-h", "--help"}
RESTART = "--restart"


def main(arguments: list[str] | None = None) -> None:
    """The `jaxtrain` command; exits with 2 and one line where the user can mend it."""
    try:
        dispatch(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"jaxtrain: {visible(str(error))}", file=sys.stderr)
        _end(2)
    except KeyboardInterrupt:
        print("\njaxtrain: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _end(status: int) -> NoReturn:
    """Of several processes at once: at exit JAX waits for the others, which may be waiting for this one."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def dispatch(arguments: list[str]) -> None:
    """Run what the arguments name; UserError where they name nothing."""
    command, *rest = arguments or ["--help"]
    if command in HELP_FLAGS:
        print(HELP.format(stages="\n".join(f"  {name:<10}{text}" for name, text in STAGES.items())), end="")
    elif command == "--version":
        print(f"jaxtrain {jaxtrain.__version__}")
    elif command == "run":
        _run_recipe(rest)
    elif command == "inspect":
        importlib.import_module("jaxtrain.report.inspect").inspect(rest)
    elif command == "convert":
        _convert(rest)
    elif command == "plan":
        _plan(rest)
    elif command in TALKS:
        _talk(command, rest)
    elif command in STAGES:
        _run_stage(command, rest)
    else:
        near = configs.nearest(command, [*STAGES, *TALKS, "run", "inspect", "convert", "plan"])
        raise UserError(f"no stage {command!r}; did you mean {near!r}? `jaxtrain --help` lists them")


def _run_recipe(rest: list[str]) -> None:
    if HELP_FLAGS & set(rest):
        print(RUN_HELP, end="")
        return
    rest, restart = _restart(rest)
    if len(rest) != 1 or rest[0].startswith("-"):
        raise UserError(
            "run takes one folder of numbered configs, for example `jaxtrain run configs/quickstart`"
        )
    pipeline.run(rest[0], restart)


def _restart(rest: list[str]) -> tuple[list[str], bool]:
    """The arguments without --restart, and whether it was there."""
    return [word for word in rest if word != RESTART], RESTART in rest


def _convert(rest: list[str]) -> None:
    if HELP_FLAGS & set(rest):
        print(CONVERT_HELP, end="")
        return
    if len(rest) < 2 or any(word.startswith("-") for word in rest[:2]):
        raise UserError(
            "convert takes two folders, for example `jaxtrain convert runs/quickstart/4_pretrain out`"
        )
    room = importlib.import_module("jaxtrain.weights.convert")
    flags = [word for flag in rest[2:] for word in ([flag, "True"] if flag == "--merge" else [flag])]
    paths = ["--source", rest[0], "--out", rest[1]]
    print(room.convert(configs.from_flags(room.ConvertConfig, [*paths, *flags])))


def _plan(rest: list[str]) -> None:
    room = importlib.import_module("jaxtrain.plan.run")
    if not rest or HELP_FLAGS & set(rest):
        print(PLAN_HELP, end="")
        _print_fields(room.PlanConfig)
        return
    room.plan(rest)


def _talk(command: str, rest: list[str]) -> None:
    room = importlib.import_module(f"jaxtrain.serve.{'run' if command == 'serve' else command}")
    kind = room.ServeConfig if command == "serve" else room.ChatConfig
    if not rest or HELP_FLAGS & set(rest):
        print(f"jaxtrain {command} MODEL [--FIELD VALUE ...]\n{TALKS[command]}")
        _print_fields(kind)
        return
    if rest[0].startswith("-"):
        raise UserError(f"name a model's folder before {rest[0]}, for example runs/quickstart/5_finetune")
    room.run(configs.from_flags(kind, ["--model", *rest]))


def _run_stage(stage: str, rest: list[str]) -> None:
    room = importlib.import_module(f"jaxtrain.{stage}.run")
    commands = getattr(room, "commands", {})
    if not rest or rest[0] in HELP_FLAGS:
        print(f"jaxtrain {stage} CONFIG [--restart] [--FIELD VALUE ...]\n{STAGES[stage]}\n{RESTART_HELP}")
        for name in commands:
            print(f"jaxtrain {stage} {name} [--FIELD VALUE ...]")
        for kind in dict.fromkeys([*room.configs, *(kind for kind, _ in commands.values())]):
            _print_fields(kind)
        return
    if rest[0] in commands:
        kind, command = commands[rest[0]]
        if HELP_FLAGS & set(rest):
            print(f"jaxtrain {stage} {rest[0]} [--FIELD VALUE ...]")
            _print_fields(kind)
            return
        command(configs.from_flags(kind, rest[1:]))
        return
    if stage == "report" and Path(rest[0]).is_dir():
        importlib.import_module("jaxtrain.report.runs").report(rest)
        return
    if rest[0].startswith("-"):
        raise UserError(f"name a config file before {rest[0]}, for example one of configs/quickstart")
    config = configs.load(rest[0])
    if (other := configs.stage_of(config)) != stage:
        raise UserError(f"{rest[0]} is a config of {other}; run `jaxtrain {other} {rest[0]}`")
    if HELP_FLAGS & set(rest):
        print(f"jaxtrain {stage} {rest[0]} [--FIELD VALUE ...]\n{STAGES[stage]}; the values are the file's")
        _print_fields(type(config), config)
        return
    flags, restart = _restart(rest[1:])
    print(pipeline.make(configs.override(config, flags), restart))


def _print_fields(kind: type, config: Any = None) -> None:
    """A paragraph a section; a line a field: flag and type, meaning, [default]."""
    console = Console(highlight=False)
    for section in fields.sections(kind, config):
        console.print(Text(f"\n{section.title}", "bold").append(f"  {section.meaning}", "not bold"))
        for field in section.fields:
            flag = f"  {'--' if field.settable else '  '}{field.name} {field.kind}"
            default = field.default + f"; {fields.CHANGEABLE}" * field.changeable
            words = f"{field.meaning} [{default}]".strip()
            lines = textwrap.wrap(words, max(30, console.width - COLUMN), break_on_hyphens=False)
            if len(flag) > COLUMN - 2:
                lines.insert(0, "")
            text = f"\n{'':{COLUMN}}".join(lines)
            console.print(
                Text(f"{flag:<{COLUMN if lines[0] else 0}}", "cyan").append(text, "default"), soft_wrap=True
            )
