"""A model to talk to: in the terminal, in the browser, and over OpenAI's HTTP interface.

In: a finished training stage or a Hugging Face folder. Out: text. Needs the extra `serve`.
engine.py     a folder's model and tokenizer, and the thread that decodes
transcript.py ids as they come → text that can be shown
protocol.py   OpenAI's JSON in and out, and what is refused
writer.py     answers in OpenAI's JSON, whole or in chunks
grammar.py    answers in a form (extra `grammar`)
app.py        the HTTP server: limits, streams, metrics
run.py        ServeConfig, `jaxtrain serve`
chat.py       ChatConfig, `jaxtrain chat`
static/       the chat page
"""
