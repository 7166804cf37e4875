"""A laboratory on one machine: network namespaces, real charons, and scenarios that measure what happens."""
