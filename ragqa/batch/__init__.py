"""A file of questions answered: read, asked a block at a time, written as Parquet."""
