"""What is asked of the turns of a conversation."""

import re
from dataclasses import dataclass

from jaxtrain.clean.filter import Filter, Record
from jaxtrain.conversation import is_empty, order_fault

_REFUSAL = re.compile(r"(?i)\bas an AI(?: language model| assistant|,)|\bas a (?:large )?language model, I\b")


@dataclass(frozen=True)
class Turns(Filter):
    """Drops conversations with an empty turn, without an answer at the end or with turns out of order."""

    refusals: bool = False
    """Whether answers that begin as an AI language model's refusal may stay."""

    def judge(self, record: Record) -> str:
        messages = record.messages
        if messages is None:
            return ""
        if any(is_empty(message) for message in messages):
            return "empty turn"
        if not messages or messages[-1]["role"] != "assistant":
            return "no answer at the end"
        if order_fault(messages):
            return "turns out of order"
        spoken = (turn["content"] for turn in messages if turn["role"] == "assistant")
        return "" if self.refusals or not any(map(_REFUSAL.search, spoken)) else "refusal boilerplate"
