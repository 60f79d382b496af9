"""A question -> the products that match it: frame, embedding, candidates, order, confidence."""
