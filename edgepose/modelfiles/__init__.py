"""How each model file format is told apart and where it keeps its metadata. No runtime is needed for any of this."""
