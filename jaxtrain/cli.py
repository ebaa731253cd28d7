"""`jaxtrain STAGE CONFIG [--overrides]`: picks the room and calls its run()."""

import dataclasses
import importlib
import sys

import tyro

from jaxtrain import config as configs
from jaxtrain import pipeline
from jaxtrain.runtime.errors import UserError

STAGES = {
    "collect": "web pages, encyclopedias, books, code and conversations become Parquet documents",
    "clean": "filter, deduplicate, balance; every drop has a reason",
    "tokenize": "train the tokenizer; documents and conversations become token records",
    "pretrain": "a language model from token records, on whatever devices there are",
    "finetune": "teach it to answer, with a loss on the assistant's tokens",
    "rate": "sample answers and have them compared, in a database",
    "align": "a reward model from the comparisons; PPO against it",
    "evaluate": "benchmarks and held-out text, with standard errors beside chance level",
    "report": "one self-contained page of the whole run",
}

HELP = """usage: jaxtrain run FOLDER            the numbered configs of a recipe, in order, reusing what stands
       jaxtrain STAGE CONFIG [--FIELD VALUE ...]
       jaxtrain STAGE --help          every field with its unit and default

stages, in the order data flows:
{stages}

Config files are Python and are executed: run only your own. Start with: jaxtrain run configs/quickstart
"""


def main(arguments: list[str] | None = None) -> None:
    """The `jaxtrain` command; exits with 2 and one line where the user can mend it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        dispatch(arguments)
    except UserError as error:
        print(f"jaxtrain: {error}", file=sys.stderr)
        sys.exit(2)


def dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(stages="\n".join(f"  {name:<10}{text}" for name, text in STAGES.items())), end="")
        return
    command, *rest = arguments
    if command == "run":
        if not rest or rest[0].startswith("-"):
            print("usage: jaxtrain run FOLDER    FOLDER holds numbered configs, for example configs/quickstart")
            return
        pipeline.run(rest[0])
        return
    if command not in STAGES:
        import difflib

        near = difflib.get_close_matches(command, [*STAGES, "run"], 1, 0.0)
        raise UserError(f"no stage {command!r}; did you mean {near[0]!r}? (jaxtrain --help lists them)")
    room = importlib.import_module(f"jaxtrain.{command}.run")
    if not rest or rest[0].startswith("-"):
        _stage_help(command, room.configs)
        return
    config = configs.load(rest[0])
    if configs.stage_of(config) != command:
        raise UserError(f"{rest[0]} is a config of {configs.stage_of(config)}; run `jaxtrain {configs.stage_of(config)} {rest[0]}`")
    print(room.run(configs.override(config, rest[1:])))


def _stage_help(stage: str, kinds: tuple[type, ...]) -> None:
    print(f"jaxtrain {stage} CONFIG [--FIELD VALUE ...]: {STAGES[stage]}\n")
    for kind in kinds:
        print(f"{kind.__name__}, a config file defines one as `config`:")
        print(tyro.extras.get_parser(kind, prog=f"jaxtrain {stage} CONFIG").format_help())


