"""Stores become shuffled batches of windows, in bounded memory.

In: a training store, or any store or Dataset. Out: batches of tensors, resumable at the exact next
one. Read `open` first (`sciwm.stream`): what is read, which windows, in how much memory. The folder
is not called `stream`, because importing anything below it would put a module in the place of that
function.
"""
