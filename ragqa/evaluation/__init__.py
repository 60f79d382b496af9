"""Whether fine-tuning pays, whether retrieval does, and whether both do: arms, measures, statistics and the report."""
