"""Numbers and pictures of a whole run, on one page that opens offline.

In: the finished artifacts of the stages before. Out: `report.html`, self-contained, and `results.json`.
gather.py     the numbers, read from the artifacts; costs.py   what a run cost
plots.py      the pictures; drawing.py   figures to SVG that takes its colours from the page
census.py     the corpus before and after cleaning: tables and a picture
page.html     the page, a Jinja2 template, with census.html; compare.html of several runs; style.html of both
page.md       its tables as Markdown, for a pull request, a model card or a diff
run.py        the stage              runs.py      `jaxtrain report RUN [RUN2 …]`, `--watch`
inspect.py    `jaxtrain inspect`; incident.py   a refused batch as text
"""
