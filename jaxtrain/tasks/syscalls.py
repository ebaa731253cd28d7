"""The system calls that a program in the sandbox may make, and the filter that refuses all others.

Files (by folders that are read-only or bounded), memory that RLIMIT_AS counts, time, and questions about
itself. Among those not named: clone, execve, socket, mount, io_uring_setup, shmget, memfd_create, pipe,
fcntl, ioctl, ptrace, process_vm_writev, pidfd_open, keyctl, bpf. Numbers: arch/x86/entry/syscalls/
syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
"""

import struct
from dataclasses import dataclass

_ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, open 2 -
openat 257 56, close 3 57, lseek 8 62, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291
access 21 -, faccessat 269 48, faccessat2 439 439, statfs 137 43, fstatfs 138 44, readlink 89 -
readlinkat 267 78, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, umask 95 166
truncate 76 45, ftruncate 77 46, fallocate 285 47, fadvise64 221 223, fsync 74 82, fdatasync 75 83
sendfile 40 71, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -
link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, unlink 87 -, unlinkat 263 35, chmod 90 -
fchmod 91 52, fchmodat 268 53, utimensat 280 88, dup 32 23, dup2 33 -, dup3 292 24, close_range 436 436
poll 7 -, ppoll 271 73
mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, madvise 28 233, brk 12 214
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101
gettimeofday 96 169, times 100 153
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, kill 62 129
restart_syscall 219 128, exit 60 93, exit_group 231 94, futex 202 98, set_tid_address 218 96
set_robust_list 273 99, rseq 334 293, getrandom 318 278, sched_yield 24 124, sched_getaffinity 204 123
getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176
getegid 108 177, getgroups 115 158, getrlimit 97 163, prlimit64 302 261, getrusage 98 165
sysinfo 99 179, uname 63 160
"""
"""Name, number on x86_64, number on aarch64 (`-`: the machine has no such call)."""


@dataclass(frozen=True)
class Machine:
    audit: int
    """AUDIT_ARCH of linux/audit.h: what the filter sees of a call made in another machine's manner."""
    column: int
    """Of _ALLOWED."""
    pivot_root: int
    mount_setattr: int = 442


MACHINES = {"x86_64": Machine(0xC000003E, 1, 155), "aarch64": Machine(0xC00000B7, 2, 41)}
"""By `platform.machine()`."""


def allowed(machine: str) -> list[int]:
    """The numbers of the calls that go through."""
    rows = (row.split() for row in _ALLOWED.replace("\n", ",").split(",") if row)
    return sorted(int(row[MACHINES[machine].column]) for row in rows if row[MACHINES[machine].column] != "-")


def filter_of(machine: str) -> bytes:
    """seccomp(2)'s program in classic BPF: EPERM for what is not allowed, the end for another machine's."""
    numbers = allowed(machine)
    # load a word, jump if equal, return
    load, equal, give = 0x20, 0x15, 0x06
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000
    code = [(load, 0, 0, 4), (equal, 1, 0, MACHINES[machine].audit), (give, 0, 0, kill), (load, 0, 0, 0)]
    # a jump is over what is left of the numbers, and over the refusal
    code += [(equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    code += [(give, 0, 0, refuse), (give, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *line) for line in code)
