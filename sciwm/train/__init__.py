"""World models fitted to a training store.

In: a training store and a configuration. Out: a trained world model, its log and checkpoints.
Read `fit` first; `module` is one optimiser step, `optimizer` what moves the weights in it.
"""
