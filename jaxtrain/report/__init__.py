"""Numbers and pictures of a whole run, on one page that opens offline.

In: the finished artifacts of the stages before. Out: `report.html`, self-contained, and `results.json`.
gather.py   the numbers, read from the artifacts
plots.py    the pictures, as SVG that takes its colours from the page
page.html   the page, a Jinja2 template
run.py      the stage
"""
