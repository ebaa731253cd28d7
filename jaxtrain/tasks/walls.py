"""Shuts a program in before it runs. `main` is a process of its own, which `sandbox.py` starts.

Three processes. The first makes new user, mount, PID, network, IPC and UTS namespaces and a root folder that
holds Python, three devices and a small scratch folder, all but the last read-only. The second is the judge.
The third, in a PID namespace below the judge's, is the program: it sees neither the judge nor any other
process, and its one way out is a pipe to the judge. Judge and program hold no capability and cannot gain
any; what their seccomp filter does not name is refused, and it names no call that makes a process, a socket,
a mount or memory that the limit of the address space does not count. All end with the process that asked.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import NoReturn

from jaxtrain.tasks import judge, syscalls
from jaxtrain.tasks.pipe import Pipe

MIB = 1 << 20
NEW_PIDS = 0x20000000
NEW = 0x10000000 | 0x00020000 | NEW_PIDS | 0x40000000 | 0x08000000 | 0x04000000
"""unshare(2): CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS."""
NOSUID_NODEV, PRIVATE, BIND, DETACH = 2 | 4, 0x4000 | 0x40000, 0x1000 | 0x4000, 2
"""mount(2), all the way down where a flag of recursion (0x4000) is in it; umount2(2)."""
AT_FDCWD, AT_RECURSIVE, READ_ONLY = -100, 0x8000, 1
DEATH_SIGNAL, NO_NEW_PRIVILEGES, SET_SECCOMP, DROP_BOUND = 1, 38, 22, 24
"""prctl(2)."""
LIBRARIES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", f"{sys.base_prefix}/lib", str(Path(os.__file__).parent)),
)
"""What a program may read of the machine: Python's own modules and what they are linked with."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
LONGEST_S = 300
"""Wall time of a judgement, seconds; reached only where the machine is too busy to run what it was given."""


class Refused(Exception):
    """This kernel cannot shut a program in; the text says which call failed, and how."""


_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise Refused(f"{name}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    """Arguments: the PID of the process that asked, and the limits as JSON (`sandbox.Limits`)."""
    parent, limits = int(sys.argv[1]), json.loads(sys.argv[2])
    try:
        if platform.system() != "Linux" or platform.machine() not in syscalls.MACHINES:
            raise Refused(f"{platform.system()} on {platform.machine()}")
        call("unshare", NEW)
        # after the change of user, which would undo it
        call("prctl", DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return
        signal.alarm(LONGEST_S)
        _say("apart")
        if os.read(0, 1) != b"m":
            return
        processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        _new_root(limits["file_mib"])
        if first := os.fork():
            os.close(1)
            os.waitpid(first, 0)
            return
        call("prctl", DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        _judge(processes, limits)
    except Refused as error:
        _say(f"refused {error}")


def _say(line: str) -> None:
    """To the process that asked."""
    os.write(1, f"{line}\n".encode())


def _new_root(file_mib: int) -> None:
    """A root folder of LIBRARIES, DEVICES and /tmp; the machine's own is let go."""
    # a folder that every machine has, and none needs to be read after this
    root = "/proc"
    call("mount", None, b"/", None, ctypes.c_ulong(PRIVATE), None)
    call("mount", b"none", root.encode(), b"tmpfs", ctypes.c_ulong(NOSUID_NODEV), b"size=1m,mode=755")
    bound = [path for path in dict.fromkeys(LIBRARIES) if Path(path).exists()]
    # one inside another is there already
    bound = [one for one in bound if not any(one.startswith(f"{other}/") for other in bound)]
    for path in (*bound, *DEVICES, "/tmp", "/proc"):
        place = Path(root + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if path not in DEVICES and Path(path).is_dir() else place.touch()
    for path in bound:
        call("mount", path.encode(), (root + path).encode(), None, ctypes.c_ulong(BIND), None)
    attributes = struct.pack("QQQQ", READ_ONLY | NOSUID_NODEV, 0, 0, 0)
    number = syscalls.MACHINES[platform.machine()].mount_setattr
    call("syscall", number, AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, len(attributes))
    for path in DEVICES:
        call("mount", path.encode(), (root + path).encode(), None, ctypes.c_ulong(BIND), None)
    options = f"size={max(file_mib * MIB, 4096)},nr_inodes=1k".encode()
    call("mount", b"none", (root + "/tmp").encode(), b"tmpfs", ctypes.c_ulong(NOSUID_NODEV), options)
    os.chdir(root)
    # the old root lies under the new one for a moment: pivot_root(2)
    call("syscall", syscalls.MACHINES[platform.machine()].pivot_root, b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/tmp")


def _judge(processes: int, limits: dict[str, float]) -> None:
    """Start the program's process, wait for what it is to run, and say whether it passed."""
    call("unshare", NEW_PIDS)
    (from_judge, to_program), (from_program, to_judge) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_program)
        os.close(from_program)
        _program(processes, from_judge, to_judge, limits)
    os.close(from_judge)
    os.close(to_judge)
    said, told = Pipe(from_program, to_program).receive()
    if said != "ready":
        raise Refused(told)
    try:
        clock = os.open(f"{told}/schedstat", os.O_RDONLY, dir_fd=processes)
        if os.read(clock, 100).split()[2] == b"0":
            raise Refused("/proc/PID/schedstat: the kernel counts nothing there")
    except OSError as error:
        raise Refused(f"/proc/PID/schedstat: {error.strerror}") from error
    os.close(processes)
    answer = os.dup(1)

    def end(reason: str) -> NoReturn:
        os.write(answer, b"failed " + reason.encode("ascii", "replace")[:200] if reason else b"passed")
        os._exit(0)

    pipe = judge.Watched(from_program, to_program, clock, (limits["seconds"], limits["asleep"]), end)
    _give_up_power(limits, 2 * limits["seconds"])
    _say("shut in")
    with open(0, encoding="ascii", closefd=False) as asked:
        job = json.load(asked)
    _close_streams()
    end(judge.judge(pipe, **job))


def _program(processes: int, from_judge: int, to_judge: int, limits: dict[str, float]) -> NoReturn:
    """Be the program's process; it never comes back."""
    pipe = Pipe(from_judge, to_judge)
    try:
        number = os.readlink("self", dir_fd=processes)
        _close_streams()
        for low, high in ((3, from_judge), (from_judge + 1, to_judge), (to_judge + 1, 1024)):
            os.closerange(low, high)
        _give_up_power(limits, limits["seconds"] + 1)
        pipe.send(["ready", number])
        judge.answer_calls(pipe)
    except Refused as error:
        pipe.send(["refused", str(error)])
    finally:
        os._exit(0)


def _close_streams() -> None:
    nowhere = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _give_up_power(limits: dict[str, float], seconds: float) -> None:
    """No capability, no way to one, limits, and a filter that lets through the calls of `syscalls` alone."""
    for kind, most in (
        (resource.RLIMIT_CPU, int(seconds)),
        (resource.RLIMIT_AS, limits["memory_mib"] * MIB),
        (resource.RLIMIT_FSIZE, limits["file_mib"] * MIB),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (int(most), int(most)))
    for capability in range(64):
        # one that the kernel does not know is EINVAL
        _libc.prctl(DROP_BOUND, capability, 0, 0, 0)
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    call("capset", header, none)
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    program = syscalls.filter_of(platform.machine())
    packed = ctypes.create_string_buffer(program)
    call("prctl", SET_SECCOMP, 2, struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(packed)), 0, 0)
