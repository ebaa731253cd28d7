"""Benchmarks as data and graders. A grader is also a reward.

In: `.jsonl.gz` files of benchmark items. Out: items to score, and functions that grade text or scores.
task.py              Task (file, prompt, metric) and its items: choices, blanks, exercises
catalog.py           every task by name, and the task of a user's file
arc_easy.py arc_challenge.py boolq.py hellaswag.py mmlu.py piqa.py sciq.py siqa.py winogrande.py   choices
lambada.py           the last word of a passage
gsm8k.py humaneval.py truthfulqa.py bbh.py   answers written out
sandbox.py           runs the code that a model wrote, in a process that walls.py and syscalls.py shut in
judge.py pipe.py     whether it passes its tests, decided where it is not
interface.py         what tests may ask of a program
human_preference.py  which of two answers a person preferred
utility.py           the stated true utility of the simulated raters, and their noise
words.py             the word lists of that utility
refusals.py          requests to decline, and harmless ones in the same words
verifiable.py        problems whose answers a program can check, and the checks
arithmetic.py        additions, the smallest of them
interval.py          how sure an observed share is
overlap.py           13-gram overlap of benchmark items with training documents
"""
