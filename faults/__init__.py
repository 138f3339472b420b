"""Everything that can go wrong around a run, done on purpose and counted: damaged input, kills, full disks, races.

    python -m faults                                   # the whole campaign, seeded; writes docs/faults.json and .md
    python -m faults --only videos texts --scale 0.05  # a small part of it

A trial survives when the program gives the right result or refuses in one sentence that names what is wrong; something
is lost when a result that was or should be there is gone or different; a message is wrong when there is a traceback, a
crash, a hang, or a sentence that does not say where to look.
"""
