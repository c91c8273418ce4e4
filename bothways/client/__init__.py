"""The methods of a Predictor, answered by a server."""
