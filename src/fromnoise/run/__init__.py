"""Recipe, run folder, stage context, checkpoints, metrics: what every stage stands on.

The package itself can be called, as `fromnoise.run("world")`: see `fromnoise/__init__.py`.
"""
