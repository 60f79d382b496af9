"""What so many titles and questions take: measured figures, how they grow, and from them a plan."""
