"""Memory, time, energy and money of a run, before it: `jaxtrain plan CONFIG --topology v5p:8x8x8`.

In: a training config and a topology. Out: text or JSON; nothing runs, no accelerator is needed.
hardware.py     chips, and the topologies that they are lent in
work.py         what a config trains: model, loss, rows, how they are drawn
program.py      the real programs, and bytes by their shapes
compiler.py     each compiled ahead of time
hlo.py          a compiled program read: computations, loops, FLOPs
collectives.py  what travels, read from the program
roofline.py     seconds of a call
search.py       the nearest settings that fit; meshes compared
bill.py         everything as JSON values
show.py         and as text, by plan.jinja
run.py          the command
"""
