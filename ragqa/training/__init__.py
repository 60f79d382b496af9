"""From an index to an adapter: questions, splits, contexts, tokens, LoRA."""
