"""What several test folders share. Importable as `support`."""
