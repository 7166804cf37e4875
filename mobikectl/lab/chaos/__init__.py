"""Moves of IKE_SAs around gateways whose processes are killed meanwhile (`mobikectl lab chaos`)."""
