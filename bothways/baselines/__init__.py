"""What BERT must beat."""
