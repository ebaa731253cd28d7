"""Benchmarks as data and graders. A grader is also a reward.

In: files of benchmark items. Out: items to score, to answer or to act in, and functions that grade.
task.py              Task (files, prompt, metric) and its items: choices, blanks, exercises
graders.py           what an answer is worth
endpoint.py          graders that ask a server: a judge by a rubric, a reward model
environment.py       worlds that a model acts in turn by turn, and tools that it calls
catalog.py           every task by name, and the task of a user's file
hub.py               their files from the Hugging Face hub (extra `eval`)
multiple_choice.py   ARC, BoolQ, HellaSwag, MMLU, PIQA, SciQ, SIQA, WinoGrande
written.py           GSM8K, HumanEval, TruthfulQA, BIG-Bench Hard: answers written out; LAMBADA: a last word
worlds.py            a calculator and its task, a text game
gym.py               reasoning-gym's tasks
verifiers.py         environments of verifiers and OpenEnv
sandbox.py           runs the code that a model wrote, in a process that walls.py and syscalls.py shut in
judge.py pipe.py     whether it passes its tests, decided where it is not
interface.py         what tests may ask of a program
utility.py           the stated true utility of the simulated raters, and their noise; its words: words.txt
interval.py          how sure an observed share is
overlap.py           13-gram overlap of benchmark items with training documents
"""
