"""What runs beside charon: the composition root and its loops."""
