"""HTTP: what is asked of several models by many callers, batched by tokens, and answered as the Predictor answers."""
