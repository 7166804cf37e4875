"""What happened, told to people and programs: events, the log, pictures."""

from mobikectl.observe.events import Event, EventLog, Source

__all__ = ["Event", "EventLog", "Source"]
