"""Chat files to conversations; which records are read is said in formats/chats.py."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jaxtrain.collect.source import FileSource, Item, Step
from jaxtrain.conversation import read_tools
from jaxtrain.document import Conversation, record_id
from jaxtrain.formats.chats import FIELDS, to_messages
from jaxtrain.formats.encoding import codec
from jaxtrain.formats.files import Unread, Unreadable
from jaxtrain.formats.rows import ENDS, rows


@dataclass(frozen=True, kw_only=True)
class ChatSource(FileSource):
    """Conversations of people with an assistant: JSON, JSON lines, Parquet or CSV files."""

    record_type: ClassVar = Conversation
    ends: ClassVar = ENDS

    def read_file(self, path: Path, unread: Unread) -> Iterator[Item]:
        for number, record in enumerate(rows(path, unread, FIELDS, codec(self.encoding)), 1):
            yield Step(f"row {number}", partial(self._conversation, record))

    def _conversation(self, record: dict[str, Any]) -> Iterator[Conversation]:
        try:
            messages, tools = to_messages(record), read_tools(record.get("tools"))
        except ValueError as error:
            raise Unreadable(str(error)) from error
        key = json.dumps([messages, tools] if tools else messages, ensure_ascii=False)
        yield Conversation(
            id=record_id(self.name, key),
            messages=messages,
            tools=tools,
            source=self.name,
            license=self.license,
        )
