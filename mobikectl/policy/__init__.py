"""Pure decisions: given what is known, what should be done. No I/O, no clock, no asyncio."""
