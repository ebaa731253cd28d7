"""Runs a Python program that nobody has read: a model wrote it.

The program runs in a process of its own inside new user, mount, PID, network, IPC and UTS namespaces of the
Linux kernel. There it sees every file read-only, one small scratch folder, no other process and no network.
It holds no capability, cannot gain any, and a seccomp filter refuses it new processes, programs, sockets and
mounts. CPU time, memory and file size are limited; when time is up the kernel kills all of it. Where the
kernel offers no such namespaces nothing is run: UserError. What it can do is read files; nothing that it
reads leaves.

This file is both sides: `run` starts it as a program (`_inside`), maps its user, and judges what came back.
"""

import ctypes
import os
import platform
import resource
import secrets
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
NEW = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""unshare(2): CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS."""
MS_NOSUID_NODEV, MS_PRIVATE_ALL = 2 | 4, 0x4000 | 0x40000
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
DEATH_SIGNAL, NO_NEW_PRIVILEGES, SET_SECCOMP, DROP_BOUND = 1, 38, 22, 24  # prctl(2)
REFUSED = {
    # clone fork vfork clone3 execve execveat socket ptrace mount umount2 unshare setns mount_setattr bpf
    "x86_64": (0xC000003E, (56, 57, 58, 435, 59, 322, 41, 101, 165, 166, 272, 308, 442, 321)),
    "aarch64": (0xC00000B7, (220, 435, 221, 281, 198, 117, 40, 39, 97, 268, 442, 280)),
}
"""By machine: its AUDIT_ARCH and the numbers of the system calls that fail with EPERM."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    passed: bool
    """It ran to its end, without an error, within its limits."""
    reason: str
    """Empty, or what ended it: `time`, `exit`, or the name of the exception."""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: int = 5
    """CPU time; wall time is twice that."""
    memory_mib: int = 512
    """Address space."""
    file_mib: int = 16
    """Of a file, and of the scratch folder."""


def run(program: str, limits: Limits | None = None) -> Outcome:
    """Run `program` to its end; UserError where this machine cannot shut it in."""
    limits = limits or Limits()
    token = secrets.token_hex(16)  # printed behind the program's last line: an early exit(0) is no success
    command = [
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__)),
        token,
        *map(str, (limits.seconds, limits.memory_mib, limits.file_mib)),
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            said = process.stdout.readline().decode(errors="replace").strip()
            if said != "apart":
                raise _refusal(said)
            _map_user(process.pid)
            out, _ = process.communicate(b"mapped\n" + program.encode(), timeout=2 * limits.seconds)
        except subprocess.TimeoutExpired:
            return Outcome(False, "time")
        finally:
            process.kill()
    lines = out.decode(errors="replace").splitlines()
    last = lines[-1] if lines else ""
    if last.startswith("refused "):
        raise _refusal(last)
    if last == f"{token} passed":
        return Outcome(True, "")
    ended = last.removeprefix(f"{token} ") if last.startswith(token) else "exit"
    return Outcome(False, ended)


def _refusal(said: str) -> Exception:
    from jaxtrain.runtime.errors import UserError  # the other side of this file knows no jaxtrain

    return UserError(
        f"code that a model wrote runs in Linux namespaces only; this machine {said or 'gives no answer'}: "
        "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or leave the task out"
    )


def _map_user(pid: int) -> None:
    """The user inside is the user outside, and no other exists there."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{os.geteuid()} {os.geteuid()} 1"),
        ("gid_map", f"{os.getegid()} {os.getegid()} 1"),
    ):
        Path(f"/proc/{pid}/{name}").write_text(text)


def _inside() -> None:
    """Shut this process in, then run what stands on stdin."""
    token, seconds, memory_mib, file_mib = sys.argv[1], *map(int, sys.argv[2:])
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            _say(f"refused {name}: {os.strerror(ctypes.get_errno())}")
            os._exit(1)

    if platform.system() != "Linux" or platform.machine() not in REFUSED:
        _say(f"refused {platform.system()} {platform.machine()}")
        return
    call("unshare", NEW)
    _say("apart")
    assert sys.stdin.readline() == "mapped\n"
    program = sys.stdin.read()
    call("mount", None, b"/", None, ctypes.c_ulong(MS_PRIVATE_ALL), None)
    attributes = struct.pack("QQQQ", READ_ONLY, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, len(attributes))
    for folder, size in ((b"/proc", 0), (b"/tmp", file_mib)):
        options = f"size={max(size * MIB, 4096)},nr_inodes=1k".encode()
        call("mount", b"none", folder, b"tmpfs", ctypes.c_ulong(MS_NOSUID_NODEV), options)
    os.chdir("/tmp")
    if first := os.fork():  # of the new PID namespace: with it all end
        os.waitpid(first, 0)
        return
    call("prctl", DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if worker := os.fork():  # limits that end a process by a signal do not end the first
        _, status = os.waitpid(worker, 0)
        if os.WIFSIGNALED(status):
            ended = signal.Signals(os.WTERMSIG(status)).name
            _say(f"{token} {'time' if ended == 'SIGXCPU' else ended}")
        return
    _give_up_power(call, seconds, memory_mib, file_mib)
    _execute(program, token)


def _say(line: str) -> None:
    """To the side outside."""
    os.write(1, f"{line}\n".encode())


def _give_up_power(call, seconds: int, memory_mib: int, file_mib: int) -> None:
    """No capability, no way to one, limits, and a filter that refuses new processes, sockets and mounts."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    for kind, most in (
        (resource.RLIMIT_AS, memory_mib * MIB),
        (resource.RLIMIT_FSIZE, file_mib * MIB),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    for capability in range(64):
        ctypes.CDLL(None).prctl(
            DROP_BOUND, capability, 0, 0, 0
        )  # those that the kernel does not know: EINVAL
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    call("capset", header, none)
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    architecture, numbers = REFUSED[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06  # of classic BPF: load a word, jump if equal, return
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000
    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    code += [(equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    code += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed))
    call("prctl", SET_SECCOMP, 2, program, 0, 0)


def _execute(program: str, token: str) -> None:
    """Run the program with its output thrown away; then one line: the token, and how it ended."""
    answer = os.dup(1)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
        ended = "passed"
    except BaseException as error:  # SystemExit too: it did not come to its end
        ended = type(error).__name__
    os.write(answer, f"{token} {ended}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    _inside()
