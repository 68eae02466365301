"""Stores become shuffled batches of windows, in bounded memory.

In: a training store, or any store or Dataset. Out: batches of tensors, resumable at the exact next
one. Read `open` first (`sciwm.stream`): what is read, which windows, in how much memory. The folder
is not called `stream`: importing anything below it would replace that function by a module.
"""
