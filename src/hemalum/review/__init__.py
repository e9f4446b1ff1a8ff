"""Review: which images a model is least sure of, and learning from these again."""
