"""Collect: the world becomes raw documents and conversations.

In: WARC and WET files, Common Crawl, a site, MediaWiki dumps, source code, books, tables, chat files.
Out: `documents/<source>.parquet`, `conversations/<source>.parquet`, and `unread.json`, which counts with a
reason everything that was there and could not be read.

web.py            WARC records -> the main text of HTML pages
gzip_members.py   WARC files with damaged members
crawl.py          Common Crawl by id, and a polite crawl of one site -> WARC
download.py       HTTP with resume, retry, time-outs and a limited rate
wiki.py           MediaWiki XML dumps -> the text of articles
code.py           a folder -> source files
attributes.py     what its .gitattributes say of them
books.py          works -> chapters
epub.py           EPUB and TEI -> works
tables.py         JSON lines, Parquet, CSV -> documents
chats.py          Alpaca, prompt/response, OpenAI and ShareGPT records -> conversations
files.py          what the readers share: compressed files, JSON records, paths
run.py            the stage
"""
