"""A tunnel that worked keeps working, whatever mobikectl does, dies of, or is told."""
