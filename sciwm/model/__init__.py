"""The JEPA: encoder, predictor, teacher, regularisers."""
