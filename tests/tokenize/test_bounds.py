"""Templates of strangers: what wants too much is one line, and what templates do in earnest goes on."""

import json
import subprocess
import sys

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxtrain.tokenize import bounds

GROW = "{{% set n = namespace(s={0}) %}}{{% for i in range(60) %}}{{% set n.s = {1} %}}{{% endfor %}}"
HOSTILE = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{{ 'a' * 1000000 }}{% endfor %}",
    "{% set x %}{% for a in range(99999) %}{{ 'a' * 1000000 }}{% endfor %}{% endset %}",
    "{% for a in 'abc' * 90000 %}{% for b in 'abc' * 90000 %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    *(
        f"{{{{ {left} * {right} }}}}"
        for left, right in (("'a'", "10**10"), ("10**10", "'a'"), ("[1]", "10**10"))
    ),
    *(f"{{{{ 'a'.{name}(10**10) }}}}" for name in ("ljust", "rjust", "center", "zfill")),
    *(f"{{{{ 'a'|{name} }}}}" for name in ("indent(10**10, true)", "center(10**10)")),
    *("{{ '%10000000000d' % 1 }}", "{{ '%*d' % (10**10, 1) }}", "{{ '%10000000000d'|format(1) }}"),
    *("{{ '{:>10000000000}'.format(1) }}", "{{ '{:>{w}}'.format(1, w=10**10) }}"),
    "{{ '{w:>{w}}'.format_map({'w': 10**10}) }}",
    "{{ ('%(a)s' * 100000) % {'a': 'b' * 1000000} }}",
    "{{ ('{a}' * 100000).format(a='b' * 1000000) }}",
    *(
        "{{ ('a' * 8000000).replace('a', 'b' * 8000000) }}",
        "{{ ('a' * 8000000)|replace('a', 'b' * 8000000) }}",
    ),
    *("{{ ('b' * 1000000).join('a' * 100000) }}", "{{ ('a' * 100000)|join('b' * 1000000) }}"),
    *("{{ ('\t' * 8000000).expandtabs(1000) }}", "{{ 'aaaaaaaaa'.translate({97: 'b' * 1000000}) }}"),
    *(
        "{{ (1).to_bytes(10**10, 'big') }}",
        "{{ 10 ** (10 ** 7) }}",
        "{{ dict.fromkeys(range(99999), 'b' * 1000000) }}",
    ),
    *("{{ messages|tojson(indent=10**9) }}", "{{ messages|tojson(separators=('a' * 8000000, 'b')) }}"),
    *("{{ messages|tojson(cls=dict) }}", "{{ 1 / 0 }}", "{{ range(10**9) }}", "{{ lipsum(n=10**9) }}"),
    *(GROW.format("'aa'", grown) for grown in ("n.s + n.s", "n.s ~ n.s")),
    *(GROW.format("[1]", grown) + "{{ n.s }}" for grown in ("[n.s, n.s]", "n.s + n.s")),
    *(
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if x %}" * 3000,
        "{% include 'a' %}",
        "{{ messages.append(1) }}",
    ),
]
MESSAGES = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]
TRY = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import bounds, chat
bounds.SECONDS = 0
given = json.load(sys.stdin)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for text in given["templates"]:
    try:
        chat._rendered((text, "2024-07-26", ()), given["messages"], (), False)
        print("rendered", repr(text[:60]))
    except UserError as error:
        assert str(error).startswith("the chat template refuses a conversation: ") and len(str(error)) < 300
print("MiB", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_what_wants_too_much_is_one_line_and_takes_no_memory():
    """In a process of its own, which may hold 4 GiB."""
    found = subprocess.run(
        [sys.executable, "-c", TRY],
        input=json.dumps({"templates": HOSTILE, "messages": MESSAGES}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    (last,) = found.stdout.splitlines()
    assert last.startswith("MiB ") and int(last.split()[1]) < 400


EARNEST = [
    "{% for m in messages %}{{ loop.index }} of {{ loop.length }}, {{ loop.last }}: {{ m.content ~ 1 }}"
    "{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ m['content'] + '!' + '?' }}{% else %}none{% endfor %}",
    "{% for k, v in {'a': [1, (2, 3)]}.items() %}{{ k }}{{ v }}{% endfor %}{{ [1] + [2] }}{{ 1 + 2 }}",
    "{% set n = namespace(n=0) %}{% for m in messages %}{% set n.n = n.n + 1 %}{% endfor %}{{ n.n * 'ab' }}",
    "{% macro say(m) %}<{{ m.content|trim }}>{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
    "{{ '%s of %d' % ('a', 3) }}{{ '{:>4}|{x}'.format(1, x='y') }}{{ messages|map(attribute='role')|join }}",
    "{{ 'a\nb'|indent(2) }}{{ 'aa'|replace('a', 'b', 1) }}{{ '%s'|format(1) }}{{ '+'.join(['a', 'b']) }}",
    "{% for m in [{'c': [{'c': []}]}] recursive %}{{ loop.depth }}{{ loop(m.c) }}{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a * b }}{% endfor %}{% set x, y = 1, 2 %}{{ x }}{{ missing }}",
    "{% for m in missing %}a{% else %}b{% endfor %}{% set x %}{{ messages[0].content }}{% endset %}{{ x }}",
    "{{ messages[::-1]|map(attribute='content')|list }}{{ 'a' ~ none ~ missing ~ 1.5 }}{{ none }}",
]


@pytest.mark.parametrize("text", EARNEST)
def test_it_renders_as_jinjas_own_sandbox_does(text: str):
    found = bounds.render(text, "2024-07-26", messages=MESSAGES)
    assert found == ImmutableSandboxedEnvironment().from_string(text).render(messages=MESSAGES)


def test_a_long_conversation_is_not_too_much():
    long = [m for _ in range(2000) for m in ({"role": "user", "content": "word " * 200}, MESSAGES[1])]
    text = "{% for m in messages %}<{{ m.role + ':' }} {{ m.content }}>{% endfor %}"
    assert bounds.render(text, "2024-07-26", messages=long).count("word") == 400_000


def test_after_a_template_that_was_ended_another_is_rendered(monkeypatch):
    monkeypatch.setattr(bounds, "SECONDS", 0)
    renderer = bounds.Renderer()
    with pytest.raises(bounds.Refused, match="more than 0 seconds of a processor"):
        renderer(HOSTILE[0], "2024-07-26")
    assert renderer("{{ 'a' }}", "2024-07-26") == "a"
