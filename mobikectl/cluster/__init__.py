"""What the nodes of a cluster share: who is there, who decides, what is wanted and what was done."""
