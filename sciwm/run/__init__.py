"""A run from data to report, and runs side by side.

In: a configuration, or a run directory. Out: the files of a run directory, each made from what is
noted beside it. Read `verbs` first: one function a stage.
"""
