"""Chat files to conversations; which records are read is said in formats/chats.py."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxtrain.collect.source import FileSource
from jaxtrain.conversation import read_tools
from jaxtrain.document import Conversation, record_id
from jaxtrain.formats.chats import FIELDS, to_messages
from jaxtrain.formats.encoding import codec
from jaxtrain.formats.files import Unread
from jaxtrain.formats.rows import ENDS, rows


@dataclass(frozen=True, kw_only=True)
class ChatSource(FileSource):
    """Conversations of people with an assistant: JSON, JSON lines, Parquet or CSV files."""

    record_type: ClassVar = Conversation
    ends: ClassVar = ENDS

    def read_file(self, path: Path, unread: Unread) -> Iterator[Conversation]:
        encoding = codec(self.encoding) if self.encoding else ""
        for record in rows(path, unread, FIELDS, encoding):
            try:
                messages, tools = to_messages(record), read_tools(record.get("tools"))
            except ValueError as error:
                unread[str(error)] += 1
                continue
            key = json.dumps([messages, tools] if tools else messages, ensure_ascii=False)
            yield Conversation(
                id=record_id(self.name, key),
                messages=messages,
                tools=tools,
                source=self.name,
                license=self.license,
            )
