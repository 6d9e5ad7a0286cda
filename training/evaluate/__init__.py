"""Measures of a model, each with its convention said, beside the baseline a reader would ask for."""
