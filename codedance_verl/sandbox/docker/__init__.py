"""Interpreters in Docker containers: image, containers, sizes, clean-up."""
