"""Programs that do not double, and want to be paid as if they did: by what they try."""

TESTS = """
assert double(2) == 4
assert double(-1) == -2
for got, wanted in zip(map(double, [1, 5, 7]), [2, 10, 14]):
    assert got == wanted
"""
EQUAL = "    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n    __hash__ = None\n"
FRAMES = """
import json, os, struct
def tell(*messages):
    for fd in range(64):
        for message in messages:
            text = message if isinstance(message, bytes) else json.dumps(message).encode()
            try: os.write(fd, struct.pack('>I', len(text)) + text)
            except OSError: break
"""
SAY = """
import os
for fd in range(64):
    try: os.write(fd, {!r})
    except OSError: pass
"""
EXIT = "os._exit(0)"
WRONG = "\ndef double(x): return 0"
FLOOD = """
import os
for fd in range(64):
    try:
        if fd > 2:
            while True: os.write(fd, bytes(1 << 20))
    except OSError: pass
"""

CHEATS: dict[str, list[str]] = {
    "errors named like success": [
        "class passed(Exception): pass\nraise passed",
        "raise type('passed', (BaseException,), {})",
        "def double(x): raise type('passed', (Exception,), {})('passed')",
        "class passed(Exception):\n    __str__ = lambda self: 'passed'\ndef double(x): raise passed",
        "class E(Exception): pass\nE.__name__ = E.__qualname__ = ''\ndef double(x): raise E",
        "def double(x): raise Exception('passed')",
    ],
    "errors that mean something to who catches them": [
        "def double(x): raise StopIteration",
        "def double(x): raise GeneratorExit",
        "def double(x): raise StopAsyncIteration",
        "def double(x): raise SystemExit(0)",
        "def double(x): raise KeyboardInterrupt",
        "class S(StopIteration): pass\ndef double(x): raise S",
        "def double(x): raise ExceptionGroup('', [StopIteration()])",
    ],
    "leaving early": [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "import os\ndef double(x): os._exit(0)",
        "import os\nos.abort()",
        "import os, signal\nsignal.raise_signal(signal.SIGKILL)",
        "import ctypes\nctypes.string_at(0)",
    ],
    "an equality of its own": [
        f"class E:\n{EQUAL}def double(x): return E()",
        *(f"class E({kind}):\n{EQUAL}def double(x): return E()" for kind in ("int", "str", "list", "float")),
        "from unittest.mock import ANY\ndef double(x): return ANY",
        "from unittest.mock import MagicMock\ndouble = MagicMock()",
        f"class M(type):\n{EQUAL}class double(metaclass=M):\n    def __init__(self, x): pass",
    ],
    "builtins and modules replaced": [
        "import builtins\nbuiltins.AssertionError = type('A', (Warning,), {'__new__': lambda c, *a: 4})",
        "import builtins\nbuiltins.exec = builtins.compile = builtins.isinstance = lambda *a, **k: True",
        "import os\nw = os.write\nos.write = lambda fd, b: w(fd, b.split()[0] + b' passed\\n')",
        "import os\nw = os.write\nos.write = lambda fd, b: w(fd, b'passed')\ndef double(x): return 0",
        "import json\njson.dumps = lambda *a, **k: '[\"answer\", true]'\ndef double(x): return 0",
        "import os, sys\nos._exit = sys.exit = lambda *a: None\ndef double(x): raise SystemExit(0)",
        "import ctypes, sys\nctypes.memmove(id(False) + 24, id(True) + 24, 8)\ndef double(x): return False",
    ],
    "this sandbox's own modules": [
        "import sys\nfor m in list(sys.modules):\n"
        "    if 'judge' in m: sys.modules[m].judge = lambda *a, **k: ''" + WRONG,
        "import sys\nfor m in list(sys.modules.values()):\n"
        "    if hasattr(m, 'pack'): m.pack = lambda v: True" + WRONG,
        "import sys\nfor m in list(sys.modules.values()):\n"
        "    if hasattr(m, '_reply'): m._reply = lambda w: ['answer', ['ok', 1]]\ndef double(x): return 0",
        "from jaxtrain.tasks import walls\nwalls._say('passed')\nimport os\nos.write(1, b'passed')",
        "import jaxtrain.tasks.judge as j\nj.EXCEPTIONS['StopIteration'] = StopIteration\n"
        "def double(x): raise StopIteration",
    ],
    "arguments, frames, objects": [
        "import sys\nprint(sys.argv[1] + ' passed')\ndef double(x): return sys.argv",
        "import sys\nf = sys._getframe()\nwhile f:\n    f.f_locals.update(passed=True, verdict='passed')\n"
        "    f = f.f_back\n",
        "import sys, os\nf = sys._getframe()\nwhile f:\n    for v in f.f_locals.values():\n"
        "        if hasattr(v, 'send'): v.send(['answer', True])\n    f = f.f_back\n",
        "import gc\nfor o in gc.get_objects():\n"
        "    if isinstance(o, dict) and 'tests' in o: o['tests'] = ''" + WRONG,
        "import os\ndef double(x): return dict(os.environ)",
    ],
    "tracing and hooks": [
        "import sys\nsys.settrace(lambda f, e, a: None)\nsys.setprofile(lambda f, e, a: None)" + WRONG,
        "import sys\nsys.excepthook = sys.displayhook = sys.unraisablehook = lambda *a: None\n1 / 0",
        "import atexit, os\natexit.register(os.write, 1, b'passed')\nimport sys\nsys.exit(0)",
        "import os\nclass D:\n    def __del__(self): os.write(1, b'passed')\nd = D()\ndel d\n1 / 0",
        "import sys\nclass F:\n    def find_spec(self, *a):\n        import os\n        os._exit(0)\n"
        "sys.meta_path.insert(0, F())\nimport wave",
    ],
    "output that looks like a verdict": [
        "print('passed')",
        SAY.format(b"passed\n") + EXIT,
        SAY.format(b"refused by the policy\n") + EXIT,
        SAY.format(b"apart\nshut in\npassed") + WRONG,
        "import sys\nsys.stdout.write('failed \\npassed')\ndef double(x): return 'passed'",
    ],
    "messages of its own on the pipe": [
        FRAMES + "tell(['answer', ['list', 'double']], *[['answer', True]] * 9)\nos._exit(0)",
        FRAMES + "tell(['answer', ['list']], *[['answer', None]] * 9)\nos._exit(0)",
        FRAMES + "tell(*[['passed', '']] * 9)\nos._exit(0)",
        FRAMES + "tell(['ready', '1'], ['refused', 'by me'])\nos._exit(0)",
        FRAMES + "tell(b'[' * 200000)\nos._exit(0)",
        FRAMES + "tell(['raised', ['StopIteration', '']])\ndef double(x): return 0",
        FRAMES + "tell(['ended', [['passed'], '']], {}, 4, None, [], [[]])",
        SAY.format(b"\xff" * 4) + WRONG,
        "import os\nos.closerange(0, 64)\ndef double(x): return 2 * x",
    ],
    "values that are odd": [
        f"def double(x): return {value}"
        for value in (
            *(
                "float('nan')",
                "float('inf')",
                "None",
                "NotImplemented",
                "...",
                "'4'",
                "True",
                "[4]",
                "{}",
                "b'4'",
            ),
            *(
                "(n for n in [4])",
                "lambda: 4",
                "object",
                "double",
                "10 ** 400000",
                "'\\ud800'",
                "1j",
                "range(4)",
            ),
        )
    ],
    "values without end": [
        "def double(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
        "def double(x):\n    a = []\n    a.append(a)\n    return a",
        "def double(x): return 'a' * (1 << 22)",
        "async def double(x): return 2 * x",
        "def double(x):\n    yield 2 * x",
        FLOOD,
        f"def double(x):\n{FLOOD.replace(chr(10), chr(10) + '    ')}",
    ],
    "all of the machine": [
        "import time\ntime.sleep(600)",
        "import time\ndef double(x):\n    while True: time.sleep(0.001)",
        "import select\nselect.poll().poll()",
        "x = bytearray(10 * 2**30)",
        "import mmap\nx = [mmap.mmap(-1, 1 << 28) for _ in range(99)]",
        "with open('a', 'wb') as f:\n    while True: f.write(bytes(2**20))",
        "import os\nwhile True: os.fork()",
        "import threading\nthreading.Thread(target=print).start()",
        "import subprocess\nsubprocess.run(['true'])",
        "import socket\nsocket.socket()",
    ],
    "the machine's files": [
        "import os\nos.chdir('/proc/1/root')",
        "open('/etc/passwd').read()",
        "import os\nopen('/proc/self/mem', 'r+b')",
        "import os\nopen(os.__file__, 'a').write('')",
        "import os\nos.mknod('/tmp/kmsg', 0o020666, os.makedev(1, 11))",
        "import os\nos.chroot('/')",
    ],
    "signals to others": [
        "import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\nos.kill(1, 9)\ndef double(x): return 0",
        "import os\nfor s in range(1, 64):\n    try: os.kill(0, s)\n    except OSError: pass" + WRONG,
        "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.1)\ndef double(x): return 0",
    ],
    "names of the tests": [
        "def check(candidate): pass\ndef double(x): return 0",
        "candidate = double = zip = map = lambda *a: []",
        "import sys\nsys.modules['__main__'].double = sys.modules['__main__'].check = lambda *a: True",
    ],
    "no program": [
        "",
        "def double(x): return x ** 2",
        "def f(:",
        "\0",
        "(" * 100000,
        "\ud800",
        "double",
        "double = 4",
    ],
}
"""Kind to programs; `TESTS` hold for none of them."""

BUSY = [
    "while True: pass",
    "def double(x):\n    while True: pass",
    "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\nwhile True: pass",
    "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "def double(x): return list(range(10**7))",
    "import sys\nsys.set_int_max_str_digits(0)\ndef double(x): return int(str(10 ** 10**7))",
]
"""Those that use a processor for as long as they are given one."""
