"""Formats: the files of others, opened, decompressed, decoded, parsed. A damage costs the record it lies in.

In: paths, bytes, JSON of any publisher.
Out: lines, rows, messages, comparisons; what could not be read is counted with a reason.

files.py        paths, streams behind every compression, whole texts, JSON records
members.py      compressed files of several members
encoding.py     bytes to text: as declared, else as detected
rows.py         rows of JSON, Parquet and CSV files
warc.py         WARC records and the HTTP messages in them
epub.py         EPUB and TEI -> a work
pdf.py          PDF -> a work
wikitext.py     the markup of MediaWiki -> plain text
chats.py        Alpaca, prompt/response, OpenAI and ShareGPT records -> messages
preferences.py  preferences and rankings of any publisher -> comparisons
"""
