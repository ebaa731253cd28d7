"""Tools in the text that a model reads and writes, and its calls read back from what it wrote.

A template writes calls in one of two forms, that of Qwen (`tags`; models trained here have it too) or that of
Llama 3.1 (`bare`: the call is the whole answer):

    <tool_call>                                          {"name": "add", "parameters": {"x": 2, "y": 3}}
    {"name": "add", "arguments": {"x": 2, "y": 3}}
    </tool_call>
"""

import json
import re
from typing import Any, Literal

Form = Literal["tags", "bare", ""]
"""How a template writes calls; empty: not in a way that is read back."""
Call = tuple[str, dict[str, Any]]
"""Name and arguments."""
TAG = "<tool_call>"
# The words are those of Qwen's template (Qwen 2.5 and 3), which models know by heart.
DESCRIBED = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
)
"""What stands before and behind the descriptions of the tools, a line each."""
_CALL = re.compile(r"\n?<tool_call>\s*(\{(?:(?!</?tool_call>).)*\})\s*</tool_call>\s*", re.DOTALL)
LONGEST_OPENING = "\n" + TAG
_OPENINGS = {"tags": (LONGEST_OPENING, TAG), "bare": ("{",)}


def read_calls(text: str, form: Form) -> tuple[str, list[Call]]:
    """An answer's words and the calls behind them; all of it words where it does not end in whole calls."""
    at = begins(text, form)
    if at is None:
        return text, []
    if form == "bare":
        parts, key = [text], "parameters"
    else:
        parts, key = [match[1] for match in _CALL.finditer(text, at)], "arguments"
        if _CALL.sub("", text[at:]):
            return text, []
    calls = [call for part in parts if (call := _read(part, key)) is not None]
    return (text[:at], calls) if len(calls) == len(parts) else (text, [])


def _read(part: str, key: str) -> Call | None:
    try:
        found = json.loads(part)
    except (ValueError, RecursionError):  # the latter where it nests too deeply
        return None
    if not isinstance(found, dict) or set(found) != {"name", key}:
        return None
    name, arguments = found["name"], found[key]
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def begins(text: str, form: Form) -> int | None:
    """Where in an answer its calls begin, or may begin; None where they do not."""
    if form == "bare":
        return 0 if text.startswith("{") else None
    found = [at for opening in _OPENINGS.get(form, ()) if (at := text.find(opening)) >= 0]
    return min(found, default=None)


def may_begin(end: str, form: Form) -> bool:
    """Whether the end of an answer so far may become the opening of a call, which it is not yet."""
    return form == "tags" and any(opening.startswith(end) and opening != end for opening in _OPENINGS["tags"])
