"""Sans-IO state machines of the five documents, both roles of each.

A machine takes plaintext IKE messages with `receive` and times as arguments, gives back messages with
`send`, the time when it wants to be called again with `next_deadline`, and what happened with `next_event`.
It does no I/O, reads no clock, and leaves encryption to charon.
"""
