"""What this node does in its cluster: it reports, decides when it leads, and carries out its part."""
