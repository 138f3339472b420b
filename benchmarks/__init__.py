"""Benchmarks: ours beside what a user would write or pick instead, and studies that stand alone.

    python -m benchmarks                             # every section: benchmarks/results.json and docs/benchmarks.md
    python -m benchmarks --sections head cold_start  # these anew; the others stay as they were measured
    python -m benchmarks --table                     # only the table anew, from the JSON

Both sides of a row get the same input in the same run and alternate, so that other work on the machine slows both
alike. Figures are medians over the rounds; a ratio is taken within each round and told as median (lowest to highest).
Weights and embeddings are random where they do not change what is computed. Sections on video need real clips
(DKD_DATA) and say so where there are none.
"""
