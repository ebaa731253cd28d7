"""Chat templates by name, for models that came without one. What the assistant says is marked as generation.

Their wording is that of the published models (ChatML: OpenAI 2023; Llama 3, Qwen 2.5, Gemma: model cards).
Tools are written as Qwen 2.5 does (chatml, qwen) and as Llama 3.1 does (llama3); gemma and plain refuse them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtrain.tokenize.tool_text import DESCRIBED

_QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass(frozen=True)
class NamedTemplate:
    text: str
    """Jinja, as Hugging Face's chat templates are."""
    tokens: tuple[str, ...]
    """Special tokens that the tokenizer must have."""


def _turns(default: str = "", *, first: str = "", role: tuple[str, str], end: str, gap: str) -> str:
    """Turns with their role before them; tools as Qwen's models have them.

    default: the system message of a conversation without one; empty: none. first: before all turns.
    role: the text around a role's name. end: of a turn, which the assistant learns. gap: between turns.
    """
    before, behind = (json.dumps(text) for text in DESCRIBED)
    left, right, end, gap = (json.dumps(text) for text in (*role, end, gap))
    return (
        f"{first}{{% set has_system = messages[0]['role'] == 'system' %}}"
        f"{{% set first = messages[0]['content'] if has_system else {json.dumps(default)} %}}"
        "{% if first or tools or has_system %}"
        f"{{{{ {left} + 'system' + {right} + first }}}}"
        "{% if tools %}"
        f"{{{{ '\\n\\n' if first }}}}{{{{ {before} }}}}"
        "{% for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}"
        f"{{{{ {behind} }}}}"
        f"{{% endif %}}{{{{ {end} + {gap} }}}}{{% endif %}}"
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}"
        f"{{{{ {left} + 'assistant' + {right} }}}}"
        "{% generation %}{{ message['content'] }}"
        "{% for call in message['tool_calls'] or [] %}"
        "{% if message['content'] or not loop.first %}{{ '\\n' }}{% endif %}"
        "{{ '<tool_call>\\n{\"name\": ' + call['function']['name'] | tojson }}"
        "{{ ', \"arguments\": ' + call['function']['arguments'] | tojson + '}\\n</tool_call>' }}"
        "{% endfor %}"
        f"{{{{ {end} }}}}{{% endgeneration %}}{{{{ {gap} }}}}"
        "{% elif message['role'] == 'tool' %}"
        "{% if loop.first or messages[loop.index0 - 1]['role'] != 'tool' %}"
        f"{{{{ {left} + 'user' + {right} }}}}{{% else %}}{{{{ '\\n' }}}}{{% endif %}}"
        "{{ '<tool_response>\\n' + message['content'] + '\\n</tool_response>' }}"
        "{% if loop.last or messages[loop.index0 + 1]['role'] != 'tool' %}"
        f"{{{{ {end} + {gap} }}}}{{% endif %}}"
        "{% elif not (loop.first and message['role'] == 'system') %}"
        f"{{{{ {left} + message['role'] + {right} + message['content'] + {end} + {gap} }}}}"
        "{% endif %}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {left} + 'assistant' + {right} }}}}{{% endif %}}"
    )


def _chatml(default: str) -> str:
    """Turns as OpenAI's and Qwen's models have them."""
    return _turns(default, role=("<|im_start|>", "\n"), end="<|im_end|>", gap="\n")


OWN = _turns(first="{{ '<|bos|>' }}", role=("<|", "|>"), end="<|end|>", gap="")
"""The template of this project's own tokenizers (chat.py), for programs that read Jinja."""

_LLAMA3_TOOLS = (
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)
# With tools as Llama 3.1: its system message has dates, and the first question follows the tools.
_LLAMA3 = (
    "{% macro header(role) %}{{ '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}{% endmacro %}"
    "{{ bos_token }}"
    "{% set ns = namespace(asked=false) %}"
    "{% if tools %}"
    "{{ header('system') + 'Environment: ipython\\n' }}"
    "{{ 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% endif %}{{ '<|eot_id|>' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ header('assistant') }}"
    "{% generation %}"
    "{% if message['tool_calls'] %}"
    "{% if message['content'] or message['tool_calls'] | length > 1 %}"
    "{{ raise_exception('llama3 has one tool call a turn, and no words beside it') }}"
    "{% endif %}"
    "{% set call = message['tool_calls'][0]['function'] %}"
    "{{ '{\"name\": ' + call['name'] | tojson + ', \"parameters\": ' + call['arguments'] | tojson + '}' }}"
    "{% else %}{{ message['content'] | trim }}{% endif %}"
    "{{ '<|eot_id|>' }}{% endgeneration %}"
    "{% elif message['role'] == 'tool' %}"
    "{{ header('ipython') + message['content'] | tojson + '<|eot_id|>' }}"
    "{% elif not (tools and loop.first and message['role'] == 'system') %}"
    "{{ header(message['role']) }}"
    "{% if tools and message['role'] == 'user' and not ns.asked %}"
    f"{{{{ {json.dumps(_LLAMA3_TOOLS)} }}}}"
    "{% for tool in tools %}{{ tool | tojson(indent=4) + '\\n\\n' }}{% endfor %}"
    "{% set ns.asked = true %}"
    "{% endif %}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ header('assistant') }}{% endif %}"
)
_NO_TOOLS = (
    "{% if tools or messages | selectattr('tool_calls') | list "
    "or messages | selectattr('role', 'equalto', 'tool') | list %}"
    "{{ raise_exception('it has no form for tools; chatml, qwen and llama3 have') }}"
    "{% endif %}"
)
_GEMMA = _NO_TOOLS + (
    "{{ bos_token }}"
    "{% set ns = namespace(first='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% if not loop.first %}{{ raise_exception('a system message comes first') }}{% endif %}"
    "{% set ns.first = message['content'] | trim + '\\n\\n' %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<start_of_turn>model\\n' }}"
    "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}"
    "{{ '<start_of_turn>' + message['role'] + '\\n' + ns.first + message['content'] | trim }}"
    "{{ '<end_of_turn>\\n' }}"
    "{% set ns.first = '' %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_PLAIN = _NO_TOOLS + (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:\\n' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
    "{% else %}{{ message['role'] | capitalize + ':\\n' + message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)

TEMPLATES: Mapping[str, NamedTemplate] = {
    "chatml": NamedTemplate(_chatml(""), ("<|im_start|>", "<|im_end|>")),
    "llama3": NamedTemplate(_LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "qwen": NamedTemplate(_chatml(_QWEN_SYSTEM), ("<|im_start|>", "<|im_end|>")),
    "gemma": NamedTemplate(_GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    "plain": NamedTemplate(_PLAIN, ()),
}
"""plain: for a tokenizer without chat tokens; `User: …`, and an answer ends with the end of a document."""
