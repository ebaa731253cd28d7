"""Memory, time, energy and money of a run, before it: `jaxtrain plan CONFIG --topology v5p:8x8x8`.

In: a pretrain config and a topology. Out: text or JSON; nothing runs, no accelerator is needed.
hardware.py     chips with their figures and sources
program.py      the real step: bytes by its shapes, and its program compiled ahead of time
collectives.py  what travels, read from the program
roofline.py     seconds of a step
published.py    what others measured, and the error of the prediction
known.py        figures that everybody quotes, by the same formulas
search.py       the nearest settings that fit; meshes compared
bill.py         everything as JSON values
show.py         and as text
run.py          the command
"""
