"""Bytes of Zarr, near and far.

In: paths and addresses of chunks. Out: decoded values, laid where a reader wants them.
Read `chunks` first: which chunks an array has, and how one is read.
"""
