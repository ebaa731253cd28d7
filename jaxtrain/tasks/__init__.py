"""Benchmarks as data and graders. A grader is also a reward.

In: `.jsonl.gz` files of benchmark items. Out: items to score, and functions that grade text or scores.
task.py              Item (a multiple-choice question) and Task (file, prompt, metric)
arc_easy.py          school science, four choices
piqa.py              everyday physics, two choices
winogrande.py        whom or what a sentence means, two choices
human_preference.py  which of two answers a person preferred
utility.py           the stated true utility of the simulated raters, and their noise
words.py             the word lists of that utility
interval.py          how sure an observed share is
overlap.py           13-gram overlap of benchmark items with training documents
"""
