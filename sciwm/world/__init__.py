"""What a trained model is and does.

In: labelled data, from anybody's store. Out: latents, and labelled forecasts.
Read `model` first: `WorldModel`, what `sciwm.load` returns.
"""
