"""The plan on paper of docs/scale.md: what more nodes would do for pretraining and for serving, and a simulation of the queues.

python -m benchmarks.scale                       # all tables, as Markdown
python -m benchmarks.scale --simulate            # the simulations too, less than a minute on one core
python -m benchmarks.scale [--simulate] --write  # into docs/scale.md
"""
