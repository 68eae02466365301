"""What a readout is: latents become values.

In: predicted latents, and the states up to the initial time. Out: fields and scalar series.
Read `readout` first: `Readouts`, the ridges of every lead.
"""
