"""The JEPA: encoder, predictor, teacher, regularisers; and the twins it is compared with."""
