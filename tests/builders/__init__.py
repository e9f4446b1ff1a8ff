"""What tests build: scenes of nuclei, small models with known answers, comparisons of made-up methods."""
