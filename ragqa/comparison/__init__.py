"""All ways of answering on one catalogue, compared: from its file to the report, stage by stage."""
