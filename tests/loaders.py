"""Streams for tests, with all options in one flat mapping."""

from dataclasses import fields

from sciwm.streams.open import Order, Reading, Stream, stream


def loader(data, **options) -> Stream:
    """`sciwm.stream`; the fields of `Order` and `Reading` lie flat among its own arguments."""
    order, reading = (
        kind(**{f.name: options.pop(f.name) for f in fields(kind) if f.name in options})
        for kind in (Order, Reading)
    )
    return stream(data, order=order, reading=reading, **options)
