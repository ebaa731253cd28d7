"""Collect: the world becomes raw documents and conversations.

In: WARC and WET files, Common Crawl, a site, MediaWiki dumps, source code, books, texts, tables, chat files.
Out: `documents/<source>.parquet`, `conversations/<source>.parquet`; `unread.json`, which counts with a reason
everything that was there and could not be read; `verdicts.json`, where a reader had to be ended.

source.py         what a source is, one of your own as well
guard.py          the process in which a source is read, and its bounds
web.py            HTML pages of WARC files and folders -> main text
crawl.py          Common Crawl by id, and a polite crawl of one site -> WARC
download.py       HTTP with resume, retry, time-outs and a limited rate
wiki.py           MediaWiki XML dumps -> articles
code.py           a folder -> source files, and what its .gitattributes say of them
works.py          files of one text each -> works, and documents of such
books.py          works -> chapters
tables.py         JSON lines, Parquet, CSV -> documents
chats.py          chat files -> conversations
run.py            the stage
"""
