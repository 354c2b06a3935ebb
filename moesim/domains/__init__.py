"""What there is to learn: domains, what they share, the law each follows, and what an expert knows of them."""
