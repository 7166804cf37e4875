"""A synthetic cluster in virtual time that drives the real policy code. No sockets, no clock, no threads."""
