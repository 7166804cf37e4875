"""What `mobikectl doctor` looks at: each finding comes with its mend. Nothing is changed."""

from mobikectl.doctor.findings import Finding, Level

__all__ = ["Finding", "Level"]
