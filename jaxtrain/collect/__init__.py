"""Collect: the world becomes raw documents and conversations.

In: WARC crawls, MediaWiki dumps, folders of source code, novels, chat files. Nothing is downloaded here.
Out: `documents/<source>.parquet`, `conversations/<source>.parquet`, and `unread.json`, which counts with a
reason everything that was there and could not be read.

web.py     WARC records -> the main text of HTML pages
wiki.py    MediaWiki XML dumps -> the text of articles
code.py    a folder -> source files
books.py   novels -> chapters
chats.py   Alpaca, prompt/response, OpenAI and ShareGPT records -> conversations
files.py   what the readers share: compressed files, JSON records, paths
run.py     the stage
"""
