"""Seeded fuzzers for what reads untrusted bytes; each module is a command as well."""
