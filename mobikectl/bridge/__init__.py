"""The two historical protocols between two charons with the plugin (docs/rmobike.md, "The bridge")."""
