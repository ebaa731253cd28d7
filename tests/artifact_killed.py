"""Kill a stage before each of its file operations in turn; test_artifact.py runs this as its own process.

usage: python artifact_killed.py FOLDER {fresh,resume}
Writes how many kills there were; an assertion fails where a kill left half an artifact, or where the next run
does not give the bytes of an undisturbed one.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from jaxtrain import artifact
from jaxtrain.tokenize.run import TokenizeConfig

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "half"}


def write(folder: Path) -> dict[str, Any]:
    """Two files in two folders; the second is written in halves."""
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "first.txt").write_text("first")
    with (folder / "deep" / "second.txt").open("w") as file:
        file.write("half")
        file.flush()
        sys.audit("half", str(folder))
        file.write("whole")
    return {"files": 2}


def make(out: Path, vocab_size: int, resume: bool) -> None:
    config = TokenizeConfig(documents=str(out.parent / "input"), out=str(out), vocab_size=vocab_size)
    artifact.produce(config, {"documents": out.parent / "input"}, write, resume=resume)


def killed(out: Path, moment: int, resume: bool) -> bool:
    """Run in a child that dies before its file operation number `moment`; whether it did."""
    child = os.fork()
    if child == 0:
        left = moment

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in EVENTS and arguments and str(arguments[0]).startswith(str(out)):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        make(out, 1000, resume)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (artifact.COST, artifact.LOCK, artifact.STARTED)
    }


def main(place: Path, resume: bool) -> None:
    (place / "input").write_text("what the stage reads")
    reference = place / "reference"
    make(reference, 1000, resume)
    kills = 0
    for stands in (False, True):  # an artifact of other settings, to be replaced
        moment, out = 0, place / "out"
        while True:
            for left in (out, Path(f"{out}.partial"), Path(f"{out}.old")):
                shutil.rmtree(left, ignore_errors=True)
            if stands:
                make(out, 999, resume)
                before = content(out)
            if not killed(out, moment, resume):
                break
            if out.exists():
                assert content(out) in ([before] if stands else []) + [content(reference)], (moment, stands)
            make(out, 1000, resume)
            assert content(out) == content(reference), (moment, stands)
            traces = (f"{out}.partial", f"{out}.old", out / artifact.LOCK, out / artifact.STARTED)
            assert not any(Path(path).exists() for path in traces), (moment, stands)
            moment += 1
        kills += moment
    sys.stdout.write(str(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "resume")
